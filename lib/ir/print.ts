// Stable text of a graph, for snapshots: a node is named by scope, op and its number among those, so a change renames only its neighbours.
import type { Graph, Node, Value } from "./graph.ts";
import { show } from "./types.ts";

/** `scope/op` of a node: its place in the model. */
export const pathOf = (n: Node): string => `${n.scope}${n.scope && "/"}${n.def.name}`;

export function printGraph(g: Graph): string {
  const names = new Map<Value, string>();
  const next = new Map<string, number>();
  const name = (v: Value): string => names.get(v) ?? v.out;
  const lines = g.nodes.map((node) => {
    const ins = Object.entries(node.inputs).map(([k, v]) => `${k}=${name(v)}`);
    const attrs = Object.entries(node.attrs)
      .filter(([, v]) => typeof v === "number" || typeof v === "boolean")
      .map(([k, v]) => `${k}=${String(v)}`);
    const key = pathOf(node);
    const count = next.get(key) ?? 0;
    next.set(key, count + 1);
    for (const [k, v] of Object.entries(node.outs)) names.set(v, `%${key}.${count}.${k}`);
    const outs = Object.entries(node.outs).map(([k, v]) => `${k} ${show(v.type)}`);
    return `%${key}.${count}(${ins.join(" ")})${attrs.length ? ` {${attrs.join(" ")}}` : ""} -> ${outs.join(", ")}`;
  });
  return [...lines, ...[...g.stores].map(([b, v]) => `store ${b} = ${name(v)}`)].join("\n");
}
