// The DPO family: losses per pair from summed log-probabilities of policy and reference. A further loss is one more formula here.
import type { Value } from "../ir/graph.ts";
import { dpoLoss, type PreferenceLogps } from "../ops/dpo_loss.ts";
import { add, div, max, mul, neg, sub } from "../ops/primitives/elementwise.ts";

export interface PreferenceInputs extends PreferenceLogps {
  /** Scored tokens per completion (P), float32. */
  chosenLength: Value;
  rejectedLength: Value;
}
export interface PreferenceOptions {
  beta: number;
  labelSmoothing: number;
}
type Formula = (x: PreferenceInputs, a: PreferenceOptions) => Value;

/** Log-ratios of policy to reference. */
const ratios = (x: PreferenceInputs): { chosen: Value; rejected: Value } => ({
  chosen: sub(x.chosen, x.refChosen),
  rejected: sub(x.rejected, x.refRejected),
});

/** arXiv:2305.18290 eq. 7; with label smoothing cDPO. */
const sigmoid: Formula = (x, a) => dpoLoss(x, a.beta, a.labelSmoothing);

/** arXiv:2310.12036 eq. 17 on log-ratios averaged over tokens, as TRL and its authors have it. */
const ipo: Formula = (x, a) => {
  const r = ratios(x);
  const gap = sub(div(r.chosen, x.chosenLength), div(r.rejected, x.rejectedLength));
  const off = add(gap, -1 / (2 * a.beta));
  return mul(off, off);
};

/** max(0, 1 - beta delta): arXiv:2309.06657 (RSO), arXiv:2305.10425 (SLiC). */
const hinge: Formula = (x, a) => {
  const r = ratios(x);
  return max(add(neg(mul(sub(r.chosen, r.rejected), a.beta)), 1), 0);
};

export const preferenceLosses = { sigmoid, ipo, hinge } satisfies Record<string, Formula>;
export type PreferenceLossType = keyof typeof preferenceLosses;
