// The named parameters of one trace. Asking twice gives the same value, which is all that tying takes.
import { flat, type Flat, type Part } from "../ir/flat.ts";
import type { Value } from "../ir/graph.ts";
import type { DType } from "../ir/types.ts";

export class Params {
  readonly used = new Map<string, Value>();
  readonly #weights: Flat;

  /**
   * @param parameters in the order in which they lie in memory
   * @param dtype of the weights that kernels read (masters are the optimiser's affair)
   */
  constructor(parameters: readonly Part[], dtype: DType) {
    this.#weights = flat("weights", parameters, dtype);
  }

  /** The parameter `name`, or undefined where the model has none of that name. */
  find(name: string): Value | undefined {
    const v = this.#weights.find(name);
    if (v) this.used.set(name, v);
    return v;
  }

  get(name: string): Value {
    const v = this.find(name);
    if (!v) throw new Error(`params: the model has no parameter ${name}`);
    return v;
  }
}
