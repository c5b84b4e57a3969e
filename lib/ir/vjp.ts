// Reverse mode as a function called inside trace(): it appends backward nodes to the graph being traced. The same lines serve
// the training step (kernel ops) and the derived meaning of every backward op (primitives).
import { atScope, emit, type Node, type Value } from "./graph.ts";
import { addValues, defineOp, findOp, type Attrs, type AttrSchema, type Cost, type OpDef } from "./op.ts";
import { sameShape, show, type Type } from "./types.ts";

type Sink = (of: Value, d: Value) => void;

/**
 * Cotangents of `wrt` for the given seeds (value, its cotangent). `wrt` values are cut points: nothing behind them is visited.
 * With `sink`, every contribution to a wrt value is handed over where it is computed, so that weight gradients accumulate there.
 */
export function vjp(seeds: readonly (readonly [Value, Value])[], wrt: readonly Value[], sink?: Sink): (Value | undefined)[] {
  const wanted = new Set(wrt);
  const order = reachable(seeds, wanted);
  const needs = new Set(wrt);
  for (const n of order)
    if (Object.values(n.inputs).some((v) => needs.has(v)))
      for (const o in n.outs) if (!n.def.stats.includes(o)) needs.add(n.outs[o]!);

  const cotangents = new Map<Value, Value>();
  const give = (v: Value, d: Value): void => {
    if (!sameShape(d.type.shape, v.type.shape))
      throw new Error(`vjp: the gradient of ${v.node?.def.name ?? v.out} must be ${show(v.type)}, got ${show(d.type)}`);
    if (sink && wanted.has(v)) return sink(v, d);
    const old = cotangents.get(v);
    cotangents.set(v, old ? addValues(old, d) : d);
  };
  for (const [v, d] of seeds) if (needs.has(v)) give(v, d);
  for (const n of order.reverse()) pull(n, cotangents, needs, give);
  return wrt.map((v) => cotangents.get(v));
}

/** Nodes between the seeds and the cut points, in order of tracing. */
function reachable(seeds: readonly (readonly [Value, Value])[], cuts: ReadonlySet<Value>): Node[] {
  const nodes = new Set<Node>();
  const visit = seeds.map(([v]) => v);
  for (let v; (v = visit.pop()); )
    if (v.node && !cuts.has(v) && !nodes.has(v.node)) {
      nodes.add(v.node);
      visit.push(...Object.values(v.node.inputs));
    }
  return [...nodes].sort((a, b) => a.id - b.id);
}

function pull(n: Node, cotangents: ReadonlyMap<Value, Value>, needs: ReadonlySet<Value>, give: Sink): void {
  const d: Record<string, Value> = {};
  const wants: Record<string, true> = {};
  for (const o in n.outs) {
    const c = cotangents.get(n.outs[o]!);
    if (c) d[o] = c;
  }
  for (const k in n.inputs) if (needs.has(n.inputs[k]!)) wants[k] = true;
  if (!Object.keys(d).length || !Object.keys(wants).length) return;
  const { grad } = n.def;
  const without = Object.keys(wants).find((k) => n.def.constant.includes(k));
  if (without) throw new Error(`vjp: ${n.def.name} gives no gradient for ${without}`);
  if (!grad) throw new Error(`vjp: ${n.def.name} has no gradient, but the loss depends on its ${Object.keys(wants).join(", ")}`);
  atScope(n.scope, () => {
    const g = grad({ in: n.inputs, out: n.outs, d, needs: wants }, n.attrs);
    for (const k in g) {
      if (!n.def.inputs.includes(k) && !n.def.optional.includes(k))
        throw new Error(`vjp: the gradient of ${n.def.name} returned ${k}, which is no input`);
      const v = g[k];
      if (v && wants[k]) give(n.inputs[k]!, v);
    }
  });
}

export interface BackwardSpec {
  /** Inputs that get a gradient. */
  of: readonly string[];
  /** Forward outputs that the kernel wants to be handed (an absent one is skipped). */
  saved?: readonly string[];
  /** Inputs whose type alone matters (an embedding table): not passed, so not kept alive. */
  shapeOnly?: readonly string[];
  /** Input -> optional input: the first is passed only where the second is there. */
  neededWith?: Readonly<Record<string, string>>;
  /** Gradients that the kernel can add onto something: `dw` gets an optional input `onto_dw`. */
  accumulate?: readonly string[];
  /** Values that follow from the inputs (an index's transpose): built only when there is a backward. */
  hints?: { names: readonly string[]; make(x: Readonly<Record<string, Value>>): Record<string, Value> };
  inplace?: OpDef["inplace"];
  /** dtype of a gradient, where it is not its input's. */
  dtype?: (of: string, a: Attrs) => Type["dtype"] | undefined;
  cost?: (t: Record<string, Type>, a: Attrs) => Cost;
}

/**
 * Give a forward op a backward kernel without writing down its meaning. Inputs: the forward's inputs, what was saved, the
 * cotangents. Meaning: the vjp of the forward's compose, which ignores what was saved (the interpreter holds that to account).
 */
export function defineBackward(fwd: OpDef, spec: BackwardSpec): OpDef {
  const { of, saved = [], shapeOnly = [], neededWith = {}, accumulate = [], hints } = spec;
  const name = `${fwd.name}_backward`;
  const ds = fwd.outputs.filter((o) => !fwd.stats.includes(o));
  const conditional = Object.keys(neededWith);
  const shaped = [...shapeOnly, ...conditional];
  const wants = (a: Attrs): readonly string[] => a["want"] as readonly string[];
  const likeOf = (a: Attrs, i: string): Type => a[`type_${i}`] as Type;
  const attrs: Record<string, AttrSchema[string]> = { ...fwd.attrs, want: "names" };
  for (const i of shaped) attrs[`type_${i}`] = "type";

  defineOp<string, string, string, AttrSchema>({
    name,
    doc: `The gradient of ${fwd.name}: its meaning is the vjp of that op's composition.`,
    inputs: fwd.inputs.filter((i) => !shaped.includes(i)),
    optional: [...fwd.optional, ...conditional, ...saved, ...(hints?.names ?? []), ...ds.map((o) => `d${o}`), ...accumulate.map((i) => `onto_d${i}`)],
    outputs: of.map((i) => `d${i}`),
    attrs,
    infer: (t, a) =>
      Object.fromEntries(
        wants(a).map((i) => {
          const like = t[i] ?? likeOf(a, i);
          return [`d${i}`, { shape: like.shape, dtype: t[`onto_d${i}`]?.dtype ?? spec.dtype?.(i, a) ?? like.dtype }];
        }),
      ),
    compose: (x, a) => {
      const all: Record<string, Value> = {};
      for (const i of [...fwd.inputs, ...fwd.optional]) {
        const v = x[i] ?? (shaped.includes(i) ? hole(likeOf(a, i)) : undefined);
        if (v) all[i] = v;
      }
      const own = Object.fromEntries(Object.keys(fwd.attrs).map((k) => [k, a[k]]));
      const outs = fwd.compose!(all, own);
      const seeds = ds.flatMap((o) => (x[`d${o}`] ? [[outs[o]!, x[`d${o}`]!] as const] : []));
      const grads = vjp(seeds, wants(a).map((i) => all[i]!));
      return Object.fromEntries(
        wants(a).map((i, k) => {
          const onto = x[`onto_d${i}`];
          return [`d${i}`, onto ? addValues(onto, grads[k]!) : grads[k]!];
        }),
      );
    },
    accumulate: Object.fromEntries(accumulate.map((i) => [`d${i}`, `onto_d${i}`])),
    inplace: spec.inplace ?? {},
    ...(spec.cost && { cost: spec.cost }),
  });
  const def = findOp(name)!;
  def.backwardOf = fwd;
  fwd.grad = (g, a) => {
    const ins: Record<string, Value | undefined> = {};
    const more: Record<string, unknown> = { ...a, want: of.filter((i) => g.needs[i]) };
    for (const i in g.in) {
      const condition = neededWith[i];
      const dropped = shapeOnly.includes(i) || (condition !== undefined && !g.in[condition]);
      if (shaped.includes(i)) more[`type_${i}`] = g.in[i]!.type;
      if (!dropped) ins[i] = g.in[i];
    }
    for (const o of saved) ins[o] = g.out[o];
    for (const o in g.d) ins[`d${o}`] = g.d[o];
    const r = emit(def, { ...ins, ...hints?.make(g.in) }, more);
    return Object.fromEntries(wants(more).map((i) => [i, r[`d${i}`]]));
  };
  return def;
}

/** A value of the right shape that nobody may read: NaN, so that reading it shows. */
const holeOp = defineOp({
  name: "hole",
  doc: "A value that nobody may read: NaN in the interpreter, no kernel on any device.",
  inputs: [],
  outputs: ["y"],
  attrs: { type: "type" },
  kernel: false,
  infer: (_, a) => ({ y: a.type }),
  eval: (_x, _t, _a, o) => new Float64Array(o.shape.reduce<number>((n, d) => n * (d as number), 1)).fill(NaN),
});
const hole = (t: Type): Value => holeOp({}, { type: t }).y;
