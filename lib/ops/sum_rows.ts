// sum_rows: column sums, the gradient of a bias.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { type } from "../ir/types.ts";
import { add } from "./primitives/elementwise.ts";
import { sum } from "./primitives/reduce.ts";
import { reshape } from "./primitives/shape.ts";
import { normal, normal32 } from "./samples.ts";

export const sumRowsOp = defineOp({
  name: "sum_rows",
  doc: "y (C) = onto + sum over n of x (N,C), in float32.",
  inputs: ["x"],
  optional: ["onto"],
  outputs: ["y"],
  accumulate: { y: "onto" },
  infer: (t) => ({ y: type([t.x.shape[1]!], t.onto?.dtype ?? "float32") }),
  compose: ({ x, onto }) => {
    const y = reshape(sum(x, 0), [x.type.shape[1]!]);
    return { y: onto ? add(onto, y) : y };
  },
  bench: (d) => ({ inputs: { x: normal(d.tokens, d.hidden) }, attrs: {} }),
  samples: [
    { inputs: { x: normal(67, 19) }, attrs: {} },
    { inputs: { x: normal(5, 33), onto: normal32(33) }, attrs: {} },
    { inputs: { x: normal(0, 33) }, attrs: {} },
    { inputs: { x: normal(0, 33), onto: normal32(33) }, attrs: {} },
  ],
});
export function sumRows(x: Value): Value {
  return sumRowsOp({ x }, {}).y;
}
