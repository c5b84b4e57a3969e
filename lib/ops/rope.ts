// Rotary position embedding: the table of angles, and the op that splits a fused projection into rotated heads.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { cap, need, show, size, type, type Dim } from "../ir/types.ts";
import { defineBackward } from "../ir/vjp.ts";
import { add, cos, equal, fill, iota, mul, rsqrt, sin, sub } from "./primitives/elementwise.ts";
import { sum } from "./primitives/reduce.ts";
import { reshape, transpose } from "./primitives/shape.ts";
import { ints, masked, normal, normal32 } from "./samples.ts";

export const ropeTableOp = defineOp({
  name: "rope_table",
  doc: "cos, sin (N, D/2) of pos[n] freq[i], angles formed in float64. The frequencies carry any scaling (linear, llama3).",
  inputs: ["pos"],
  outputs: ["cos", "sin"],
  attrs: { freq: "numbers" },
  infer: (t, { freq }) => {
    need(t.pos.dtype === "int32" && t.pos.shape.length === 1, () => `rope_table: pos must be i32[N], got ${show(t.pos)}`);
    const table = type([t.pos.shape[0]!, freq.length]);
    return { cos: table, sin: table };
  },
  compose: ({ pos }, { freq }) => {
    const at = iota(freq.length);
    const f = freq.reduce<Value>((acc, v, i) => add(acc, mul(equal(at, fill(i, [freq.length], "int32")), v)), fill(0, [freq.length]));
    const angle = mul(reshape(pos, [pos.type.shape[0]!, 1]), f);
    return { cos: cos(angle), sin: sin(angle) };
  },
  bench: (d) => ({ inputs: { pos: masked(d).pos }, attrs: { freq: Array.from({ length: d.headDim / 2 }, (_, i) => 1e4 ** ((-2 * i) / d.headDim)) } }),
  samples: [{ inputs: { pos: ints([0, 1, 2, 3, 0, 1, 500, 16383]) }, attrs: { freq: [1, 0.1, 0.0123, 0.001] } }],
});

/** cos and sin (N, D/2) for positions `pos` (N). */
export function ropeTable(pos: Value, freq: readonly number[]): { cos: Value; sin: Value } {
  return ropeTableOp({ pos }, { freq });
}

export const qkvRopeOp = defineOp({
  name: "qkv_rope",
  doc:
    "Split qkv (N, (H+2K) D) into q (N,H,D), k (N,K,D), v (N,K,D); normalise heads of q and k by q_norm, k_norm (D) where given " +
    "(rstd (N, H+K)); rotate q and k: [a,b] -> [a cos - b sin, b cos + a sin] over half-heads.  arXiv:2104.09864, Hugging Face's half-split layout",
  inputs: ["qkv", "cos", "sin"],
  optional: ["q_norm", "k_norm"],
  outputs: ["q", "k", "v", "rstd"],
  stats: ["rstd"],
  constant: ["cos", "sin"],
  attrs: { heads: "number", kvHeads: "number", eps: "number" },
  infer: (t, { heads, kvHeads }) => {
    const n = t.qkv.shape[0]!;
    const d = cap(t.qkv.shape[1]!) / (heads + 2 * kvHeads);
    need(Number.isInteger(d) && d === 2 * cap(t.cos.shape[1]!), () => `qkv_rope: qkv must be (N, ${heads + 2 * kvHeads} x ${2 * cap(t.cos.shape[1]!)}), got ${show(t.qkv)}`);
    need(!t.q_norm === !t.k_norm, () => "qkv_rope: q_norm and k_norm must be given together");
    need(!t.q_norm || size(t.q_norm) === d, () => `qkv_rope: q_norm must have ${d} elements, got ${show(t.q_norm!)}`);
    const heads3 = (h: number): { shape: Dim[]; dtype: typeof t.qkv.dtype } => ({ shape: [n, h, d], dtype: t.qkv.dtype });
    return { q: heads3(heads), k: heads3(kvHeads), v: heads3(kvHeads), ...(t.q_norm && { rstd: type([n, heads + kvHeads]) }) };
  },
  compose: ({ qkv, cos: c, sin: s, q_norm, k_norm }, { heads, kvHeads, eps }) => {
    const n = qkv.type.shape[0]!;
    const all = heads + 2 * kvHeads;
    const d = cap(qkv.type.shape[1]!) / all;
    const x = reshape(qkv, [n, all, d]);
    const part = (from: number, count: number): Value => slice(x, from, count);
    const norm = (v: Value, w: Value | undefined): { y: Value; rstd?: Value } => {
      if (!w) return { y: v };
      const rstd = rsqrt(add(mul(sum(mul(v, v), 2), 1 / d), eps));
      return { y: mul(mul(v, rstd), w), rstd: reshape(rstd, [n, v.type.shape[1]!]) };
    };
    const q = norm(part(0, heads), q_norm);
    const k = norm(part(heads, kvHeads), k_norm);
    const out = { q: rotate(q.y, c, s), k: rotate(k.y, c, s), v: part(heads + kvHeads, kvHeads) };
    return q.rstd && k.rstd ? { ...out, rstd: concat(q.rstd, k.rstd) } : out;
  },
  bench: (d) => {
    const table = normal32(d.tokens, d.headDim / 2);
    return { inputs: { qkv: normal(d.tokens, (d.heads + 2 * d.kvHeads) * d.headDim), cos: table, sin: table }, attrs: { heads: d.heads, kvHeads: d.kvHeads, eps: 1e-6 } };
  },
  samples: [
    { inputs: { qkv: normal(9, 64), cos: normal32(9, 4), sin: normal32(9, 4) }, attrs: { heads: 4, kvHeads: 2, eps: 1e-6 } },
    { inputs: { qkv: normal(7, 96), cos: normal32(7, 16), sin: normal32(7, 16) }, attrs: { heads: 1, kvHeads: 1, eps: 1e-6 } },
    ...[6, 0].map((n) => ({
      inputs: { qkv: normal(n, 80), cos: normal32(n, 4), sin: normal32(n, 4), q_norm: normal(8), k_norm: normal(8) },
      attrs: { heads: 6, kvHeads: 2, eps: 1e-6 },
    })),
  ],
});
defineBackward(qkvRopeOp.def, {
  of: ["qkv", "q_norm", "k_norm"],
  saved: ["rstd"],
  neededWith: { qkv: "q_norm" },
  accumulate: ["q_norm", "k_norm"],
  dtype: (i) => (i === "qkv" ? undefined : "float32"),
});

/** Columns [from, from + count) of axis 1 of x (N, A, D), as a product with a selection matrix: compositions only. */
function slice(x: Value, from: number, count: number): Value {
  const [n, a, d] = x.type.shape as [Dim, number, number];
  const at = reshape(iota(a), [1, a]);
  const pick = equal(at, reshape(add(iota(count), fill(from, [count], "int32")), [count, 1])); // (count, A)
  const y = sum(mul(reshape(x, [n, 1, a, d]), reshape(pick, [1, count, a, 1])), 2);
  return reshape(y, [n, count, d]);
}

function concat(a: Value, b: Value): Value {
  const [n, p] = a.type.shape as [Dim, number];
  const q = b.type.shape[1] as number;
  const put = (v: Value, width: number, from: number): Value => {
    const at = equal(reshape(iota(p + q), [1, p + q]), reshape(add(iota(width), fill(from, [width], "int32")), [width, 1]));
    return reshape(sum(mul(reshape(v, [n, width, 1]), reshape(at, [1, width, p + q])), 1), [n, p + q]);
  };
  return add(put(a, p, 0), put(b, q, p));
}

/** The rotation of x (N, H, D) by tables (N, D/2). */
function rotate(x: Value, c: Value, s: Value): Value {
  const [n, h, d] = x.type.shape as [Dim, number, number];
  const halves = transpose(reshape(x, [n, h, 2, d / 2]), 2, 0, 1, 3); // (2, N, H, D/2)
  const sign = reshape(sub(mul(iota2(), 2), fill(1, [2])), [2, 1, 1, 1]); // -1, +1
  const table = (t: Value): Value => reshape(t, [1, n, 1, d / 2]);
  const swapped = swapFirst(halves);
  const y = add(mul(halves, table(c)), mul(mul(swapped, sign), table(s)));
  return reshape(transpose(y, 1, 2, 0, 3), [n, h, d]);
}
const iota2 = (): Value => equal(iota(2), fill(1, [2], "int32"));
/** (2, ...) with its two halves exchanged. */
function swapFirst(x: Value): Value {
  const one = (i: number): Value => reshape(equal(iota(2), fill(i, [2], "int32")), [2, 1, 1, 1]);
  const part = (i: number): Value => sum(mul(x, one(i)), 0);
  return add(mul(part(1), one(0)), mul(part(0), one(1)));
}
