// The graph: values, nodes, named buffers, and tracing. A graph is a pure function from buffers to buffers: it reads
// `buffer(name)` and ends in `store(name, value)`. Nothing here knows an op by name or owns memory.
import { ShapeError } from "../errors.ts";
import type { Attrs, OpDef } from "./op.ts";
import { need, sameType, show, type Type } from "./types.ts";

export interface Value {
  readonly id: number;
  readonly type: Type;
  /** The node that makes it; absent for the content of a buffer. */
  readonly node?: Node;
  /** Output name, or buffer name. */
  readonly out: string;
  /** Of a buffer: what it is a part of, where that is another one. */
  readonly within?: Within;
}
/** A part of a larger buffer, from `offset` bytes on. Parts that a program touches do not overlap, nor does it touch the whole beside one. */
export interface Within {
  readonly buffer: string;
  readonly type: Type;
  readonly offset: number;
}
export interface Node {
  readonly id: number;
  readonly def: OpDef;
  readonly attrs: Attrs;
  readonly scope: string;
  readonly inputs: Readonly<Record<string, Value>>;
  readonly outs: Readonly<Record<string, Value>>;
}
export interface Graph {
  readonly nodes: Node[];
  readonly buffers: Map<string, Value>;
  readonly stores: Map<string, Value>;
}

let current: Graph | undefined;
let scope = "";
let ids = 0;

function tracing(): Graph {
  if (!current) throw new Error("an op was called outside trace()");
  return current;
}

/** Run `body`, which calls ops, and return what it recorded. Synchronous by construction. */
export function trace(body: () => void): Graph {
  const saved = { current, scope };
  const g: Graph = { nodes: [], buffers: new Map(), stores: new Map() };
  current = g;
  scope = "";
  try {
    body();
  } finally {
    ({ current, scope } = saved);
  }
  return g;
}

/** Name the part of the model that `body` traces: `layers.3`. Names show in errors, snapshots and profiles. */
export function inScope<T>(name: string, body: () => T): T {
  return atScope(scope ? `${scope}.${name}` : name, body);
}

/** The same with a whole path: a gradient belongs where its forward stands. */
export function atScope<T>(path: string, body: () => T): T {
  const saved = scope;
  scope = path;
  try {
    return body();
  } finally {
    scope = saved;
  }
}

/** The present content of a named buffer; `class/path` names are the only link between programs. */
export function buffer(name: string, t: Type, within?: Within): Value {
  const g = tracing();
  const old = g.buffers.get(name);
  if (old) {
    need(sameType(old.type, t), () => `buffer ${name}: it is ${show(old.type)} already, got ${show(t)}`);
    return old;
  }
  const v: Value = { id: ids++, type: t, out: name, ...(within && { within }) };
  g.buffers.set(name, v);
  return v;
}

/** When the program ends, buffer `name` holds `v`. The planner makes it in place, or refuses. */
export function store(name: string, v: Value): void {
  tracing().stores.set(name, v);
  buffer(name, v.type);
}

/** Add a node of op `def` to the graph being traced; returns its outputs. */
export function emit(
  def: OpDef,
  given: Readonly<Record<string, Value | undefined>>,
  attrs: Attrs,
  as: string = scope,
): Record<string, Value> {
  const g = tracing();
  const inputs: Record<string, Value> = {};
  for (const k of def.inputs) {
    const v = given[k];
    need(v !== undefined, () => `${def.name}: input ${k} is missing`);
    inputs[k] = v;
  }
  for (const k of def.optional) {
    const v = given[k];
    if (v) inputs[k] = v;
  }
  for (const k in given) need(k in inputs || given[k] === undefined, () => `${def.name}: no input is called ${k}`);
  for (const k in attrs) need(k in def.attrs || attrs[k] === undefined, () => `${def.name}: no attribute is called ${k}`);
  let types: Record<string, Type>;
  try {
    types = def.infer(typesOf(inputs), attrs);
  } catch (e) {
    throw as && e instanceof ShapeError ? new ShapeError(`${e.message} (in ${as})`) : e;
  }
  const outs: Record<string, Value> = {};
  const node: Node = { id: ids++, def, inputs, attrs, outs, scope: as };
  for (const o of Object.keys(types)) {
    need(def.outputs.includes(o), () => `${def.name}: infer returned ${o}, which is no output`);
    if (types[o]) outs[o] = { id: ids++, type: types[o], node, out: o }; // infer leaves unwanted outputs out
  }
  g.nodes.push(node);
  return outs;
}

export const typesOf = (values: Readonly<Record<string, Value>>): Record<string, Type> =>
  Object.fromEntries(Object.entries(values).map(([k, v]) => [k, v.type]));

/** The nodes that the stores depend on. */
export function liveNodes(g: Graph): Set<Node> {
  const live = new Set<Node>();
  const visit = [...g.stores.values()];
  for (let v; (v = visit.pop()); )
    if (v.node && !live.has(v.node)) {
      live.add(v.node);
      visit.push(...Object.values(v.node.inputs));
    }
  return live;
}

type Each = (n: Node, map: (v: Value) => Value, bind: (from: Value, to: Value) => void) => boolean;

/** Rebuild `g`. `each` may emit something else for a node and bind its outputs (true), or have it copied (false). Dead nodes go. */
export function rewrite(g: Graph, each: Each = () => false): Graph {
  const live = liveNodes(g);
  return trace(() => {
    const to = new Map<Value, Value>();
    for (const [name, v] of g.buffers) to.set(v, buffer(name, v.type, v.within));
    const map = (v: Value): Value => {
      const m = to.get(v);
      if (!m) throw new Error(`rewrite: ${v.node?.def.name ?? "buffer"} ${v.out} is used before it exists`);
      return m;
    };
    const bind = (from: Value, value: Value): void => void to.set(from, value);
    for (const n of g.nodes) {
      if (!live.has(n) || each(n, map, bind)) continue;
      const outs = emit(n.def, mapValues(n.inputs, map), n.attrs, n.scope);
      for (const o in n.outs) bind(n.outs[o]!, outs[o]!);
    }
    for (const [name, v] of g.stores) store(name, map(v));
  });
}

export function mapValues<T, U>(r: Readonly<Record<string, T>>, f: (v: T, k: string) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(r).map(([k, v]) => [k, f(v, k)]));
}

/** Which nodes read each value. */
export function users(g: Graph): Map<Value, Node[]> {
  const by = new Map<Value, Node[]>();
  for (const n of g.nodes)
    for (const v of new Set(Object.values(n.inputs))) {
      const list = by.get(v);
      if (list) list.push(n);
      else by.set(v, [n]);
    }
  return by;
}
