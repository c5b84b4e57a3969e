// Where gradients lie: each parameter's is a part of one buffer, so that the norm of them all is one reduction.
import { buffer, type Value } from "../ir/graph.ts";
import { bytes, size, type, type Type } from "../ir/types.ts";

const ALL = "grads/all";
const ROW = 1024; // elements: dims are below 2^31, elements of a model need not be
const ALIGN = 64; // elements: 256 bytes, where every buffer of a device begins

/** What a parameter's gradient must know of it. */
export interface Shaped {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface Gradients {
  /** All of them, (rows, 1024): what lies between them is zero. */
  all(): Value;
  /** grads/NAME, float32 in the parameter's shape. */
  of(name: string): Value;
}

/** The places of the gradients of `parameters`, in their order: the same in every program of a session. To be used inside trace(). */
export function gradients(parameters: Iterable<Shaped>): Gradients {
  const places = new Map<string, { readonly of: Type; readonly at: number }>();
  let end = 0;
  for (const { name, shape } of parameters) {
    const of = type(shape);
    places.set(name, { of, at: end });
    end += Math.ceil(size(of) / ALIGN) * ALIGN;
  }
  const whole = type([Math.ceil(end / ROW), ROW]);
  return {
    all: () => buffer(ALL, whole),
    of: (name) => {
      const { of, at } = places.get(name)!;
      return buffer(`grads/${name}`, of, { buffer: ALL, type: whole, offset: at * bytes(type([])) });
    },
  };
}
