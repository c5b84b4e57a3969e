// Optimiser ops: one AdamW step in one pass, and the sum of squares for the gradient norm.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, need, show, size, type } from "../ir/types.ts";
import { add, div, fill, mul, rsqrt, sub } from "./primitives/elementwise.ts";
import { sum } from "./primitives/reduce.ts";
import { reshape } from "./primitives/shape.ts";
import { floats, normal, normal32, positive32 } from "./samples.ts";

const scalar = (v: number): ReturnType<typeof floats> => floats([], [v]);

export const adamwOp = defineOp({
  name: "adamw",
  doc:
    "d = g scale; m' = b1 m + (1-b1) d; v' = b2 v + (1-b2) d^2; p' = p (1 - lr decay) - lr/bias1 m' / (sqrt(v')/sqrt(bias2) + eps). " +
    "p is `master` (float32) where given, and w its rounded copy; else w.  arXiv:1711.05101, torch.optim.AdamW",
  inputs: ["g", "m", "v", "scale", "lr", "bias1", "bias2", "w"],
  optional: ["master"],
  outputs: ["w2", "master2", "m2", "v2"],
  attrs: { beta1: "number", beta2: "number", eps: "number", decay: "number" },
  inplace: { w2: "w", master2: "master", m2: "m", v2: "v" },
  infer: (t) => {
    need([t.g, t.m, t.v].every((x) => size(x) === size(t.w)), () => `adamw: g, m and v must have the size of w ${show(t.w)}, got ${show(t.g)}, ${show(t.m)}, ${show(t.v)}`);
    need(t.w.dtype === "float32" || !!t.master, () => `adamw: a ${t.w.dtype} weight needs a float32 master`);
    return { w2: t.w, ...(t.master && { master2: t.master }), m2: t.m, v2: t.v };
  },
  compose: ({ g, m, v, scale, lr, bias1, bias2, w, master }, { beta1, beta2, eps, decay }) => {
    const d = mul(g, scale);
    const m2 = add(mul(m, beta1), mul(d, 1 - beta1));
    const v2 = add(mul(v, beta2), mul(mul(d, d), 1 - beta2));
    const p = master ?? w;
    const root = mul(v2, rsqrt(add(mul(v2, bias2), fill(1e-300, v2.type.shape)))); // sqrt(v2 / bias2), 0 at 0
    const step = div(div(m2, bias1), add(root, eps));
    const next = sub(mul(p, sub(fill(1, []), mul(lr, decay))), mul(step, lr));
    return { w2: next, ...(master && { master2: next }), m2, v2 };
  },
  cost: (t) => ({ flops: 12 * size(t.w), bytes: bytes(t.g) + 2 * bytes(t.m) + 2 * bytes(t.v) + (t.master ? bytes(t.w) + 2 * bytes(t.master) : 2 * bytes(t.w)) }),
  bench: (d) => {
    const x = normal32(d.intermediate, d.hidden);
    const half = d.dtype === "bfloat16" && { master: x };
    const inputs = { g: x, m: x, v: positive32(d.intermediate, d.hidden), scale: scalar(0.7), lr: scalar(1e-4), bias1: scalar(0.1), bias2: scalar(0.001), w: normal(d.intermediate, d.hidden), ...half };
    return { inputs, attrs: { beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.1 } };
  },
  samples: [
    {
      inputs: { g: normal32(41), m: normal32(41), v: positive32(41), scale: scalar(0.7), lr: scalar(0.01), bias1: scalar(0.1), bias2: scalar(0.001), w: normal32(41) },
      attrs: { beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.1 },
    },
    {
      inputs: { g: normal32(7, 35), m: normal32(7, 35), v: positive32(7, 35), scale: scalar(1), lr: scalar(0.1), bias1: scalar(0.19), bias2: scalar(0.5), w: normal(7, 35), master: normal32(7, 35) },
      attrs: { beta1: 0.9, beta2: 0.999, eps: 0.5, decay: 0 }, // an eps that shows where it is added
    },
  ],
});

export const sumSquaresOp = defineOp({
  name: "sum_squares",
  doc: "y = sum of x^2, accumulated in float64 over a number of partials that the shape decides.",
  inputs: ["x"],
  outputs: ["y"],
  infer: () => ({ y: type([]) }),
  compose: ({ x }) => ({ y: reshape(sum(mul(x, x)), []) }),
  bench: (d) => ({ inputs: { x: normal32(d.intermediate, d.hidden) }, attrs: {} }),
  samples: [
    { inputs: { x: normal32(1000) }, attrs: {} },
    { inputs: { x: normal32(3, 7) }, attrs: {} },
  ],
});
/** Sum of squares of all elements, a scalar. */
export function sumSquares(x: Value): Value {
  return sumSquaresOp({ x }, {}).y;
}
