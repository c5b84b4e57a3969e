// Reductions and the batched matrix product.
import type { Value } from "../../ir/graph.ts";
import { defineOp } from "../../ir/op.ts";
import { cap, need, sameShape, show, size, type, type Dim } from "../../ir/types.ts";
import { normal } from "../samples.ts";
import { div, equal, mul } from "./elementwise.ts";
import { broadcast, strides, walk } from "./shape.ts";

type Reduce = (x: Value, ...axes: number[]) => Value;

function reduce(name: string, doc: string, zero: number, f: (a: number, b: number) => number, grad: (x: Value, y: Value, d: Value) => Value, kernel: boolean): Reduce {
  const op = defineOp({
    name,
    doc,
    inputs: ["x"],
    outputs: ["y"],
    attrs: { axes: "numbers" },
    kernel,
    infer: (t, a) => ({ y: type(t.x.shape.map((d, i) => (a.axes.includes(i) ? 1 : d)), "float32") }),
    eval: (v, t, a, o) => {
      const y = new Float64Array(size(o)).fill(zero);
      const by = strides(o.shape).map((k, i) => (a.axes.includes(i) ? 0 : k));
      walk(t.x.shape, by, (i, j) => void (y[j] = f(y[j]!, v.x[i]!)));
      return y;
    },
    grad: (g) => ({ x: g.d.y && grad(g.in.x, g.out.y, g.d.y) }),
    bench: (d) => ({ inputs: { x: normal(d.examples) }, attrs: { axes: [0] } }),
    samples: [
      { inputs: { x: normal(4, 6) }, attrs: { axes: [0] } },
      { inputs: { x: normal(3, 4, 5) }, attrs: { axes: [0, 2] } },
    ],
  });
  return (x, ...axes) => {
    const rank = x.type.shape.length;
    return op({ x }, { axes: axes.length ? axes.map((i) => (i < 0 ? i + rank : i)) : x.type.shape.map((_, i) => i) }).y;
  };
}

/** Reduced axes stay as 1; no axes means all of them. */
export const sum: Reduce = reduce("reduce_sum", "y = sum of x over `axes`, which stay as 1.", 0, (a, b) => a + b, (x, _y, d) => broadcast(d, x.type.shape), true);

export const maxOver: Reduce = reduce(
  "reduce_max",
  "y = largest x over `axes`, which stay as 1; ties share the gradient; only compositions use it.",
  -Infinity,
  Math.max,
  (x, y, d) => {
    const hit = equal(x, y);
    const axes = x.type.shape.map((_, i) => i).filter((i) => y.type.shape[i] !== x.type.shape[i]);
    return mul(div(hit, axes.length ? sum(hit, ...axes) : hit), d);
  },
  false,
);

const matmulOp = defineOp({
  name: "matmul",
  doc: "y = op(a) op(b) over the last two axes, leading axes are a batch; only compositions use it.",
  inputs: ["a", "b"],
  outputs: ["y"],
  attrs: { ta: "boolean", tb: "boolean" },
  kernel: false,
  infer: (t, a) => {
    const [p, q] = [t.a.shape, t.b.shape];
    const r = p.length;
    const [m, k] = a.ta ? [p[r - 1]!, p[r - 2]!] : [p[r - 2]!, p[r - 1]!];
    const [k2, w] = a.tb ? [q[r - 1]!, q[r - 2]!] : [q[r - 2]!, q[r - 1]!];
    const ok = cap(k) === cap(k2) && sameShape(p.slice(0, -2), q.slice(0, -2));
    need(ok, () => `matmul: inner and batch sizes must agree, got ${show(t.a)}${a.ta ? "^T" : ""} and ${show(t.b)}${a.tb ? "^T" : ""}`);
    return { y: type([...p.slice(0, -2), m, w] as Dim[], t.a.dtype) };
  },
  eval: (v, t, a, o) => {
    const r = o.shape.length;
    const [m, w, k] = [cap(o.shape[r - 2]!), cap(o.shape[r - 1]!), cap(t.a.shape[a.ta ? r - 2 : r - 1]!)];
    const y = new Float64Array(size(o));
    const [ai, ak] = a.ta ? [1, m] : [k, 1];
    const [bk, bj] = a.tb ? [1, k] : [w, 1];
    for (let at = 0, ao = 0, bo = 0; at < y.length; at += m * w, ao += m * k, bo += k * w)
      for (let i = 0; i < m; i++)
        for (let j = 0; j < w; j++) {
          let s = 0;
          for (let c = 0; c < k; c++) s += v.a[ao + i * ai + c * ak]! * v.b[bo + c * bk + j * bj]!;
          y[at + i * w + j] = s;
        }
    return y;
  },
  grad: (g, { ta, tb }) => {
    const d = g.d.y!;
    const { a, b } = g.in;
    return {
      a: g.needs.a && (ta ? matmul(b, d, tb, true) : matmul(d, b, false, !tb)),
      b: g.needs.b && (tb ? matmul(d, a, true, ta) : matmul(a, d, !ta, false)),
    };
  },
});
/** a . b over the last two axes, each optionally transposed; leading axes are a batch and must be equal. */
export function matmul(a: Value, b: Value, ta = false, tb = false): Value {
  return matmulOp({ a, b }, { ta, tb }).y;
}
