// linear_logprob: hidden states to log-probabilities of target tokens without ever holding (M,V) logits; a training step may keep what
// their gradient is made from.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, cap, need, sameDim, show, size, type } from "../ir/types.ts";
import { gemm, linear } from "./gemm.ts";
import { logprobsOf, logSoftmaxGatherOp, type Logprobs } from "./log_softmax_gather.ts";
import { matmul } from "./primitives/reduce.ts";
import { ints, normal, scattered, weight } from "./samples.ts";
import { sharesOf, softmaxSharesBackwardOp, tilesOf } from "./softmax_shares.ts";

export const linearLogprobOp = defineOp({
  name: "linear_logprob",
  doc: "log_softmax_gather(hidden (M,C) weight (V,C)^T, targets (M)) in tiles of the vocabulary: online max and sum, no logits in memory. `keep`: beside them tops (M, V/192), the highest logit of each tile of 192 columns, and shares (M,V) = e^(logit - top).  arXiv:2411.09009",
  inputs: ["hidden", "weight", "targets"],
  outputs: ["logp", "lse", "entropy", "hit", "mean", "shares", "tops"],
  stats: ["lse", "entropy", "hit", "mean", "shares", "tops"],
  attrs: { keep: "boolean" },
  infer: (t, { keep }) => {
    need(sameDim(t.hidden.shape[1]!, t.weight.shape[1]!), () => `linear_logprob: hidden and weight must have one width, got ${show(t.hidden)} and ${show(t.weight)}`);
    const [rows, vocab] = [t.hidden.shape[0]!, t.weight.shape[0]!];
    const m = type([rows]);
    return { logp: m, lse: m, entropy: m, hit: m, mean: m, ...(keep && { shares: type([rows, vocab], t.hidden.dtype), tops: type([rows, tilesOf(vocab)]) }) };
  },
  compose: ({ hidden, weight, targets }, { keep }) => {
    const logits = matmul(hidden, weight, false, true);
    return { ...logprobsOf(logits, targets), ...(keep && sharesOf(logits)) };
  },
  // From what was kept; else the logits again, 8 M C V operations instead of 6.
  grad: (g, { keep }) => {
    const { hidden, weight, targets } = g.in;
    const { lse, logp, shares, tops } = g.out;
    const dlogp = g.d.logp!;
    const recomputed = (): Value => {
      const logits = linear(hidden, weight, undefined, "float32");
      return logSoftmaxGatherOp.def.grad!({ in: { logits, targets }, out: { lse }, d: { logp: dlogp }, needs: { logits: true } }, { gradDtype: hidden.type.dtype })["logits"]!;
    };
    const d = keep ? softmaxSharesBackwardOp({ shares, tops, targets, lse, logp, dlogp }, {}).dlogits : recomputed();
    return { hidden: g.needs.hidden && gemm(d, weight), weight: g.needs.weight && gemm(d, hidden, true) };
  },
  cost: (t, { keep }) => {
    const vocab = t.weight.shape[0]!;
    return { flops: 2 * size(t.hidden) * cap(vocab), bytes: bytes(t.hidden) + bytes(t.weight) + (keep ? bytes(type([t.hidden.shape[0]!, vocab], t.hidden.dtype)) : 0) };
  },
  // --form dx: what the gradient is made from is kept.
  bench: (d) => ({ inputs: { hidden: normal(d.rows, d.hidden), weight: weight(d.vocab, d.hidden), targets: scattered(d.rows, d.vocab) }, attrs: { keep: d.form === "dx" } }),
  samples: [
    { inputs: { hidden: normal(6, 24), weight: normal(50, 24), targets: ints([0, 49, -1, 7, 7, 31]) }, attrs: { keep: false } },
    { inputs: { hidden: normal(6, 24), weight: normal(50, 24), targets: ints([0, 49, -1, 7, 7, 31]) }, attrs: { keep: true } },
    { inputs: { hidden: normal(0, 64), weight: normal(50, 64), targets: ints([]) }, attrs: { keep: true } },
    { inputs: { hidden: normal(2, 72), weight: normal(4003, 72), targets: ints([4002, 0]) }, attrs: { keep: true } },
    { inputs: { hidden: normal(3, 576), weight: weight(130, 576), targets: ints([0, 129, 64]) }, attrs: { keep: false } },
    { inputs: { hidden: normal(40, 64), weight: normal(1104, 64), targets: ints(Array.from({ length: 40 }, (_, i) => (i * 97) % 1104)) }, attrs: { keep: true } },
  ],
});

/** Log-probabilities of `targets` (M) for `hidden` (M,C) under the head `weight` (V,C); `keep` what a backward needs, or compute it twice. */
export function linearLogprob(hidden: Value, weight: Value, targets: Value, keep = false): Logprobs {
  return linearLogprobOp({ hidden, weight, targets }, { keep });
}
