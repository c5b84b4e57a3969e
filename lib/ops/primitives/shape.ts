// Primitives that move elements: broadcast, reshape, transpose, gather, scatter_add.
import type { Value } from "../../ir/graph.ts";
import { defineOp } from "../../ir/op.ts";
import { cap, need, sameDim, sameShape, show, showDim, size, type, type Dim, type Type } from "../../ir/types.ts";
import { normal } from "../samples.ts";
import { sum } from "./reduce.ts";

export const strides = (shape: readonly Dim[]): number[] => {
  const r = Array.from({ length: shape.length }, () => 0);
  for (let i = shape.length, k = 1; i--; k *= cap(shape[i]!)) r[i] = k;
  return r;
};

/** For every element of `shape` in order, its flat index and the one under other strides. */
export function walk(shape: readonly Dim[], by: readonly number[], f: (flat: number, other: number) => void): void {
  const dims = shape.map(cap);
  const index = dims.map(() => 0);
  const total = dims.reduce((a, b) => a * b, 1);
  for (let flat = 0, other = 0; flat < total; flat++) {
    f(flat, other);
    for (let d = dims.length - 1; d >= 0; d--) {
      other += by[d]!;
      if (++index[d]! < dims[d]!) break;
      other -= by[d]! * dims[d]!;
      index[d] = 0;
    }
  }
}

const listed = (shape: readonly Dim[]): string => `[${shape.map(showDim).join(",")}]`;

const broadcastOp = defineOp({
  name: "broadcast",
  doc: "y = x repeated to a larger shape by numpy's rules.",
  inputs: ["x"],
  outputs: ["y"],
  attrs: { shape: "dims" },
  infer: (t, a) => {
    const pad = a.shape.length - t.x.shape.length;
    const fits = pad >= 0 && t.x.shape.every((d, i) => d === 1 || sameDim(d, a.shape[i + pad]!));
    need(fits, () => `broadcast: x must fit ${listed(a.shape)}, got ${show(t.x)}`);
    return { y: type(a.shape, t.x.dtype) };
  },
  eval: (v, t, _a, o) => {
    const y = new Float64Array(size(o));
    const s = strides(t.x.shape);
    const pad = o.shape.length - t.x.shape.length;
    const by = o.shape.map((_, i) => (i < pad || t.x.shape[i - pad] === 1 ? 0 : s[i - pad]!));
    walk(o.shape, by, (i, j) => void (y[i] = v.x[j]!));
    return y;
  },
  grad: (g) => {
    const from = g.in.x.type.shape;
    const to = g.d.y!.type.shape;
    const pad = to.length - from.length;
    const axes = to.map((_, i) => i).filter((i) => i < pad || (from[i - pad] === 1 && to[i] !== 1));
    return { x: reshape(axes.length ? sum(g.d.y!, ...axes) : g.d.y!, from) };
  },
  bench: (d) => ({ inputs: { x: normal() }, attrs: { shape: [d.examples] } }),
  samples: [
    { inputs: { x: normal(3, 1) }, attrs: { shape: [2, 3, 5] } },
    { inputs: { x: normal() }, attrs: { shape: [4] } },
  ],
});
export function broadcast(x: Value, shape: readonly Dim[]): Value {
  return sameShape(x.type.shape, shape) ? x : broadcastOp({ x }, { shape }).y;
}

const reshapeOp = defineOp({
  name: "reshape",
  doc: "y = x under another shape of as many elements; the bytes stay where they are.",
  inputs: ["x"],
  outputs: ["y"],
  attrs: { shape: "dims" },
  view: "x",
  kernel: false,
  infer: (t, a) => {
    const same = size(t.x) === size(type(a.shape));
    need(same, () => `reshape: the sizes must agree, got ${show(t.x)} and ${listed(a.shape)}`);
    return { y: type(a.shape, t.x.dtype) };
  },
  eval: (v) => v.x,
  grad: (g) => ({ x: g.d.y && reshape(g.d.y, g.in.x.type.shape) }),
});
export function reshape(x: Value, shape: readonly Dim[]): Value {
  return sameShape(x.type.shape, shape) ? x : reshapeOp({ x }, { shape }).y;
}

const transposeOp = defineOp({
  name: "transpose",
  doc: "y = x with its axes permuted; only compositions use it.",
  inputs: ["x"],
  outputs: ["y"],
  attrs: { perm: "numbers" },
  kernel: false,
  infer: (t, a) => ({ y: type(a.perm.map((p) => t.x.shape[p]!), t.x.dtype) }),
  eval: (v, t, a, o) => {
    const y = new Float64Array(size(o));
    const s = strides(t.x.shape);
    walk(o.shape, a.perm.map((p) => s[p]!), (i, j) => void (y[i] = v.x[j]!));
    return y;
  },
  grad: (g, a) => ({ x: g.d.y && transpose(g.d.y, ...a.perm.map((_, i) => a.perm.indexOf(i))) }),
});
export function transpose(x: Value, ...perm: number[]): Value {
  return transposeOp({ x }, { perm }).y;
}

const rowSize = (t: Type): number => size(t) / (cap(t.shape[0]!) || 1);

const gatherOp = defineOp({
  name: "gather",
  doc: "y[m] = x[i[m]]; a negative index means none and gives zeros; only compositions use it.",
  inputs: ["x", "i"],
  outputs: ["y"],
  kernel: false,
  infer: (t) => ({ y: type([t.i.shape[0]!, ...t.x.shape.slice(1)], t.x.dtype) }),
  eval: (v, t, _a, o) => {
    const y = new Float64Array(size(o));
    const c = rowSize(t.x);
    v.i.forEach((r, m) => void (r >= 0 && y.set(v.x.subarray(r * c, r * c + c), m * c)));
    return y;
  },
  grad: (g) => ({ x: g.d.y && scatterAdd(g.d.y, g.in.i, g.in.x.type.shape[0]!) }),
});
export function gather(x: Value, i: Value): Value {
  return gatherOp({ x, i }, {}).y;
}

const scatterOp = defineOp({
  name: "scatter_add",
  doc: "y[i[m]] += x[m] from zeros; negative or too large indices are dropped; only compositions use it.",
  inputs: ["x", "i"],
  outputs: ["y"],
  attrs: { rows: "dim" },
  kernel: false,
  infer: (t, a) => ({ y: type([a.rows, ...t.x.shape.slice(1)], t.x.dtype) }),
  eval: (v, t, _a, o) => {
    const y = new Float64Array(size(o));
    const c = rowSize(t.x);
    const n = cap(o.shape[0]!);
    v.i.forEach((r, m) => {
      if (r >= 0 && r < n) for (let k = 0; k < c; k++) y[r * c + k]! += v.x[m * c + k]!;
    });
    return y;
  },
  grad: (g) => ({ x: g.d.y && gather(g.d.y, g.in.i) }),
});
export function scatterAdd(x: Value, i: Value, rows: Dim): Value {
  return scatterOp({ x, i }, { rows }).y;
}
