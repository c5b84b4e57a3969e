// What an op is: names, rules and declared properties. Passes read the properties; nobody outside lib/ops compares a name.
import { bytes, size, type Dim, type DType, type Type } from "./types.ts";
import { emit, type Value } from "./graph.ts";

/** Attribute kinds. number, boolean and numbers are handed to kernels; the others only shape a node's outputs. */
export interface AttrKinds {
  number: number;
  boolean: boolean;
  numbers: readonly number[];
  dim: Dim;
  dims: readonly Dim[];
  dtype: DType;
  names: readonly string[];
  type: Type;
}
export type AttrKind = keyof AttrKinds;
export type AttrSchema = Readonly<Record<string, AttrKind>>;
export type AttrsOf<S extends AttrSchema> = { readonly [K in keyof S]: AttrKinds[S[K]] };
export type Attrs = Readonly<Record<string, unknown>>;

type All<K extends string, T> = { readonly [P in K]: T };
type Some<K extends string, T> = { readonly [P in K]?: T | undefined };

/** What a gradient rule sees. */
export interface Pullback<I extends string, O extends string> {
  readonly in: { readonly [K in I]: Value };
  readonly out: { readonly [K in O]: Value };
  /** Cotangents; absent when nothing downstream uses that output. */
  readonly d: { readonly [K in O]?: Value };
  /** Inputs whose gradient somebody wants: a frozen weight costs nothing. */
  readonly needs: { readonly [K in I]?: true };
}

/** Floating-point operations and bytes that must cross memory, at the given types. */
export interface Cost {
  readonly flops: number;
  readonly bytes: number;
}

/** Test data for one input. `flex` floats take the dtype under test; the others are what they say. */
export interface SampleInput {
  readonly shape: readonly number[];
  readonly dtype: DType | "flex";
  readonly values: "normal" | "positive" | readonly number[];
  /** In a bench: a weight, of which a device may keep a packed copy. */
  readonly weight?: true;
}
export interface Sample<I extends string = string, A = Attrs> {
  readonly inputs: { readonly [K in I]?: SampleInput };
  readonly attrs: A;
}

/** What a bench asks for: the sizes of a model and its data, by name. An op's `bench` reads those that it knows. */
export interface BenchSizes {
  readonly tokens: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly vocab: number;
  readonly rows: number;
  readonly examples: number;
  readonly mask: "causal" | "packed" | "tree" | "window";
  readonly window: number;
  readonly form: "forward" | "dx" | "dw";
  readonly dtype: DType;
}
/** `share` of the cost's operations are needed with these data: a mask hides the others. Default 1. */
export type BenchSample<I extends string = string, A = Attrs> = Sample<I, A> & { readonly share?: number };

export interface OpDef {
  readonly name: string;
  /** The formula with shapes and source, one paragraph: becomes docs/ops.md. */
  readonly doc: string;
  readonly inputs: readonly string[];
  readonly optional: readonly string[];
  readonly outputs: readonly string[];
  /** Saved statistics: outputs that nothing may differentiate through (rstd, lse). */
  readonly stats: readonly string[];
  /** Float inputs without a gradient, by decision: asking for it is an error. */
  readonly constant: readonly string[];
  readonly attrs: AttrSchema;
  readonly infer: (t: Record<string, Type>, a: Attrs) => Record<string, Type>;
  /** Primitives only: the float64 meaning. */
  readonly eval?: (x: Record<string, Float64Array>, t: Record<string, Type>, a: Attrs, o: Type) => Float64Array;
  /** Kernel ops only: the meaning in primitives. */
  readonly compose?: (x: Record<string, Value>, a: Attrs) => Record<string, Value>;
  grad?: (g: Pullback<string, string>, a: Attrs) => Partial<Record<string, Value | undefined>>;
  /** Output -> input whose storage it may take over when that input dies here. */
  readonly inplace: Readonly<Record<string, string>>;
  /** Output -> optional input that it is added onto (GEMM with beta = 1), in place when that dies here. */
  readonly accumulate: Readonly<Record<string, string>>;
  /** This node is buf + x: what `accumulate` folds into the producer of x. */
  readonly sumOf?: { readonly buf: string; readonly x: string };
  /** The output is this input's bytes under another shape: no instruction. */
  readonly view?: string;
  /** True when devices have a kernel for it. */
  readonly kernel: boolean;
  /** Set on a backward op: what it is the backward of. */
  backwardOf?: OpDef;
  /** Types of inputs and outputs, by name. */
  readonly cost: (t: Record<string, Type>, a: Attrs) => Cost;
  /** What `npm run bench` runs. A backward op has its forward's. */
  readonly bench?: (sizes: BenchSizes) => BenchSample;
  readonly samples: readonly Sample[];
}

export interface OpSpec<I extends string, P extends string, O extends string, S extends AttrSchema> {
  name: string;
  doc: string;
  inputs: readonly I[];
  optional?: readonly P[];
  outputs: readonly O[];
  stats?: readonly NoInfer<O>[];
  constant?: readonly NoInfer<I | P>[];
  attrs?: S;
  infer(t: All<I, Type> & Some<P, Type>, a: AttrsOf<S>): Some<O, Type>;
  compose?(x: All<NoInfer<I>, Value> & Some<NoInfer<P>, Value>, a: AttrsOf<S>): Some<NoInfer<O>, Value>;
  eval?(x: All<NoInfer<I>, Float64Array>, t: All<NoInfer<I>, Type>, a: AttrsOf<S>, o: Type): Float64Array;
  grad?(g: Pullback<NoInfer<I | P>, NoInfer<O>>, a: AttrsOf<S>): Some<NoInfer<I | P>, Value>;
  inplace?: Some<NoInfer<O>, NoInfer<I | P>>;
  accumulate?: Some<NoInfer<O>, NoInfer<P>>;
  sumOf?: { buf: NoInfer<I>; x: NoInfer<I> };
  view?: NoInfer<I>;
  kernel?: boolean;
  cost?(t: All<NoInfer<I>, Type> & Some<NoInfer<P>, Type>, a: AttrsOf<S>): Cost;
  bench?(sizes: BenchSizes): BenchSample<NoInfer<I | P>, AttrsOf<S>>;
  samples?: readonly Sample<NoInfer<I | P>, AttrsOf<S>>[];
}

/** Calling an op traces it. */
export interface Op<I extends string, P extends string, O extends string, S extends AttrSchema> {
  (inputs: All<I, Value> & Some<P, Value>, attrs: AttrsOf<S>): All<O, Value>;
  readonly def: OpDef;
}

const registry = new Map<string, OpDef>();

/** Every op by name, in order of definition. */
export const allOps = (): readonly OpDef[] => [...registry.values()];
export const findOp = (name: string): OpDef | undefined => registry.get(name);
/** Ops with a device kernel, sorted by name: an op's place is its opcode. */
export const kernelOps = (): readonly OpDef[] =>
  allOps()
    .filter((d) => d.kernel)
    .sort((a, b) => (a.name < b.name ? -1 : 1));

let sum: ((a: Value, b: Value) => Value) | undefined;
/** The primitive that adds cotangents; said once, by the room that defines it. */
export function setSum(add: (a: Value, b: Value) => Value): void {
  sum = add;
}
export function addValues(a: Value, b: Value): Value {
  if (!sum) throw new Error("no op declared itself the sum");
  return sum(a, b);
}

/** Define an op and enter it in the registry; the result is the function that traces it. */
export function defineOp<
  const I extends string,
  const O extends string,
  const P extends string = never,
  const S extends AttrSchema = Record<never, never>,
>(spec: OpSpec<I, P, O, S>): Op<I, P, O, S> {
  if (registry.has(spec.name)) throw new Error(`defineOp: ${spec.name} is defined twice`);
  const defaults = { optional: [], stats: [], constant: [], attrs: {}, inplace: {}, accumulate: {}, kernel: true, samples: [] };
  const def = { ...defaults, cost: streamCost, ...spec } as unknown as OpDef; // the one erasure of op types
  registry.set(def.name, def);
  const call = (inputs: object, attrs: object): All<O, Value> =>
    emit(def, inputs as Record<string, Value | undefined>, attrs as Attrs) as All<O, Value>;
  return Object.assign(call, { def });
}

/** Default cost: every input read once, every output written once, one operation an element. */
function streamCost(t: Record<string, Type>): Cost {
  const all = Object.values(t);
  return { flops: Math.max(0, ...all.map(size)), bytes: all.reduce((n, x) => n + bytes(x), 0) };
}
