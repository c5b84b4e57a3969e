// The float64 oracle: primitives by `eval`, every other op by its compose. The judge of all devices, and of whole programs.
import { buffer, emit, mapValues, store, trace, typesOf, type Graph, type Node, type Value } from "./graph.ts";
import type { Attrs, OpDef } from "./op.ts";
import { resolve, resolveDim, sameShape, show, type Counts, type Dim, type DType, type Type } from "./types.ts";

export type Arrays = ReadonlyMap<string, Float64Array>;

export interface InterpretOptions {
  /** How much of each capacity is in use; all of it where nothing is said. */
  counts?: Counts;
  /** Round every output: "storage" rounds kernel ops' outputs to their dtype, "float32" also rounds every primitive inside. */
  round?: "storage" | "float32";
  /** Check that statistics handed to a backward op are what the forward computes from the same inputs. */
  checkSaved?: boolean;
}

const meanings = new Map<string, Graph>();

/** The graph of one op in simpler ops: buffers are its inputs, stores its outputs. Shapes are plain numbers. */
export function meaning(def: OpDef, types: Readonly<Record<string, Type>>, attrs: Attrs): Graph {
  const key = `${def.name} ${JSON.stringify(attrs)} ${Object.entries(types).map(([k, t]) => k + show(t)).join()}`;
  const old = meanings.get(key);
  if (old) return old;
  const g = trace(() => {
    const outs = def.compose!(mapValues(types, (t, k) => buffer(k, t)), attrs);
    const want = def.infer({ ...types }, attrs);
    for (const o in want) {
      const v = outs[o];
      if (!v || !sameShape(v.type.shape, want[o]!.shape))
        throw new Error(`${def.name}: infer says ${o} is ${show(want[o]!)}, compose gives ${v ? show(v.type) : "nothing"}`);
      store(`=${o}`, v);
    }
  });
  if (meanings.size > 2000) meanings.clear();
  meanings.set(key, g);
  return g;
}

/** All outputs of one op on plain shapes. */
export function evalOp(
  def: OpDef,
  x: Readonly<Record<string, Float64Array>>,
  types: Readonly<Record<string, Type>>,
  attrs: Attrs,
  options: InterpretOptions = {},
): Record<string, Float64Array> {
  if (def.eval) {
    const o = def.outputs[0]!;
    const t = def.infer({ ...types }, attrs)[o]!;
    const y = def.eval({ ...x }, { ...types }, attrs, t);
    return { [o]: options.round === "float32" ? roundTo(y, t.dtype === "int32" ? "int32" : "float32") : y };
  }
  const g = meaning(def, types, attrs);
  const r = interpret(g, new Map(Object.entries(x)), options.round ? { round: options.round } : {});
  return Object.fromEntries([...g.stores.keys()].map((s) => [s.slice(1), r.get(s)!]));
}

/** Interpret `g`; returns the stored buffers. A buffer that is only written needs no content. */
export function interpret(g: Graph, given: Arrays, options: InterpretOptions = {}): Map<string, Float64Array> {
  const { counts = {} } = options;
  const env = new Map<Value, Float64Array>();
  const uses = new Map<Value, number>();
  const use = (v: Value, by: number): number => {
    const c = (uses.get(v) ?? 0) + by;
    uses.set(v, c);
    return c;
  };
  for (const n of g.nodes) for (const v of Object.values(n.inputs)) use(v, 1);
  for (const v of g.stores.values()) use(v, 1);
  for (const [name, v] of g.buffers) {
    const a = given.get(name);
    if (a) env.set(v, a);
    else if (uses.get(v)) throw new Error(`interpret: buffer ${name} ${show(v.type)} was not given`);
  }
  for (const n of g.nodes) {
    const types = mapValues(typesOf(n.inputs), (t) => resolve(t, counts));
    const y = evalOp(n.def, mapValues(n.inputs, (v) => env.get(v)!), types, plain(n.attrs, counts), options);
    for (const o in n.outs)
      env.set(n.outs[o]!, options.round && !n.def.eval ? roundTo(y[o]!, n.outs[o]!.type.dtype) : y[o]!);
    if (options.checkSaved) checkSaved(n, env, counts);
    for (const v of Object.values(n.inputs)) if (use(v, -1) === 0) env.delete(v);
  }
  return new Map([...g.stores].map(([name, v]) => [name, env.get(v)!]));
}

/** Attributes with every capacity replaced by its count. */
function plain(attrs: Attrs, counts: Counts): Attrs {
  const one = (a: unknown): unknown => {
    if (Array.isArray(a)) return a.map(one);
    if (a === null || typeof a !== "object") return a;
    if ("capacity" in a) return resolveDim(a as Dim, counts);
    return resolve(a as Type, counts);
  };
  return mapValues(attrs, one);
}

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** Round to what a dtype can hold (nearest even). */
export function roundTo(x: Float64Array, dtype: DType): Float64Array {
  if (dtype === "int32") return x;
  return x.map((v) => {
    f32[0] = v;
    if (dtype === "bfloat16" && Number.isFinite(f32[0])) {
      const u = u32[0]!;
      u32[0] = (u + 0x7fff + ((u >>> 16) & 1)) & 0xffff0000;
    }
    return f32[0]!;
  });
}

function checkSaved(n: Node, env: ReadonlyMap<Value, Float64Array>, counts: Counts): void {
  for (const k in n.inputs) {
    const v = n.inputs[k]!;
    const from = v.node;
    if (!from?.def.compose || !from.def.stats.includes(v.out)) continue;
    const ins = mapValues(from.inputs, (x, i) => n.inputs[i] ?? x);
    if (Object.values(ins).some((i) => !env.has(i))) continue;
    const types = mapValues(typesOf(from.inputs), (t) => resolve(t, counts));
    const again = evalOp(from.def, mapValues(ins, (u) => env.get(u)!), types, plain(from.attrs, counts))[v.out]!;
    const was = env.get(v)!;
    again.forEach((a, i) => {
      if (a !== was[i] && Math.abs(a - was[i]!) > 1e-9)
        throw new Error(`${n.def.name}: saved ${k}[${i}] is ${was[i]}, the forward of these inputs gives ${a}`);
    });
  }
}

/** Record `g` again inside the trace under way with every compose inlined down to primitives; returns what it stores. */
export function replayPrimitives(g: Graph, given?: ReadonlyMap<string, Value>): Map<string, Value> {
  const to = new Map<Value, Value>();
  for (const [name, v] of g.buffers) {
    const old = given ? given.get(name) : buffer(name, resolve(v.type));
    if (old) to.set(v, old);
  }
  for (const n of g.nodes) {
    const ins = mapValues(n.inputs, (v) => to.get(v)!);
    const attrs = plain(n.attrs, {});
    const outs = n.def.eval
      ? new Map(Object.entries(emit(n.def, ins, attrs)).map(([k, v]) => [`=${k}`, v]))
      : replayPrimitives(meaning(n.def, typesOf(ins), attrs), new Map(Object.entries(ins)));
    for (const o in n.outs) to.set(n.outs[o]!, outs.get(`=${o}`)!);
  }
  return new Map([...g.stores].map(([name, v]) => [name, to.get(v)!]));
}
