// log_softmax_gather: log-probabilities of target tokens from logits, the two row kernels of the training head.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, cap, need, sameDim, show, type, type DType } from "../ir/types.ts";
import { defineBackward } from "../ir/vjp.ts";
import { add, equal, exp, fill, iota, less, log, mul, not, select, sub } from "./primitives/elementwise.ts";
import { maxOver, sum } from "./primitives/reduce.ts";
import { broadcast, reshape } from "./primitives/shape.ts";
import { ints, normal32, scattered } from "./samples.ts";

export interface Logprobs {
  /** (M) float32: log-probability of the target; 0 where there is none. */
  logp: Value;
  /** (M) float32: entropy of the distribution, in nats; 0 where there is no target. */
  entropy: Value;
  /** (M) float32: 1 where the target is the most probable token. */
  hit: Value;
  /** (M) float32: mean of the logits over the vocabulary; 0 where there is no target. */
  mean: Value;
}

/** The meaning shared with linear_logprob. */
export function logprobsOf(logits: Value, targets: Value): { logp: Value; lse: Value; entropy: Value; hit: Value; mean: Value } {
  const [m, v] = logits.type.shape as [number, number];
  const top = maxOver(logits, 1);
  const lse = add(top, log(sum(exp(sub(logits, top)), 1)));
  const p = exp(sub(logits, lse));
  const isTarget = equal(broadcast(iota(v), [m, v]), broadcast(reshape(targets, [m, 1]), [m, v]));
  const at = sum(select(isTarget, logits, 0), 1);
  const live = not(less(targets, fill(0, [m], "int32")));
  const flat = (x: Value): Value => select(live, reshape(x, [m]), 0);
  const entropy = sub(lse, sum(mul(p, logits), 1));
  return { logp: flat(sub(at, lse)), lse: reshape(lse, [m]), entropy: flat(entropy), hit: flat(equal(at, top)), mean: flat(mul(sum(logits, 1), 1 / v)) };
}

export const logSoftmaxGatherOp = defineOp({
  name: "log_softmax_gather",
  doc: "logp[m] = logits[m, targets[m]] - lse[m]; lse[m] = ln sum_v e^logits[m,v]; entropy, hit (target is the arg-max) and the logits' mean beside. A negative target gives 0.",
  inputs: ["logits", "targets"],
  outputs: ["logp", "lse", "entropy", "hit", "mean"],
  stats: ["lse", "entropy", "hit", "mean"],
  attrs: { gradDtype: "dtype" },
  infer: (t) => {
    need(t.logits.shape.length === 2 && sameDim(t.logits.shape[0]!, t.targets.shape[0]!), () => `log_softmax_gather: logits must be (M,V) and targets i32[M], got ${show(t.logits)} and ${show(t.targets)}`);
    const m = type([t.logits.shape[0]!]);
    return { logp: m, lse: m, entropy: m, hit: m, mean: m };
  },
  compose: ({ logits, targets }) => logprobsOf(logits, targets),
  cost: (t) => ({ flops: 5 * cap(t.logits.shape[0]!) * cap(t.logits.shape[1]!), bytes: bytes(t.logits) }),
  bench: (d) => ({ inputs: { logits: normal32(d.rows, d.vocab), targets: scattered(d.rows, d.vocab) }, attrs: { gradDtype: d.dtype } }),
  samples: [
    { inputs: { logits: normal32(5, 37), targets: ints([3, -1, 36, 0, 12]) }, attrs: { gradDtype: "float32" } },
    { inputs: { logits: normal32(2, 32003), targets: ints([32002, 7]) }, attrs: { gradDtype: "bfloat16" } },
    { inputs: { logits: normal32(0, 50), targets: ints([]) }, attrs: { gradDtype: "float32" } },
    { inputs: { logits: normal32(9, 1030), targets: ints([3, 1, 1029, 0, 12, 700, -1, 5, 6]) }, attrs: { gradDtype: "bfloat16" } },
  ],
});
defineBackward(logSoftmaxGatherOp.def, {
  of: ["logits"],
  saved: ["lse"],
  inplace: { dlogits: "logits" },
  dtype: (_, a) => a["gradDtype"] as DType,
  cost: (t) => ({ flops: 4 * cap(t["logits"]!.shape[0]!) * cap(t["logits"]!.shape[1]!), bytes: bytes(t["logits"]!) + bytes(t["dlogits"]!) }),
});

/** Log-probabilities of `targets` (M) under `logits` (M,V). The gradient with respect to logits is stored as `gradDtype`. */
export function logSoftmaxGather(logits: Value, targets: Value, gradDtype: DType): Logprobs {
  return logSoftmaxGatherOp({ logits, targets }, { gradDtype });
}
