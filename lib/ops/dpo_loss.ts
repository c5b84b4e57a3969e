// dpo_loss: the sigmoid preference loss over summed log-probabilities, with its gradient, as one kernel.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { need, sameShape, show, type } from "../ir/types.ts";
import { defineBackward } from "../ir/vjp.ts";
import { add, logSigmoid, mul, neg, sub } from "./primitives/elementwise.ts";
import { normal32 } from "./samples.ts";

export const dpoLossOp = defineOp({
  name: "dpo_loss",
  doc:
    "loss[p] = -(1-s) ln sigmoid(d) - s ln sigmoid(-d), d = beta ((chosen - ref_chosen) - (rejected - ref_rejected)), all (P).  " +
    "arXiv:2305.18290 eq. 7; s = label_smoothing is cDPO",
  inputs: ["chosen", "rejected", "ref_chosen", "ref_rejected"],
  outputs: ["loss"],
  constant: ["ref_chosen", "ref_rejected"],
  attrs: { beta: "number", labelSmoothing: "number" },
  infer: (t) => {
    const same = [t.rejected, t.ref_chosen, t.ref_rejected].every((x) => sameShape(x.shape, t.chosen.shape));
    need(same, () => `dpo_loss: the four inputs must have one shape, got ${Object.values(t).map(show).join(", ")}`);
    return { loss: type(t.chosen.shape) };
  },
  compose: (x, { beta, labelSmoothing }) => {
    const d = mul(sub(sub(x.chosen, x.ref_chosen), sub(x.rejected, x.ref_rejected)), beta);
    return { loss: neg(add(mul(logSigmoid(d), 1 - labelSmoothing), mul(logSigmoid(neg(d)), labelSmoothing))) };
  },
  bench: ({ examples }) => {
    const x = normal32(examples);
    return { inputs: { chosen: x, rejected: x, ref_chosen: x, ref_rejected: x }, attrs: { beta: 0.1, labelSmoothing: 0 } };
  },
  samples: [
    { inputs: { chosen: normal32(5), rejected: normal32(5), ref_chosen: normal32(5), ref_rejected: normal32(5) }, attrs: { beta: 0.1, labelSmoothing: 0 } },
    { inputs: { chosen: normal32(3), rejected: normal32(3), ref_chosen: normal32(3), ref_rejected: normal32(3) }, attrs: { beta: 2, labelSmoothing: 0.1 } },
  ],
});
defineBackward(dpoLossOp.def, { of: ["chosen", "rejected"] });

export interface PreferenceLogps {
  chosen: Value;
  rejected: Value;
  refChosen: Value;
  refRejected: Value;
}
/** Loss per pair (P) from summed log-probabilities (P) of the policy and the reference. */
export function dpoLoss(x: PreferenceLogps, beta: number, labelSmoothing: number): Value {
  return dpoLossOp({ chosen: x.chosen, rejected: x.rejected, ref_chosen: x.refChosen, ref_rejected: x.refRejected }, { beta, labelSmoothing }).loss;
}
