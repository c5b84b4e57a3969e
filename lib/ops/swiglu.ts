// swiglu: the gated activation of the MLP, over a fused gate-up projection.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { cap, need, show, type } from "../ir/types.ts";
import { defineBackward } from "../ir/vjp.ts";
import { equal, fill, iota, mul, sigmoid } from "./primitives/elementwise.ts";
import { sum } from "./primitives/reduce.ts";
import { reshape } from "./primitives/shape.ts";
import { normal } from "./samples.ts";

export const swigluOp = defineOp({
  name: "swiglu",
  doc: "y (N,F) = silu(x[:, :F]) x[:, F:] for x (N, 2F), silu(z) = z sigmoid(z).  arXiv:2002.05202",
  inputs: ["x"],
  outputs: ["y"],
  infer: (t) => {
    const width = cap(t.x.shape[1] ?? 1);
    need(t.x.shape.length === 2 && width % 2 === 0, () => `swiglu: x must be (N, 2F), got ${show(t.x)}`);
    return { y: type([t.x.shape[0]!, width / 2], t.x.dtype) };
  },
  compose: ({ x }) => {
    const [n, width] = x.type.shape as [number, number];
    const halves = reshape(x, [n, 2, width / 2]);
    const half = (i: number): Value => reshape(sum(mul(halves, reshape(equal(iota(2), fill(i, [2], "int32")), [1, 2, 1])), 1), [n, width / 2]);
    const gate = half(0);
    return { y: mul(mul(gate, sigmoid(gate)), half(1)) };
  },
  bench: (d) => ({ inputs: { x: normal(d.tokens, 2 * d.intermediate) }, attrs: {} }),
  samples: [{ inputs: { x: normal(5, 34) }, attrs: {} }, { inputs: { x: normal(40, 128) }, attrs: {} }, { inputs: { x: normal(0, 64) }, attrs: {} }],
});
defineBackward(swigluOp.def, { of: ["x"], inplace: { dx: "x" } });

/** silu(gate) * up for x (N, 2F) = [gate, up]. */
export function swiglu(x: Value): Value {
  return swigluOp({ x }, {}).y;
}
