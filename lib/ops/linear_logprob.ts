// linear_logprob: hidden states to log-probabilities of target tokens without ever holding (M,V) logits.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, cap, need, sameDim, show, size, type } from "../ir/types.ts";
import { gemm, linear } from "./gemm.ts";
import { logprobsOf, logSoftmaxGatherOp, type Logprobs } from "./log_softmax_gather.ts";
import { matmul } from "./primitives/reduce.ts";
import { ints, normal, scattered, weight } from "./samples.ts";

export const linearLogprobOp = defineOp({
  name: "linear_logprob",
  doc: "log_softmax_gather(hidden (M,C) weight (V,C)^T, targets (M)) in tiles of the vocabulary: online max and sum, no logits in memory.  arXiv:2411.09009",
  inputs: ["hidden", "weight", "targets"],
  outputs: ["logp", "lse", "entropy", "hit", "mean"],
  stats: ["lse", "entropy", "hit", "mean"],
  infer: (t) => {
    need(sameDim(t.hidden.shape[1]!, t.weight.shape[1]!), () => `linear_logprob: hidden and weight must have one width, got ${show(t.hidden)} and ${show(t.weight)}`);
    const m = type([t.hidden.shape[0]!]);
    return { logp: m, lse: m, entropy: m, hit: m, mean: m };
  },
  compose: ({ hidden, weight, targets }) => logprobsOf(matmul(hidden, weight, false, true), targets),
  // The logits again, then the row kernel and two products: 8 M C V operations where 6 would do with kept logits.
  grad: (g) => {
    const { hidden, weight, targets } = g.in;
    const logits = linear(hidden, weight, undefined, "float32");
    const r = logSoftmaxGatherOp.def.grad!(
      { in: { logits, targets }, out: { lse: g.out.lse }, d: { logp: g.d.logp! }, needs: { logits: true } },
      { gradDtype: hidden.type.dtype },
    );
    const d = r["logits"]!;
    return { hidden: g.needs.hidden && gemm(d, weight), weight: g.needs.weight && gemm(d, hidden, true) };
  },
  cost: (t) => ({ flops: 2 * size(t.hidden) * cap(t.weight.shape[0]!), bytes: bytes(t.hidden) + bytes(t.weight) }),
  bench: (d) => ({ inputs: { hidden: normal(d.rows, d.hidden), weight: weight(d.vocab, d.hidden), targets: scattered(d.rows, d.vocab) }, attrs: {} }),
  samples: [
    { inputs: { hidden: normal(6, 24), weight: normal(50, 24), targets: ints([0, 49, -1, 7, 7, 31]) }, attrs: {} },
    { inputs: { hidden: normal(0, 64), weight: normal(50, 64), targets: ints([]) }, attrs: {} },
    { inputs: { hidden: normal(2, 72), weight: normal(4003, 72), targets: ints([4002, 0]) }, attrs: {} },
    { inputs: { hidden: normal(3, 576), weight: weight(130, 576), targets: ints([0, 129, 64]) }, attrs: {} },
    { inputs: { hidden: normal(40, 64), weight: normal(1100, 64), targets: ints(Array.from({ length: 40 }, (_, i) => (i * 97) % 1100)) }, attrs: {} },
  ],
});

/** Log-probabilities of `targets` (M) for `hidden` (M,C) under the head `weight` (V,C). */
export function linearLogprob(hidden: Value, weight: Value, targets: Value): Logprobs {
  return linearLogprobOp({ hidden, weight, targets }, {});
}
