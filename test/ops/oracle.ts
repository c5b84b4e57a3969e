// What a kernel must give for a case: float64 values, how far from them it may be, and the same with a NaN put in.
import { evalOp } from "#lib/ir/interpret.js";
import { size, type DType } from "#lib/ir/types.js";
import type { Case } from "./material.ts";

export interface Expected {
  readonly want: Float64Array;
  /** Per element; 0 where the value must be exact. */
  readonly tolerance: Float64Array;
}

/** How far a perfect kernel may be from float64: what the interpreter loses when it rounds every primitive to float32, and the outputs to their dtype. */
export function expected(c: Case): Record<string, Expected> {
  const want = evalOp(c.def, c.x, c.types, c.attrs);
  const rounded = evalOp(c.def, c.x, c.types, c.attrs, { round: "float32" });
  const outs = c.def.infer({ ...c.types }, c.attrs);
  const rms = (x: readonly number[]): number => Math.sqrt(x.reduce((s, v) => s + v * v, 0) / Math.max(1, x.length));
  const terms = Math.max(0, ...Object.entries(c.types).map(([k, t]) => (t.dtype === "int32" ? 0 : rms([...c.x[k]!].filter(Number.isFinite)))));
  const half = Object.values(c.types).some((t) => t.dtype === "bfloat16");
  const all: Record<string, Expected> = {};
  for (const [k, t] of Object.entries(outs)) {
    const [e, r] = [want[k]!, rounded[k]!];
    const finite = [...e].filter(Number.isFinite);
    const scale = rms(finite);
    const lost = Math.max(0, ...[...e].map((x, i) => (Number.isFinite(x) ? Math.abs(x - r[i]!) : 0)).filter(Number.isFinite));
    const storage = t.dtype === "bfloat16" ? 2 ** -8 : 0;
    // In bfloat16 a backward kernel multiplies matrices of probabilities and of their gradients that it has rounded: a few parts in a hundred of scale.
    const inner = c.def.backwardOf ? 2 ** -5 : 2 ** -7;
    const inside = half && t.dtype !== "int32" ? (t.dtype === "bfloat16" ? inner : 2e-6) * scale : 0;
    const tolerance = e.map((x) => (t.dtype === "int32" ? 0 : 8 * lost + (1e-6 + storage * 1.01) * Math.abs(x) + 2e-6 * scale + inside + 2 ** -21 * terms)); // what cancels keeps the rounding of its terms, which may be sums of some dozens
    all[k] = { want: e, tolerance };
  }
  return all;
}

/** The first input that can hold a NaN. */
export const firstFloat = (c: Case): string | undefined => Object.keys(c.types).find((k) => c.types[k]!.dtype !== "int32" && size(c.types[k]!) > 0);

/** The case with a NaN as the first element of its first float input. */
export function withNaN(c: Case): Case {
  const k = firstFloat(c)!;
  return { ...c, x: { ...c.x, [k]: c.x[k]!.map((v, i) => (i === 0 ? NaN : v)) } };
}

/** Elements as a buffer holds them. */
export function toBytes(x: Float64Array, dtype: DType): Uint8Array {
  if (dtype === "int32") return new Uint8Array(Int32Array.from(x).buffer);
  const f = Float32Array.from(x);
  if (dtype === "float32") return new Uint8Array(f.buffer);
  return new Uint8Array(Uint16Array.from(new Uint32Array(f.buffer), (u) => u >>> 16).buffer);
}
