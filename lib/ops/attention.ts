// attention: causal attention over packed documents and prompt trees, and its form over a cache for generation.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, cap, need, show, size, type, type Type } from "../ir/types.ts";
import { defineBackward } from "../ir/vjp.ts";
import { add, div, equal, exp, fill, iota, less, log, mul, not, select, sub } from "./primitives/elementwise.ts";
import { matmul, maxOver, sum } from "./primitives/reduce.ts";
import { broadcast, reshape, transpose } from "./primitives/shape.ts";
import { ints, normal } from "./samples.ts";

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
function softmaxRows(s: Value, visible: Value): { p: Value; lse: Value } {
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

export const cacheWriteOp = defineOp({
  name: "cache_write",
  doc: "y = cache (S,L,K,D) with x[m] (K,D) at (slot[m], place[m]); a negative slot means none.",
  inputs: ["cache", "x", "slot", "place"],
  outputs: ["y"],
  inplace: { y: "cache" },
  infer: (t) => {
    const fits = t.cache.shape.length === 4 && t.x.shape.length === 3 && cap(t.x.shape[1]!) === cap(t.cache.shape[2]!) && cap(t.x.shape[2]!) === cap(t.cache.shape[3]!);
    need(fits, () => `cache_write: x must be (M, heads, head size) of cache ${show(t.cache)}, got ${show(t.x)}`);
    return { y: t.cache };
  },
  compose: ({ cache, x, slot, place }) => {
    const [s, l, k, d] = cache.type.shape as [number, number, number, number];
    const m = x.type.shape[0] as number;
    const key = add(mul(slot, l), place); // (M), meaningless where slot < 0
    const live = not(less(slot, fill(0, [m], "int32")));
    const cell = reshape(iota(s * l), [s * l, 1]);
    const hit = mul(equal(broadcast(reshape(key, [1, m]), [s * l, m]), broadcast(cell, [s * l, m])), live); // (S L, M)
    const put = matmul(hit, reshape(x, [m, k * d]));
    const any = reshape(sum(hit, 1), [s * l, 1]);
    return { y: reshape(select(any, put, reshape(cache, [s * l, k * d])), cache.type.shape) };
  },
  samples: [{ inputs: { cache: normal(3, 5, 2, 8), x: normal(4, 2, 8), slot: ints([2, 0, -1, 2]), place: ints([0, 4, 1, 3]) }, attrs: {} }],
});
/** Write new keys or values x (M,K,D) into a cache (S,L,K,D) at (slot[m], place[m]). */
export function cacheWrite(cache: Value, x: Value, slot: Value, place: Value): Value {
  return cacheWriteOp({ cache, x, slot, place }, {}).y;
}

export const attentionDecodeOp = defineOp({
  name: "attention_decode",
  doc: "y (S,H,D): slot s attends to places < len[s] of its cache (S,L,K,D), only the last `window` of them where window > 0; len 0 gives 0.",
  inputs: ["q", "k", "v", "len"],
  outputs: ["y"],
  attrs: { scale: "number", window: "number" },
  infer: (t) => {
    const ok = t.q.shape.length === 3 && t.k.shape.length === 4 && cap(t.q.shape[1]!) % cap(t.k.shape[2]!) === 0;
    need(ok, () => `attention_decode: q must be (S,H,D) and k, v (S,L,K,D), got ${show(t.q)} and ${show(t.k)}`);
    return { y: t.q };
  },
  compose: ({ q, k, v, len }, { scale, window }) => {
    const [s, l, kv, d] = k.type.shape as [number, number, number, number];
    const heads = q.type.shape[1] as number;
    const g = heads / kv;
    const by = (x: Value): Value => reshape(transpose(x, 0, 2, 1, 3), [s * kv, l, d]);
    const scores = reshape(mul(matmul(reshape(q, [s * kv, g, d]), by(k), false, true), scale), [s, kv, g, l]);
    const place = broadcast(iota(l), [s, l]);
    const upto = broadcast(reshape(len, [s, 1]), [s, l]);
    let visible = less(place, upto);
    if (window) visible = mul(visible, not(less(place, sub(upto, fill(window, [s, l], "int32")))));
    const { p } = softmaxRows(scores, reshape(visible, [s, 1, 1, l]));
    return { y: reshape(matmul(reshape(p, [s * kv, g, l]), by(v)), q.type.shape) };
  },
  cost: (t) => ({ flops: 4 * size(t.k) * (cap(t.q.shape[1]!) / cap(t.k.shape[2]!)), bytes: bytes(t.k) + bytes(t.v) }),
  samples: [
    { inputs: { q: normal(3, 4, 16), k: normal(3, 9, 2, 16), v: normal(3, 9, 2, 16), len: ints([9, 0, 4]) }, attrs: { scale: 0.25, window: 0 } },
    { inputs: { q: normal(2, 2, 8), k: normal(2, 12, 2, 8), v: normal(2, 12, 2, 8), len: ints([11, 3]) }, attrs: { scale: 0.3, window: 5 } },
  ],
});
/** One new token per slot: q (S,H,D) over caches k, v (S,L,K,D), of which len[s] places are filled. */
export function attentionDecode(q: Value, k: Value, v: Value, len: Value, a: { scale: number; window: number }): Value {
  return attentionDecodeOp({ q, k, v, len }, a).y;
}

