// Attention over a cache, for generation: writing new keys and values into it, and reading it for one new token a slot.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, cap, need, show, size } from "../ir/types.ts";
import { softmaxRows } from "./attention.ts";
import { add, equal, fill, iota, less, mul, not, select, sub } from "./primitives/elementwise.ts";
import { matmul, sum } from "./primitives/reduce.ts";
import { broadcast, reshape, transpose } from "./primitives/shape.ts";
import { ints, normal } from "./samples.ts";

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
  cost: (t) => ({ flops: size(t.x), bytes: 2 * bytes(t.x) }),
  bench: (d) => {
    const each = (f: (i: number) => number): ReturnType<typeof ints> => ints(Array.from({ length: d.examples }, (_, i) => f(i)));
    const cache = normal(d.examples, d.tokens, d.kvHeads, d.headDim);
    return { inputs: { cache, x: normal(d.examples, d.kvHeads, d.headDim), slot: each((i) => i), place: each(() => d.tokens - 1) }, attrs: {} };
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
  bench: (d) => {
    const cache = normal(d.examples, d.tokens, d.kvHeads, d.headDim);
    const len = ints(Array.from({ length: d.examples }, () => d.tokens));
    return { inputs: { q: normal(d.examples, d.heads, d.headDim), k: cache, v: cache, len }, attrs: { scale: d.headDim ** -0.5, window: 0 } };
  },
  samples: [
    { inputs: { q: normal(3, 4, 16), k: normal(3, 9, 2, 16), v: normal(3, 9, 2, 16), len: ints([9, 0, 4]) }, attrs: { scale: 0.25, window: 0 } },
    { inputs: { q: normal(2, 2, 8), k: normal(2, 12, 2, 8), v: normal(2, 12, 2, 8), len: ints([11, 3]) }, attrs: { scale: 0.3, window: 5 } },
  ],
});
/** One new token per slot: q (S,H,D) over caches k, v (S,L,K,D), of which len[s] places are filled. */
export function attentionDecode(q: Value, k: Value, v: Value, len: Value, a: { scale: number; window: number }): Value {
  return attentionDecodeOp({ q, k, v, len }, a).y;
}
