// Types of values: a dtype and a static shape. A dimension is a number, or a capacity whose count in use is data.
import { ShapeError } from "../errors.ts";

/** What values are stored as; bfloat16 is the upper half of a float32's bits. */
export type DType = "float32" | "bfloat16" | "int32";

/** A capacity: fixed when a program is compiled; how much of it is in use comes with each run. Equal names are one dimension. */
export interface Capacity {
  readonly name: string;
  readonly capacity: number;
}
export type Dim = number | Capacity;

export interface Type {
  readonly shape: readonly Dim[];
  readonly dtype: DType;
}

export const type = (shape: readonly Dim[], dtype: DType = "float32"): Type => ({ shape, dtype });

/** The size that memory is planned for. */
export const cap = (d: Dim): number => (typeof d === "number" ? d : d.capacity);

export const sameDim = (a: Dim, b: Dim): boolean =>
  typeof a === "number" || typeof b === "number" ? a === b : a.name === b.name && a.capacity === b.capacity;

export const sameShape = (a: readonly Dim[], b: readonly Dim[]): boolean =>
  a.length === b.length && a.every((d, i) => sameDim(d, b[i]!));

export const sameType = (a: Type, b: Type): boolean => a.dtype === b.dtype && sameShape(a.shape, b.shape);

export const size = (t: Type): number => t.shape.reduce<number>((n, d) => n * cap(d), 1);

export const width: Readonly<Record<DType, number>> = { float32: 4, int32: 4, bfloat16: 2 };

/** Bytes at capacity. */
export const bytes = (t: Type): number => size(t) * width[t.dtype];

export const showDim = (d: Dim): string => (typeof d === "number" ? String(d) : `${d.name}<=${d.capacity}`);
const short: Readonly<Record<DType, string>> = { float32: "f32", bfloat16: "bf16", int32: "i32" };
export const show = (t: Type): string => `${short[t.dtype]}[${t.shape.map(showDim).join(",")}]`;

/** First axis, last axis, and all axes but the last as one number (at capacity). */
export const rows = (t: Type): Dim => t.shape[0] ?? 1;
export const last = (t: Type): number => cap(t.shape.at(-1) ?? 1);

/** Throw a ShapeError unless `ok`. The message is built only then. */
export function need(ok: boolean, message: () => string): asserts ok {
  if (!ok) throw new ShapeError(message());
}

export type Counts = Readonly<Record<string, number>>;

/** Replace capacities by counts (or by themselves where no count is given): the plain shapes that arithmetic sees. */
export function resolveDim(d: Dim, counts: Counts = {}): number {
  return typeof d === "number" ? d : (counts[d.name] ?? d.capacity);
}
export function resolve(t: Type, counts: Counts = {}): Type {
  return { dtype: t.dtype, shape: t.shape.map((d) => resolveDim(d, counts)) };
}
