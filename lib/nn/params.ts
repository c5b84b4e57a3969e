// The named parameters of one trace. Asking twice gives the same value, which is all that tying takes.
import { buffer, type Value } from "../ir/graph.ts";
import { type as typeOf, type DType } from "../ir/types.ts";

/** Shape of each parameter by buffer name without its class. */
export type Shapes = ReadonlyMap<string, readonly number[]>;

export class Params {
  readonly used = new Map<string, Value>();
  readonly #shapes: Shapes;
  readonly #dtype: DType;

  /** @param dtype of the weights that kernels read (masters are the optimiser's affair) */
  constructor(shapes: Shapes, dtype: DType) {
    this.#shapes = shapes;
    this.#dtype = dtype;
  }

  /** The parameter `name`, or undefined where the model has none of that name. */
  find(name: string): Value | undefined {
    const shape = this.#shapes.get(name);
    if (!shape) return undefined;
    const v = buffer(`weights/${name}`, typeOf(shape, this.#dtype));
    this.used.set(name, v);
    return v;
  }

  get(name: string): Value {
    const v = this.find(name);
    if (!v) throw new Error(`params: the model has no parameter ${name}`);
    return v;
  }
}
