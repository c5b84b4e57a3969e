// attention: causal attention over packed documents and prompt trees.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, cap, need, show, size, type, type Type } from "../ir/types.ts";
import { defineBackward } from "../ir/vjp.ts";
import { add, div, equal, exp, fill, iota, less, log, mul, not, select, sub } from "./primitives/elementwise.ts";
import { matmul, maxOver, sum } from "./primitives/reduce.ts";
import { reshape, transpose } from "./primitives/shape.ts";
import { ints, masked, normal } from "./samples.ts";

/** Query-key pairs counted for the cost: half of N x N, or the window's band. */
const pairs = (n: number, window: number): number => (window && window < n ? n * window - (window * window) / 2 : (n * n) / 2);
const flops = (t: { q: Type }, window: number): number => 4 * pairs(cap(t.q.shape[0]!), window) * cap(t.q.shape[1]!) * cap(t.q.shape[2]!);

export const attentionOp = defineOp({
  name: "attention",
  doc:
    "y (N,H,D) = softmax(scale q k^T) v over visible keys; lse (H,N). Key j is visible to query i iff j <= i < end[j], and pos[i] - pos[j] < window " +
    "where window > 0. Query head h reads key-value head floor(h K / H). A query that sees nothing gives y = 0, lse = inf.  arXiv:1706.03762 eq. 1, arXiv:2205.14135",
  inputs: ["q", "k", "v", "end"],
  optional: ["pos"],
  outputs: ["y", "lse"],
  stats: ["lse"],
  attrs: { scale: "number", window: "number" },
  infer: (t, a) => {
    const rank3 = [t.q, t.k, t.v].every((x) => x.shape.length === 3);
    need(rank3, () => `attention: q, k and v must be (tokens, heads, head size), got ${show(t.q)}, ${show(t.k)}, ${show(t.v)}`);
    const [h, k, d] = [cap(t.q.shape[1]!), cap(t.k.shape[1]!), cap(t.q.shape[2]!)];
    need(h % k === 0 && size(t.k) === size(t.v) && cap(t.k.shape[2]!) === d, () => `attention: heads of q must be a multiple of those of k and v, with one head size, got ${show(t.q)}, ${show(t.k)}, ${show(t.v)}`);
    need(d % 8 === 0 && d >= 8 && d <= 256, () => `attention: the head size must be a multiple of 8 from 8 to 256, got ${d}`);
    need(t.end.dtype === "int32" && size(t.end) === cap(t.k.shape[0]!), () => `attention: end must be i32[${cap(t.k.shape[0]!)}], got ${show(t.end)}`);
    need(!a.window || !!t.pos, () => `attention: a window of ${a.window} needs pos`);
    return { y: t.q, lse: type([h, t.q.shape[0]!]) };
  },
  compose: ({ q, k, v, end, pos }, { scale, window }) => {
    const [n, heads, d] = q.type.shape as [number, number, number];
    const kv = k.type.shape[1] as number;
    const g = heads / kv;
    const col = (x: Value): Value => reshape(x, [n, 1]);
    const at = iota(n);
    let visible = mul(not(less(col(at), at)), less(col(at), end)); // j <= i < end[j]
    if (window && pos) visible = mul(visible, less(sub(col(pos), pos), fill(window, [n, n], "int32")));
    const scores = reshape(mul(matmul(byHead(q, kv), byHead(k, kv), false, true), scale), [kv, g, n, n]);
    const { p, lse } = softmaxRows(scores, visible);
    const y = reshape(matmul(reshape(p, [kv, g * n, n]), byHead(v, kv)), [kv, g, n, d]);
    return { y: reshape(transpose(y, 2, 0, 1, 3), q.type.shape), lse: reshape(lse, [heads, n]) };
  },
  cost: (t, { window }) => ({ flops: flops(t, window), bytes: 2 * bytes(t.q) + bytes(t.k) + bytes(t.v) }),
  bench: (d) => {
    const { end, pos, window, share } = masked(d);
    const kv = normal(d.tokens, d.kvHeads, d.headDim);
    return { inputs: { q: normal(d.tokens, d.heads, d.headDim), k: kv, v: kv, end, pos }, attrs: { scale: d.headDim ** -0.5, window }, share };
  },
  samples: [
    { inputs: { q: normal(7, 4, 8), k: normal(7, 2, 8), v: normal(7, 2, 8), end: ints([7, 7, 7, 7, 7, 7, 7]) }, attrs: { scale: 0.35, window: 0 } },
    // two documents, the second a tree: trunk of 3, branches of 2 and 3; the last two rows are padding
    {
      inputs: { q: normal(14, 2, 16), k: normal(14, 2, 16), v: normal(14, 2, 16), end: ints([4, 4, 4, 4, 12, 12, 12, 9, 9, 12, 12, 12, 0, 0]) },
      attrs: { scale: 0.25, window: 0 },
    },
    {
      inputs: { q: normal(70, 6, 40), k: normal(70, 1, 40), v: normal(70, 1, 40), end: ints(Array.from({ length: 70 }, (_, i) => (i < 41 ? 41 : 70))), pos: ints(Array.from({ length: 70 }, (_, i) => (i < 41 ? i : i - 41))) },
      attrs: { scale: 0.2, window: 9 },
    },
    // one token; none; a tree of eight branches behind a document of one token, at a head size for tensor cores
    { inputs: { q: normal(1, 2, 24), k: normal(1, 1, 24), v: normal(1, 1, 24), end: ints([1]) }, attrs: { scale: 0.2, window: 0 } },
    { inputs: { q: normal(0, 2, 64), k: normal(0, 1, 64), v: normal(0, 1, 64), end: ints([]) }, attrs: { scale: 0.2, window: 0 } },
    {
      inputs: { q: normal(129, 4, 64), k: normal(129, 2, 64), v: normal(129, 2, 64), end: ints(Array.from({ length: 129 }, (_, i) => (i === 0 ? 1 : i < 33 ? 129 : 33 + 12 * (Math.floor((i - 33) / 12) + 1)))) },
      attrs: { scale: 0.125, window: 0 },
    },
    {
      inputs: { q: normal(127, 2, 128), k: normal(127, 1, 128), v: normal(127, 1, 128), end: ints(Array.from({ length: 127 }, (_, i) => (i < 90 ? 90 : 125))), pos: ints(Array.from({ length: 127 }, (_, i) => (i < 90 ? i : i - 90))) },
      attrs: { scale: 0.09, window: 33 },
    },
    {
      inputs: { q: normal(133, 2, 64), k: normal(133, 1, 64), v: normal(133, 1, 64), end: ints(Array.from({ length: 133 }, (_, i) => (i >= 60 && i < 97 ? 97 : 133))) },
      attrs: { scale: 0.125, window: 0 },
    },
  ],
});
defineBackward(attentionOp.def, {
  of: ["q", "k", "v"],
  saved: ["y", "lse"],
  cost: (t, a) => ({ flops: 2.5 * flops({ q: t["q"]! }, a["window"] as number), bytes: 4 * bytes(t["q"]!) + 4 * bytes(t["k"]!) }),
});

/** (N, heads, D) -> (K, G N, D): the G query heads of each key-value head one under another. */
function byHead(x: Value, kv: number): Value {
  const [n, heads, d] = x.type.shape as [number, number, number];
  const g = heads / kv;
  return reshape(transpose(reshape(x, [n, kv, g, d]), 1, 2, 0, 3), [kv, g * n, d]);
}

/** Softmax over the last axis of what is visible; a row that sees nothing gives zeros and lse = inf. */
export function softmaxRows(s: Value, visible: Value): { p: Value; lse: Value } {
  const top = maxOver(select(visible, s, -1e30), -1);
  const safeTop = select(less(top, fill(-1e29, top.type.shape)), fill(0, top.type.shape), top);
  const e = select(visible, exp(sub(select(visible, s, 0), safeTop)), 0);
  const total = sum(e, -1);
  const none = equal(total, 0);
  const safe = add(total, none);
  return { p: div(e, safe), lse: select(none, fill(Infinity, total.type.shape), add(top, log(safe))) };
}

/** Attention of packed tokens: q (N,H,D), k and v (N,K,D), end (N). `pos` (N) is needed with a window. */
export function attention(q: Value, k: Value, v: Value, end: Value, a: { scale: number; window: number }, pos?: Value): Value {
  return attentionOp({ q, k, v, end, pos: a.window ? pos : undefined }, a).y;
}
