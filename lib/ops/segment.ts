// Segment ops: sums of log-probabilities per completion, and back.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { type, type Dim } from "../ir/types.ts";
import { gather, scatterAdd } from "./primitives/shape.ts";
import { ints, normal32, scattered } from "./samples.ts";

export const segmentSumOp = defineOp({
  name: "segment_sum",
  doc: "y[p] = sum of x[m] where seg[m] = p, in ascending m; a negative segment is dropped.",
  inputs: ["x", "seg"],
  outputs: ["y"],
  attrs: { segments: "dim" },
  infer: (_, { segments }) => ({ y: type([segments]) }),
  compose: ({ x, seg }, { segments }) => ({ y: scatterAdd(x, seg, segments) }),
  grad: (g) => ({ x: g.d.y && segmentGather(g.d.y, g.in.seg) }),
  bench: (d) => ({ inputs: { x: normal32(d.rows), seg: scattered(d.rows, d.examples) }, attrs: { segments: d.examples } }),
  samples: [{ inputs: { x: normal32(9), seg: ints([0, 0, 2, 2, 2, -1, 3, 3, 0]) }, attrs: { segments: 5 } }],
});
/** Sums (P) of x (M) by segment (M). */
export function segmentSum(x: Value, seg: Value, segments: Dim): Value {
  return segmentSumOp({ x, seg }, { segments }).y;
}

export const segmentGatherOp = defineOp({
  name: "segment_gather",
  doc: "y[m] = x[seg[m]]; 0 where the segment is negative.",
  inputs: ["x", "seg"],
  outputs: ["y"],
  infer: (t) => ({ y: type(t.seg.shape) }),
  compose: ({ x, seg }) => ({ y: gather(x, seg) }),
  grad: (g) => ({ x: g.d.y && segmentSum(g.d.y, g.in.seg, g.in.x.type.shape[0]!) }),
  bench: (d) => ({ inputs: { x: normal32(d.examples), seg: scattered(d.rows, d.examples) }, attrs: {} }),
  samples: [{ inputs: { x: normal32(4), seg: ints([3, 3, 0, -1, 1]) }, attrs: {} }],
});
/** x (P) spread to seg (M). */
export function segmentGather(x: Value, seg: Value): Value {
  return segmentGatherOp({ x, seg }, {}).y;
}
