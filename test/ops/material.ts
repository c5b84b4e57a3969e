// Material of the derived tests: seeded data for every sample of every op, and the backward samples that follow from the forward ones.
import "#lib/ops/index.js";
import { buffer, emit, trace, type Node } from "#lib/ir/graph.js";
import { interpret, roundTo } from "#lib/ir/interpret.js";
import { allOps, type Attrs, type OpDef, type Sample } from "#lib/ir/op.js";
import { size, type DType, type Type } from "#lib/ir/types.js";
import { vjp } from "#lib/ir/vjp.js";

/** Seeded uniform numbers in [0, 1): mulberry32. */
export function uniform(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
export function normals(n: number, seed: number): Float64Array {
  const next = uniform(seed);
  return Float64Array.from({ length: n }, () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
}

export interface Case {
  readonly def: OpDef;
  readonly title: string;
  readonly types: Record<string, Type>;
  readonly attrs: Attrs;
  /** Already rounded to the inputs' dtypes: what a device is given, and what the oracle sees. */
  readonly x: Record<string, Float64Array>;
}

function forwardCase(def: OpDef, sample: Sample, index: number, flex: DType): Case {
  const types: Record<string, Type> = {};
  const x: Record<string, Float64Array> = {};
  Object.entries(sample.inputs).forEach(([k, input], i) => {
    const t: Type = { shape: input!.shape, dtype: input!.dtype === "flex" ? flex : input!.dtype };
    const n = size(t);
    const seed = 1000 * index + 17 * i + def.name.length;
    const raw =
      input!.values === "normal" ? normals(n, seed)
      : input!.values === "positive" ? Float64Array.from({ length: n }, ((u) => () => 0.5 + 1.5 * u())(uniform(seed)))
      : Float64Array.from(input!.values as readonly number[]);
    types[k] = t;
    x[k] = roundTo(raw, t.dtype);
  });
  return { def, title: `${def.name} #${index} ${flex}`, types, attrs: sample.attrs, x };
}

/** The graph of one op and the gradient of random cotangents through it. */
export function withBackward(c: Case, wrt: (name: string) => boolean): { graph: ReturnType<typeof trace>; given: Map<string, Float64Array> } {
  const given = new Map(Object.entries(c.x));
  const graph = trace(() => {
    const ins = Object.fromEntries(Object.entries(c.types).map(([k, t]) => [k, buffer(k, t)]));
    const outs = emit(c.def, ins, c.attrs);
    const seeds = Object.entries(outs)
      .filter(([o]) => !c.def.stats.includes(o))
      .map(([o, v], i) => {
        given.set(`d.${o}`, roundTo(normals(size(v.type), 77 + i), v.type.dtype));
        return [v, buffer(`d.${o}`, v.type)] as const;
      });
    vjp(seeds, Object.entries(ins).flatMap(([k, v]) => (c.types[k]!.dtype !== "int32" && !c.def.constant.includes(k) && wrt(k) ? [v] : [])));
  });
  return { graph, given };
}

function backwardCases(c: Case, index: number): Case[] {
  if (!allOps().some((d) => d.backwardOf === c.def)) return [];
  const { graph, given } = withBackward(c, () => true);
  const nodes = graph.nodes.filter((n: Node) => n.def.backwardOf === c.def);
  return nodes.map((n) => {
    graph.stores.clear();
    for (const [k, v] of Object.entries(n.inputs)) graph.stores.set(k, v);
    const arrays = interpret(graph, given, { round: "storage" });
    const types = Object.fromEntries(Object.entries(n.inputs).map(([k, v]) => [k, v.type]));
    const x = Object.fromEntries([...arrays].map(([k, a]) => [k, roundTo(a, types[k]!.dtype)]));
    return { def: n.def, title: `${n.def.name} #${index} ${c.title.split(" ").at(-1)!}`, types, attrs: n.attrs, x };
  });
}

/** A backward case once more, adding onto something: what the fold pass makes of it. */
function accumulating(c: Case): Case[] {
  const slots = Object.entries(c.def.accumulate).filter(([o, slot]) => !c.types[slot] && c.def.infer({ ...c.types }, c.attrs)[o]);
  if (!c.def.backwardOf || !slots.length) return [];
  const types = { ...c.types };
  const x = { ...c.x };
  for (const [o, slot] of slots) {
    const t = c.def.infer({ ...c.types }, c.attrs)[o]!;
    types[slot] = t;
    x[slot] = roundTo(normals(size(t), 5), t.dtype);
  }
  return [{ ...c, title: `${c.title} onto`, types, x }];
}

/** Every op with a kernel on each of its samples, forward and backward. */
export function cases(flex: DType): Case[] {
  return allOps().flatMap((def) =>
    def.samples.flatMap((sample, i) => {
      const forward = forwardCase(def, sample, i, flex);
      const backward = backwardCases(forward, i);
      return [...(def.kernel ? [forward] : []), ...backward, ...backward.flatMap(accumulating)];
    }),
  );
}
/** Forward cases in float32, whether or not a device has a kernel: what gradient checks walk. */
export function forwardCases(): Case[] {
  return allOps().flatMap((def) => def.samples.map((s, i) => forwardCase(def, s, i, "float32")));
}
