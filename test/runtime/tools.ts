// Shared by the tests of this room: programs put together by hand, and a seeded generator.
import { rmSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";
import "#lib/ops/index.js";
import { kernelOps } from "#lib/ir/op.js";
import { bytes, type, type Capacity, type Dim, type Type } from "#lib/ir/types.js";
import { encode } from "#lib/program/encode.js";
import type { Buffer, Instruction, Slot } from "#lib/program/program.js";
import { scratchOf } from "#lib/runtime/host.js";
import { Session, type SessionOptions } from "#lib/runtime/session.js";

export const root = fileURLToPath(new URL("../../", import.meta.url));

export const f32 = (...shape: Dim[]): Type => type(shape);
export const bf16 = (...shape: Dim[]): Type => type(shape, "bfloat16");
export const i32 = (...shape: Dim[]): Type => type(shape, "int32");
/** A buffer that lies in another. */
export const inside = (buffer: string, offset: number, t: Type): Buffer => ({ ...t, within: { buffer, offset } });
export const at = (offset: number, t: Type): Slot => ({ space: "arena", offset, type: t });

/** One instruction: its op, its slots (a buffer's name, a place in the arena, or absent) and its parameters. */
export type Line = readonly [
  op: string,
  slots: readonly (string | Slot | undefined)[],
  params?: readonly (number | readonly number[])[],
];

export interface Source {
  readonly dims?: readonly Capacity[];
  readonly buffers: Readonly<Record<string, Buffer>>;
  readonly code: readonly Line[];
}

const defs = new Map(kernelOps().map((d) => [d.name, d]));

export function instruction([op, slots, params = []]: Line, buffers: Source["buffers"] = {}, name = op): Instruction {
  const def = defs.get(op)!;
  const places = slots.map((s) => (typeof s === "string" ? { space: { buffer: s }, offset: 0, type: buffers[s]! } : s));
  return { def, name, slots: places, params, scratch: { offset: 0, bytes: 0 } };
}

/** The bytes of a hand-made program; scratch is planned behind everything else in the arena. */
export function assemble({ dims = [], buffers, code }: Source): Uint8Array {
  const scratch = scratchOf("cpu");
  let arenaBytes = 0;
  const lines = code.map((line, i) => instruction(line, buffers, `line.${i}/${line[0]}`));
  for (const s of lines.flatMap((c) => c.slots)) {
    if (s?.space === "arena") arenaBytes = Math.max(arenaBytes, Math.ceil((s.offset + bytes(s.type)) / 64) * 64);
  }
  const top = arenaBytes;
  const asked = new Map<Line, number>(); // a line that is repeated is asked once
  const instructions = lines.map((c, i) => {
    const want = asked.get(code[i]!) ?? scratch(c);
    asked.set(code[i]!, want);
    if (want > 0) arenaBytes = Math.max(arenaBytes, top + Math.ceil(want / 64) * 64);
    return { ...c, scratch: { offset: want > 0 ? top : 0, bytes: want } };
  });
  return encode({
    dims,
    buffers: new Map(Object.entries(buffers)),
    instructions,
    arenaBytes,
    liveBytes: 0,
    scratchBytes: 0,
  });
}

/** outputs/y = inputs/a + inputs/b over n elements. */
export const addition = (n: Dim): Uint8Array =>
  assemble({
    dims: typeof n === "number" ? [] : [n],
    buffers: { "inputs/a": f32(n), "inputs/b": f32(n), "outputs/y": f32(n) },
    code: [["add", ["inputs/a", "inputs/b", "outputs/y"]]],
  });

/** `times` products of two n x n matrices. */
export function long(n: number, times: number): Uint8Array {
  const line: Line = ["gemm", ["constants/a", "constants/a", undefined, undefined, "outputs/y"], [0, 1]];
  return assemble({
    buffers: { "outputs/y": f32(n, n), "constants/a": f32(n, n) },
    code: Array.from({ length: times }, () => line),
  });
}

/** A program that takes about so long on this machine when it is quiet, in small instructions. */
export async function lasting(seconds: number): Promise<Uint8Array> {
  await using s = Session.create({ device: "cpu", threads: 2 });
  const p = await s.load(long(384, 2));
  let each = Infinity;
  for (let i = 0; i < 8; i++) {
    const began = performance.now();
    await s.run(p);
    each = Math.min(each, (performance.now() - began) / 2000);
  }
  return long(384, Math.min(20000, Math.ceil(seconds / each)));
}

export const short = long(64, 1);

// What the tests of a file leave; a hook set inside a test would never run.
const sessions: Session[] = [];
const made: string[] = [];
afterAll(async () => {
  await Promise.all(sessions.map((s) => s.close()));
  for (const dir of made) rmSync(dir, { recursive: true, force: true });
});

/** A session that is closed after the test file. */
export function session(options: SessionOptions = { device: "cpu", threads: 2 }): Session {
  const s = Session.create(options);
  sessions.push(s);
  return s;
}

/** A folder that is removed after the test file. */
export function temporaryFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), "attune-runtime-"));
  made.push(dir);
  return dir;
}

/** Seeded whole numbers below `n`. */
export function random(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}
