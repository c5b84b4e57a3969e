// A class of buffers as parts of one: `class/all` holds each `class/NAME` in turn, so that one op can take many of them at once.
import { buffer, type Value } from "./graph.ts";
import { size, type, width, type DType, type Type } from "./types.ts";

/** Elements: each part begins a row, so at 256 bytes in bfloat16 too. Rows, since dims are below 2^31 and elements of a model need not be. */
const ROW = 128;

export interface Part {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface Flat {
  /** class/NAME, or undefined where there is no such part. */
  find(name: string): Value | undefined;
  /** From the beginning of one part to the end of another: (rows, 128). What lies between parts is zero. */
  span(first: string, last: string): Value;
  /** All of them: (rows, 128). */
  all(): Value;
}

/** The places of `parts` in their order: the same rows in every class and every program of a session. To be used inside trace(). */
export function flat(cls: string, parts: readonly Part[], dtype: DType = "float32"): Flat {
  const places = new Map<string, { readonly from: number; readonly to: number }>();
  let end = 0;
  for (const { name, shape } of parts) {
    const from = end;
    end += Math.ceil(size(type(shape)) / ROW);
    places.set(name, { from, to: end });
  }
  const [all, whole] = [`${cls}/all`, type([end, ROW], dtype)];
  const at = (name: string, t: Type, row: number): Value => buffer(`${cls}/${name}`, t, { buffer: all, type: whole, offset: row * ROW * width[dtype] });
  // All are named, whatever the program reads: files and checkpoints know buffers by name.
  const values = new Map(parts.map(({ name, shape }) => [name, at(name, type(shape, dtype), places.get(name)!.from)]));
  return {
    find: (name) => values.get(name),
    span: (first, last) => at(`${first}..${last}`, type([places.get(last)!.to - places.get(first)!.from, ROW], dtype), places.get(first)!.from),
    all: () => buffer(all, whole),
  };
}
