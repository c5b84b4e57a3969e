// The verifier: what must hold of every graph, checked after every pass.
import { typesOf, type Graph, type Value } from "./graph.ts";
import { sameType, show, size } from "./types.ts";

/** A primitive that reaches a device works on vectors of examples; anything larger means a fold was missed. */
export const LARGEST_PRIMITIVE = 1 << 16;

/** Throws unless every value is made once, before its use, with the type its op infers. `lowered` also refuses ops without a kernel. */
export function verify(g: Graph, options: { lowered?: boolean } = {}): Graph {
  const made = new Set<Value>(g.buffers.values());
  const fail = (what: string): never => {
    throw new Error(`verify: ${what}`);
  };
  for (const n of g.nodes) {
    const at = `${n.scope || "top"}/${n.def.name}`;
    for (const [k, v] of Object.entries(n.inputs)) if (!made.has(v)) fail(`${at}: input ${k} is read before it is made`);
    const types = n.def.infer(typesOf(n.inputs), n.attrs);
    for (const [k, v] of Object.entries(n.outs)) {
      if (made.has(v)) fail(`${at}: output ${k} is made twice`);
      if (!types[k] || !sameType(types[k], v.type))
        fail(`${at}: output ${k} must be ${types[k] ? show(types[k]) : "absent"}, got ${show(v.type)}`);
      made.add(v);
    }
    if (!options.lowered || n.def.view) continue;
    if (!n.def.kernel) fail(`${at}: no device has a kernel for this op`);
    const largest = Math.max(0, ...Object.values(n.outs).map((v) => size(v.type)));
    if (n.def.eval && largest > LARGEST_PRIMITIVE)
      fail(`${at}: a primitive may have at most ${LARGEST_PRIMITIVE} elements on a device, got ${largest} (fold it into a kernel op)`);
  }
  for (const [name, v] of g.stores) {
    if (!made.has(v)) fail(`store ${name}: its value is never made`);
    if (!sameType(v.type, g.buffers.get(name)!.type)) fail(`store ${name}: the buffer is ${show(g.buffers.get(name)!.type)}, got ${show(v.type)}`);
  }
  return g;
}
