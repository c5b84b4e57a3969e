// The language-model loss: negative log-likelihood of trained tokens, divided once by their number in the whole optimiser step.
import type { Value } from "../ir/graph.ts";
import { mul, neg } from "../ops/primitives/elementwise.ts";
import { sum } from "../ops/primitives/reduce.ts";
import { reshape } from "../ops/primitives/shape.ts";

/** -scale * sum of logp (M); `scale` is 1 / trained tokens of the step, a scalar that comes with each run. */
export function negativeLogLikelihood(logp: Value, scale: Value): Value {
  return neg(mul(reshape(sum(logp), []), scale));
}
