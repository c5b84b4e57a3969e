// What a kind of training adds to the common run: its loss, the inputs of its head, and its metrics. sft.ts and dpo.ts each give one.
import type { MicroBatch } from "../data/pack.ts";
import type { Tree } from "../data/types.ts";
import type { Outputs } from "../engine/scorer.ts";
import type { Fed, HeadPlan } from "./engine.ts";
import type { LossSpec } from "./programs.ts";

export interface TaskRun {
  readonly loss: LossSpec;
  /** What the sum of losses of one optimiser step is divided by, known before its first micro-batch. */
  divisor(trees: readonly Tree[]): number;
  /** Inputs of the head's chunks beside rows and targets. */
  headInputs(fed: Fed, head: HeadPlan): Record<string, Int32Array | Float32Array>;
  /** Add one micro-batch's outputs to the step's sums. */
  collect(sums: Sums, micro: MicroBatch, fed: Fed, out: Outputs): void;
  /** Branches whose log-probability is not the reference's: there are none before the first update where the reference is the start. */
  strays?(fed: Fed, out: Outputs): string[];
  /** The step's metrics under TRL's names. */
  metrics(sums: Sums, divisor: number): Record<string, number>;
}

/** Named sums over one optimiser step, in float64. */
export class Sums {
  readonly #values = new Map<string, number>();
  add(name: string, value: number): void {
    this.#values.set(name, this.get(name) + value);
  }
  get(name: string): number {
    return this.#values.get(name) ?? 0;
  }
}

export const total = (values: ArrayLike<number>): number => Array.prototype.reduce.call(values, (a, b) => (a as number) + (b as number), 0) as number;
