// softmax_shares: what the fused head leaves of its logits for the backward: exponentials in the model's type, relative to the highest
// logit of their tile, where logits themselves would have to be fp32. The gradient is made where they lie.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, cap, need, sameDim, show, type Dim } from "../ir/types.ts";
import { equal, exp, fill, iota, less, mul, not, select, sub } from "./primitives/elementwise.ts";
import { maxOver, sum } from "./primitives/reduce.ts";
import { broadcast, reshape } from "./primitives/shape.ts";
import { ints, normal32, positive, positive32, scattered } from "./samples.ts";

/** Columns of the vocabulary that share one top: the kernels' tile (native/runtime/top_columns.h). */
const TILE = 192;
export const tilesOf = (vocab: Dim): number => Math.ceil(cap(vocab) / TILE);

/** (1,n), 1 at the columns [first, first + count). */
function columns(n: Dim, first: number, count: number): Value {
  const at = iota(n);
  return reshape(mul(not(less(at, fill(first, [n]))), less(at, fill(first + count, [n]))), [1, n]);
}

/** The sum over tiles t of `f(t)` where `place(t)` is 1. */
function byTile(tiles: number, shape: readonly Dim[], place: (t: number) => Value, f: (t: number) => Value): Value {
  let all = fill(0, shape);
  for (let t = 0; t < tiles; t++) all = select(broadcast(place(t), shape), broadcast(f(t), shape), all);
  return all;
}

/** Of logits (M,V): tops (M, ceil(V/192)), the highest of each tile of columns, and shares (M,V) = e^(logit - top). */
export function sharesOf(logits: Value): { shares: Value; tops: Value } {
  const [m, v] = logits.type.shape as [Dim, Dim];
  const tiles = tilesOf(v);
  const tile = (t: number): Value => columns(v, t * TILE, TILE);
  const top = (t: number): Value => maxOver(select(broadcast(tile(t), [m, v]), logits, -1e30), 1);
  const tops = byTile(tiles, [m, tiles], (t) => columns(tiles, t, 1), top);
  return { shares: exp(sub(logits, byTile(tiles, [m, v], tile, top))), tops };
}

export const softmaxSharesBackwardOp = defineOp({
  name: "softmax_shares_backward",
  doc: "dlogits[m,v] = dlogp[m] ([v = targets[m]] - p[m,v]), p = shares[m,v] e^(tops[m, v/192] - lse[m]), at the target e^logp[m]: the gradient of log_softmax_gather from what linear_logprob keeps. A negative target gives 0.",
  inputs: ["shares", "tops", "targets", "lse", "logp", "dlogp"],
  outputs: ["dlogits"],
  inplace: { dlogits: "shares" },
  infer: (t) => {
    const [m, v] = t.shares.shape;
    const good = t.shares.shape.length === 2 && t.tops.shape[1] === tilesOf(v!) && [t.tops, t.targets, t.lse, t.logp, t.dlogp].every((x) => sameDim(x.shape[0]!, m!));
    need(good, () => `softmax_shares_backward: shares must be (M,V), tops (M, V/${TILE}) and the others (M), got ${show(t.shares)}, ${show(t.tops)}, ${show(t.targets)}`);
    return { dlogits: t.shares };
  },
  compose: ({ shares, tops, targets, lse, logp, dlogp }) => {
    const [m, v] = shares.type.shape as [Dim, Dim];
    const tiles = tilesOf(v);
    const column = (x: Value): Value => reshape(x, [m, 1]);
    const top = (t: number): Value => sum(select(broadcast(columns(tiles, t, 1), [m, tiles]), tops, 0), 1);
    const p = mul(shares, exp(sub(byTile(tiles, [m, v], (t) => columns(v, t * TILE, TILE), top), column(lse))));
    const isTarget = equal(broadcast(iota(v), [m, v]), broadcast(column(targets), [m, v]));
    const slope = select(isTarget, broadcast(sub(fill(1, [m, 1]), exp(column(logp))), [m, v]), mul(p, -1));
    const live = not(less(targets, fill(0, [m], "int32")));
    return { dlogits: select(broadcast(column(live), [m, v]), mul(slope, column(dlogp)), 0) };
  },
  cost: (t) => ({ flops: 2 * cap(t.shares.shape[0]!) * cap(t.shares.shape[1]!), bytes: 2 * bytes(t.shares) }),
  bench: (d) => ({
    inputs: { shares: positive(d.rows, d.vocab), tops: normal32(d.rows, tilesOf(d.vocab)), targets: scattered(d.rows, d.vocab), lse: positive32(d.rows), logp: normal32(d.rows), dlogp: normal32(d.rows) },
    attrs: {},
  }),
  samples: [
    { inputs: { shares: positive(5, 37), tops: normal32(5, 1), targets: ints([3, -1, 36, 0, 12]), lse: positive32(5), logp: normal32(5), dlogp: normal32(5) }, attrs: {} },
    { inputs: { shares: positive(0, 50), tops: normal32(0, 1), targets: ints([]), lse: positive32(0), logp: normal32(0), dlogp: normal32(0) }, attrs: {} },
    { inputs: { shares: positive(3, 4003), tops: normal32(3, 21), targets: ints([4002, 0, 191]), lse: positive32(3), logp: normal32(3), dlogp: normal32(3) }, attrs: {} },
    { inputs: { shares: positive(4, 1000), tops: normal32(4, 6), targets: ints([192, 999, -1, 383]), lse: positive32(4), logp: normal32(4), dlogp: normal32(4) }, attrs: {} },
  ],
});
