// Every op with a kernel, on each of its samples and what follows from them, against the float64 oracle: values, the same bits twice and in
// place and with other thread counts, guard bytes around every output, NaN. Walks the registry; no op is named here.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evalOp } from "#lib/ir/interpret.js";
import { bytes, width, type Type } from "#lib/ir/types.js";
import { encode, encodeOne, paramsOf, tableHash } from "#lib/program/encode.js";
import type { Instruction, Slot } from "#lib/program/program.js";
import { loadAddon } from "#lib/runtime/addon.js";
import { Session, type LoadedProgram } from "#lib/runtime/session.js";
import { cases, type Case } from "./material.ts";
import { expected, firstFloat, toBytes, withNaN } from "./oracle.ts";

const GUARD = 256;
const FILL = 0x5a;
const MEM = "scratch/memory";

const levels = ["baseline", "avx2", "avx512", "avx512_bf16"];
const level = loadAddon().cpuInfo().level;
const threads = [1, 2, 3];
let sessions: Session[] = [];
beforeAll(() => void (sessions = threads.map((n) => Session.create({ device: "cpu", threads: n, tableHash: tableHash() }))));
afterAll(() => Promise.all(sessions.map((s) => s.close())));
test("the level is one of those that the kernels have", () => expect(levels).toContain(level));

/** Where everything lies in one block of memory: inputs and outputs, each with guards around it; `shared` puts an output over an input. */
function layOut(c: Case, outs: Record<string, Type>, shared?: { out: string; in: string }): { at: Map<string, number>; total: number } {
  const at = new Map<string, number>();
  let next = GUARD;
  for (const [k, t] of [...Object.entries(c.types), ...Object.entries(outs).map(([k, t]) => [`=${k}`, t] as const)]) {
    if (shared && k === `=${shared.out}`) continue;
    at.set(k, next);
    next += Math.ceil((bytes(t) + GUARD) / 64) * 64;
  }
  if (shared) at.set(`=${shared.out}`, at.get(shared.in)!);
  return { at, total: next };
}

function fromBytes(mem: Uint8Array, at: number, t: Type): Float64Array {
  const raw = mem.slice(at, at + bytes(t));
  if (t.dtype === "int32") return Float64Array.from(new Int32Array(raw.buffer));
  if (t.dtype === "float32") return Float64Array.from(new Float32Array(raw.buffer));
  return Float64Array.from(new Float32Array(Uint32Array.from(new Uint16Array(raw.buffer), (b) => b << 16).buffer));
}

interface Ran { values: Record<string, Float64Array>; memory: Uint8Array; at: Map<string, number> }
/** One instruction in memory that this test lays out. Outputs start as garbage; everything outside them must stay as it was. */
async function run(session: Session, c: Case, shared?: { out: string; in: string }): Promise<Ran> {
  const outs = c.def.infer({ ...c.types }, c.attrs);
  const { at, total } = layOut(c, outs, shared);
  const slot = (k: string, t: Type): Slot => ({ space: { buffer: MEM + total }, offset: at.get(k)!, type: t });
  const ins = [...c.def.inputs, ...c.def.optional].map((k) => (c.types[k] ? slot(k, c.types[k]) : undefined));
  const outSlots = c.def.outputs.map((k) => (outs[k] ? slot(`=${k}`, outs[k]) : undefined));
  const params = paramsOf(c.def).map(([k, kind]) => (kind === "numbers" ? (c.attrs[k] as number[]) : Number(c.attrs[k])));
  const bare: Instruction = { def: c.def, name: c.def.name, slots: [...ins, ...outSlots], params, scratch: { offset: 0, bytes: 0 } };
  const scratch = loadAddon().scratch("cpu", encodeOne(bare));
  const memType: Type = { shape: [total / 4], dtype: "int32" };
  const program = { dims: [], buffers: new Map([[MEM + total, memType]]), instructions: [{ ...bare, scratch: { offset: 0, bytes: scratch } }], arenaBytes: scratch, liveBytes: scratch, scratchBytes: scratch };
  const loaded: LoadedProgram = await session.load(encode(program));
  const memory = new Uint8Array(total).fill(FILL);
  for (const [k, t] of Object.entries(c.types)) memory.set(toBytes(c.x[k]!, t.dtype), at.get(k)!);
  const before = memory.slice();
  await session.write(MEM + total, new Int32Array(memory.buffer));
  await session.run(loaded);
  const after = new Uint8Array((await session.read(MEM + total)).buffer);
  await session.unload(loaded);
  const written = new Uint8Array(total);
  for (const [k, t] of Object.entries(outs)) written.fill(1, at.get(`=${k}`)!, at.get(`=${k}`)! + bytes(t));
  const stray = after.findIndex((b, i) => !written[i] && b !== before[i]);
  if (stray >= 0) throw new Error(`byte ${stray} lies outside every output and was changed (${[...at].map(([k, a]) => `${k}@${a}`).join(" ")})`);
  return { values: Object.fromEntries(Object.entries(outs).map(([k, t]) => [k, fromBytes(after, at.get(`=${k}`)!, t)])), memory: after, at };
}

function compare(c: Case, got: Record<string, Float64Array>): void {
  for (const [k, { want, tolerance }] of Object.entries(expected(c))) {
    const g = got[k]!;
    expect(g.length).toBe(want.length);
    want.forEach((x, i) => {
      const y = g[i]!;
      if (!Number.isFinite(x)) return expect(Object.is(y, x) || (Number.isNaN(x) && Number.isNaN(y)), `${k}[${i}]: ${x} expected, got ${y}`).toBe(true);
      if (!(Math.abs(y - x) <= tolerance[i]!)) throw new Error(`${k}[${i}]: ${x} expected, got ${y}, off by ${Math.abs(y - x)}, ${tolerance[i]} allowed`);
    });
  }
}

describe.each(["float32", "bfloat16"] as const)("%s", (dtype) => {
  test.each(cases(dtype))("$title", async (c) => {
    const ran = await run(sessions[0]!, c);
    compare(c, ran.values);
    for (const s of sessions) expect((await run(s, c)).memory, `${s.threads} threads`).toEqual(ran.memory);
    const outs = c.def.infer({ ...c.types }, c.attrs);
    for (const [out, input] of [...Object.entries(c.def.inplace), ...Object.entries(c.def.accumulate)]) {
      const [a, b] = [outs[out], c.types[input]];
      if (!a || !b || width[a.dtype] !== width[b.dtype] || bytes(a) !== bytes(b)) continue;
      const over = await run(sessions[1]!, c, { out, in: input });
      for (const k of Object.keys(outs)) expect(over.values[k], `${k} with ${out} over ${input}`).toEqual(ran.values[k]);
    }
  });
  const floats = cases(dtype).filter((c) => firstFloat(c) !== undefined);
  test.each(floats)("NaN in the first input passes through: $title", async (c) => {
    const bad = withNaN(c);
    const want = evalOp(c.def, bad.x, c.types, c.attrs);
    const got = (await run(sessions[0]!, bad)).values;
    const count = (r: Record<string, Float64Array>): number => Object.values(r).reduce((n, a) => n + a.filter(Number.isNaN).length, 0);
    if (count(want) > 0) expect(count(got), "NaNs out").toBeGreaterThan(0);
    for (const o of Object.keys(got)) got[o]!.forEach((v, i) => void (Number.isNaN(v) && expect(Number.isNaN(want[o]![i]!), `${o}[${i}] is NaN, the oracle says ${want[o]![i]}`).toBe(true)));
  });
});
