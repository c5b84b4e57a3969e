// Sums that become part of the product before them, and those that may not.
import { describe, expect, test } from "vitest";
import "#lib/ops/index.js";
import { buffer, store, trace, type Value } from "#lib/ir/graph.js";
import { interpret } from "#lib/ir/interpret.js";
import { type } from "#lib/ir/types.js";
import { linear } from "#lib/ops/gemm.js";
import { add, mul } from "#lib/ops/primitives/elementwise.js";
import { lower } from "#lib/passes/compile.js";

/** y = of(x, x.W): the ops it is lowered to, and its values before and after. */
function lowered(of: (x: Value, product: Value) => Value): { ops: string[]; before: Float64Array; after: Float64Array } {
  const graph = trace(() => {
    const x = buffer("inputs/x", type([2, 2], "float32"));
    store("outputs/y", of(x, linear(x, buffer("weights/w", type([2, 2], "float32")))));
  });
  const given = new Map([["inputs/x", Float64Array.of(1, 2, 3, 4)], ["weights/w", Float64Array.of(5, 6, 7, 8)]]);
  const low = lower(graph);
  const values = (g: typeof graph): Float64Array => interpret(g, given).get("outputs/y")!;
  return { ops: low.nodes.map((n) => n.def.name), before: values(graph), after: values(low) };
}

describe("x + x.W", () => {
  test("is one product", () => {
    const { ops, before, after } = lowered((x, p) => add(x, p));
    expect(ops).toEqual(["gemm"]);
    expect(after).toEqual(before);
  });
  test("stays a sum where the product has another reader, which would get the sum for it", () => {
    const { ops, before, after } = lowered((x, p) => mul(add(x, p), p));
    expect(ops).toEqual(["gemm", "add", "mul"]);
    expect(after).toEqual(before);
  });
});
