// Every conformance case in one file, for boxes without Node: native/check/ops.cc runs it there.
// Layout, little-endian, everything padded to 8 bytes: "ATB2", cases; each case: flags (1: NaN in), instruction bytes, title,
// then the tensors in the instruction's order (inputs: bytes; outputs: float32 values, float32 tolerances; where a NaN is in: one byte an
// element, 1 where a NaN may come out), then pairs (output, input) that may share a place.
import { bytes, width, type Type } from "#lib/ir/types.js";
import { encodeOne, paramsOf } from "#lib/program/encode.js";
import type { Instruction, Slot } from "#lib/program/program.js";
import { cases, type Case } from "./material.ts";
import { expected, firstFloat, toBytes, withNaN, type Expected } from "./oracle.ts";

class Pieces {
  readonly all: Uint8Array[] = [];
  bytes(b: Uint8Array): void {
    this.all.push(b, new Uint8Array(-b.length & 7));
  }
  counted(b: Uint8Array): void {
    this.number(b.length);
    this.bytes(b);
  }
  number(n: number): void {
    this.bytes(new Uint8Array(Uint32Array.of(n, 0).buffer));
  }
}

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);
/** The next float32 up with 8 bits of mantissa: a tolerance says no more, and packs into half the bytes. */
function coarser(x: number): number {
  float[0] = x;
  if (Number.isFinite(x)) bits[0] = (bits[0]! + 0xffff) & 0xffff0000;
  return float[0]!;
}

/** The multiple of a power of two, a 64th of the tolerance or less, that is nearest: digits that nothing is held to do not travel. */
function shorter(x: number, tolerance: number): number {
  const quantum = 2 ** Math.floor(Math.log2(tolerance) - 6);
  return Number.isFinite(x) && tolerance > 0 ? Math.fround(Math.round(x / quantum) * quantum) : Math.fround(x);
}

/** Values and tolerances as float32: what a value loses by it, its tolerance gains. */
function inFloats({ want, tolerance }: Expected): Float32Array[] {
  const short = want.map((v, i) => shorter(v, tolerance[i]!));
  const lost = want.map((v, i) => (Number.isFinite(v) ? Math.abs(v - short[i]!) : 0));
  return [Float32Array.from(short), Float32Array.from(tolerance, (t, i) => coarser(t + lost[i]!))];
}

function write(p: Pieces, c: Case, nan: boolean): void {
  const outs = c.def.infer({ ...c.types }, c.attrs);
  const names = [...c.def.inputs, ...c.def.optional, ...c.def.outputs];
  const first = names.length - c.def.outputs.length;
  const typeOf = (k: string, i: number): Type | undefined => (i < first ? c.types[k] : outs[k]);
  const slots = names.map((k, i): Slot | undefined => {
    const t = typeOf(k, i);
    return t && { space: "arena", offset: 0, type: t };
  });
  const params = paramsOf(c.def).map(([k, kind]) => (kind === "numbers" ? (c.attrs[k] as number[]) : Number(c.attrs[k])));
  const code: Instruction = { def: c.def, name: c.def.name, slots, params, scratch: { offset: 0, bytes: 0 } };
  p.number(nan ? 1 : 0);
  p.counted(encodeOne(code));
  p.counted(new TextEncoder().encode(c.title));
  const want = expected(c);
  names.forEach((k, i) => {
    const t = typeOf(k, i);
    if (!t) return;
    if (i < first) p.counted(toBytes(c.x[k]!, t.dtype));
    else if (nan) p.counted(Uint8Array.from(want[k]!.want, (v) => Number(Number.isNaN(v))));
    else for (const x of inFloats(want[k]!)) p.counted(new Uint8Array(x.buffer));
  });
  const pairs = [...Object.entries(c.def.inplace), ...Object.entries(c.def.accumulate)].flatMap(([out, input]) => {
    const [a, b] = [outs[out], c.types[input]];
    return a && b && width[a.dtype] === width[b.dtype] && bytes(a) === bytes(b) ? [[first + c.def.outputs.indexOf(out), names.indexOf(input)]] : [];
  });
  p.number(pairs.length);
  for (const pair of pairs) pair.forEach((n) => p.number(n));
}

/** Both dtypes, with and without a NaN. */
export function bundle(): Buffer {
  const all = (["float32", "bfloat16"] as const).flatMap((d) => cases(d));
  const p = new Pieces();
  const withNaNs = all.filter((c) => firstFloat(c) !== undefined);
  p.bytes(new Uint8Array(Uint32Array.of(0x32425441, all.length + withNaNs.length).buffer));
  for (const c of all) write(p, c, false);
  for (const c of withNaNs) write(p, withNaN(c), true);
  return Buffer.concat(p.all);
}
