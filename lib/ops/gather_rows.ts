// gather_rows: rows by index (token embeddings, the rows that have a loss). Its backward gathers through the index's transpose,
// in that order: nothing scatters, so bits do not depend on threads.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, cap, need, show, size, type } from "../ir/types.ts";
import { defineBackward } from "../ir/vjp.ts";
import { add, equal, fill, iota, less, mul, select, sub } from "./primitives/elementwise.ts";
import { sum } from "./primitives/reduce.ts";
import { broadcast, gather, reshape, scatterAdd } from "./primitives/shape.ts";
import { ints, normal, scattered } from "./samples.ts";

export const indexTransposeOp = defineOp({
  name: "index_transpose",
  doc: "Where each row of a gather went: order (M) lists positions of idx (M) by ascending value, stably; row r's are order[start[r] .. start[r]+length[r]). Unlisted places hold -1.",
  inputs: ["idx"],
  outputs: ["start", "length", "order"],
  attrs: { rows: "dim" },
  infer: (t, { rows }) => ({ start: type([rows], "int32"), length: type([rows], "int32"), order: type(t.idx.shape, "int32") }),
  compose: ({ idx }, { rows }) => {
    const r = rows as number;
    const m = idx.type.shape[0] as number;
    const col = (v: Value, n: number): Value => reshape(v, [n, 1]);
    const zero = fill(0, [m], "int32");
    const none = less(idx, zero);
    const key = select(none, fill(r, [m], "int32"), idx); // none sorts last
    const at = iota(m);
    const across = broadcast(key, [m, m]);
    const before = add(less(across, col(key, m)), mul(equal(across, broadcast(col(key, m), [m, m])), less(broadcast(at, [m, m]), col(at, m))));
    const place = reshape(sum(before, 1), [m]);
    const length = sum(equal(broadcast(key, [r, m]), broadcast(col(iota(r), r), [r, m])), 1);
    const start = sum(less(broadcast(key, [r, m]), broadcast(col(iota(r), r), [r, m])), 1);
    const listed = select(none, fill(-1, [m]), at); // what stands at each place; -1 for none
    return { start: reshape(start, [r]), length: reshape(length, [r]), order: sub(scatterAdd(add(listed, 1), place, m), fill(1, [m])) };
  },
  bench: (d) => ({ inputs: { idx: scattered(d.tokens, d.vocab) }, attrs: { rows: d.vocab } }),
  samples: [
    { inputs: { idx: ints([3, 0, 3, -1, 1, 3, 0]) }, attrs: { rows: 5 } },
    { inputs: { idx: ints([-1, -1]) }, attrs: { rows: 2 } },
  ],
});

export const gatherRowsOp = defineOp({
  name: "gather_rows",
  doc: "y[m] (C) = x[idx[m]] of x (R,C); a negative index means none and gives zeros.",
  inputs: ["x", "idx"],
  outputs: ["y"],
  infer: (t) => {
    need(t.x.shape.length === 2 && t.idx.shape.length === 1 && t.idx.dtype === "int32", () => `gather_rows: x must be (R,C) and idx i32[M], got ${show(t.x)} and ${show(t.idx)}`);
    return { y: type([t.idx.shape[0]!, t.x.shape[1]!], t.x.dtype) };
  },
  compose: ({ x, idx }) => ({ y: gather(x, idx) }),
  cost: (t) => ({ flops: 0, bytes: (2 * size(t.idx) * bytes(t.x)) / cap(t.x.shape[0]!) + bytes(t.idx) }),
  bench: (d) => ({ inputs: { x: normal(d.vocab, d.hidden), idx: scattered(d.tokens, d.vocab) }, attrs: {} }),
  samples: [
    { inputs: { x: normal(11, 40), idx: ints([3, 10, 0, 3, -1, 7, 3]) }, attrs: {} },
    { inputs: { x: normal(4, 17), idx: ints([2]) }, attrs: {} },
    { inputs: { x: normal(6, 72), idx: ints([]) }, attrs: {} },
  ],
});
defineBackward(gatherRowsOp.def, {
  of: ["x"],
  shapeOnly: ["x"],
  accumulate: ["x"],
  hints: {
    names: ["start", "length", "order"],
    make: (x) => indexTransposeOp({ idx: x["idx"]! }, { rows: x["x"]!.type.shape[0]! }),
  },
});

/** Rows x[idx] of x (R,C) for idx (M); negative means none. */
export function gatherRows(x: Value, idx: Value): Value {
  return gatherRowsOp({ x, idx }, {}).y;
}
