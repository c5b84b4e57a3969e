// fold: buf + x becomes part of x's producer where that declares `accumulate` (GEMM with beta = 1), and x never exists. One rule
// covers weight gradients into their buffers, sums of cotangents and residual adds. Whether it happens in place is the planner's affair.
import { emit, mapValues, rewrite, users, type Graph, type Node, type Value } from "../ir/graph.ts";
import { sameShape } from "../ir/types.ts";

export function foldSums(g: Graph): Graph {
  const by = users(g);
  const place = new Map(g.nodes.map((n, i) => [n, i]));
  const stored = new Set(g.stores.values());
  const folded = new Set<Node>();

  /** The buffer that output `o` of `n` may be added onto, if its only use is a sum. */
  const target = (n: Node, o: string): { into: Node; buf: Value } | undefined => {
    const v = n.outs[o];
    const [into, ...others] = (v && by.get(v)) ?? [];
    const sum = into?.def.sumOf;
    if (!v || !into || !sum || others.length || stored.has(v)) return undefined;
    const buf = into.inputs[sum.buf]!;
    if (into.inputs[sum.x] !== v || buf === v || !sameShape(buf.type.shape, v.type.shape)) return undefined;
    return buf.node && place.get(buf.node)! >= place.get(n)! ? undefined : { into, buf }; // not there yet
  };

  return rewrite(g, (n, map, bind) => {
    if (folded.has(n)) {
      bind(Object.values(n.outs)[0]!, map(n.inputs[n.def.sumOf!.x]!));
      return true;
    }
    const onto: Record<string, Value> = {};
    for (const [o, slot] of Object.entries(n.def.accumulate)) {
      const t = n.inputs[slot] ? undefined : target(n, o);
      if (!t) continue;
      onto[slot] = map(t.buf);
      folded.add(t.into);
    }
    const outs = emit(n.def, { ...mapValues(n.inputs, map), ...onto }, n.attrs, n.scope);
    for (const o in n.outs) bind(n.outs[o]!, outs[o]!);
    return true;
  });
}
