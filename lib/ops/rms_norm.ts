// rms_norm: root-mean-square normalisation of the last axis.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { last, need, show, size, type } from "../ir/types.ts";
import { defineBackward } from "../ir/vjp.ts";
import { add, mul, rsqrt } from "./primitives/elementwise.ts";
import { sum } from "./primitives/reduce.ts";
import { reshape } from "./primitives/shape.ts";
import { normal } from "./samples.ts";

export const rmsNormOp = defineOp({
  name: "rms_norm",
  doc: "y[n,c] = w[c] x[n,c] rstd[n];  rstd[n] = 1 / sqrt(mean_c x[n,c]^2 + eps).  arXiv:1910.07467 eq. 4",
  inputs: ["x", "w"],
  outputs: ["y", "rstd"],
  stats: ["rstd"],
  attrs: { eps: "number" },
  infer: (t) => {
    need(t.x.shape.length === 2, () => `rms_norm: x must be (N,C), got ${show(t.x)}`);
    need(last(t.x) === size(t.w), () => `rms_norm: w must have shape [${last(t.x)}] (last axis of x ${show(t.x)}), got ${show(t.w)}`);
    return { y: t.x, rstd: type([t.x.shape[0]!]) };
  },
  compose: ({ x, w }, { eps }) => {
    const rstd = rsqrt(add(mul(sum(mul(x, x), 1), 1 / last(x.type)), eps));
    return { y: mul(mul(x, rstd), w), rstd: reshape(rstd, [x.type.shape[0]!]) };
  },
  bench: (d) => ({ inputs: { x: normal(d.tokens, d.hidden), w: normal(d.hidden) }, attrs: { eps: 1e-5 } }),
  samples: [
    { inputs: { x: normal(8, 64), w: normal(64) }, attrs: { eps: 1e-6 } },
    { inputs: { x: normal(5, 127), w: normal(127) }, attrs: { eps: 1e-5 } },
    { inputs: { x: normal(33, 384), w: normal(384) }, attrs: { eps: 1e-5 } },
    { inputs: { x: normal(3, 896), w: normal(896) }, attrs: { eps: 1e-6 } },
    { inputs: { x: normal(2, 576), w: normal(576) }, attrs: { eps: 1e-5 } },
    { inputs: { x: normal(0, 72), w: normal(72) }, attrs: { eps: 1e-6 } },
  ],
});
defineBackward(rmsNormOp.def, { of: ["x", "w"], saved: ["rstd"], accumulate: ["x", "w"], inplace: { dx: "dy" }, dtype: (i) => (i === "w" ? "float32" : undefined) });

/** Normalise rows of `x` (N,C) to unit root mean square, times `w` (C). */
export function rmsNorm(x: Value, w: Value, eps: number): Value {
  return rmsNormOp({ x, w }, { eps }).y;
}
