// Elementwise primitives: float64 meaning and gradient, a line or two each. Arguments align as in numpy, by explicit broadcast nodes.
import type { Value } from "../../ir/graph.ts";
import { defineOp, setSum } from "../../ir/op.ts";
import { need, sameShape, show, type, type Dim, type DType } from "../../ir/types.ts";
import { normal, normal32, positive, positive32 } from "../samples.ts";
import { broadcast } from "./shape.ts";

const fillOp = defineOp({
  name: "fill",
  doc: "y[...] = value.",
  inputs: [],
  outputs: ["y"],
  attrs: { value: "number", shape: "dims", dtype: "dtype" },
  infer: (_, a) => ({ y: type(a.shape, a.dtype) }),
  eval: (_x, _t, a, o) => new Float64Array(o.shape.reduce<number>((n, d) => n * (d as number), 1)).fill(a.value),
  bench: (d) => ({ inputs: {}, attrs: { value: -2.5, shape: [d.examples], dtype: "float32" } }),
  samples: [{ inputs: {}, attrs: { value: -2.5, shape: [3, 5], dtype: "float32" } }],
});
export function fill(value: number, shape: readonly Dim[], dtype: DType = "float32"): Value {
  return fillOp({}, { value, shape, dtype }).y;
}

const iotaOp = defineOp({
  name: "iota",
  doc: "y[i] = i, int32.",
  inputs: [],
  outputs: ["y"],
  attrs: { n: "dim" },
  infer: (_, a) => ({ y: type([a.n], "int32") }),
  eval: (_x, _t, _a, o) => Float64Array.from({ length: o.shape[0] as number }, (_, i) => i),
  bench: (d) => ({ inputs: {}, attrs: { n: d.examples } }),
  samples: [{ inputs: {}, attrs: { n: 7 } }],
});
export function iota(n: Dim): Value {
  return iotaOp({}, { n }).y;
}

type Unary = (x: Value) => Value;
type Binary = (a: Value, b: Value | number) => Value;

function map1(name: string, doc: string, f: (x: number) => number, grad: (x: Value, y: Value, d: Value) => Value, kernel = true): Unary {
  const op = defineOp({
    name,
    doc,
    inputs: ["x"],
    outputs: ["y"],
    inplace: { y: "x" },
    kernel,
    infer: (t) => ({ y: type(t.x.shape, "float32") }),
    eval: (v) => v.x.map(f),
    grad: (g) => ({ x: g.d.y && grad(g.in.x, g.out.y, g.d.y) }),
    bench: (d) => ({ inputs: { x: positive(d.examples) }, attrs: {} }),
    samples: [{ inputs: { x: name === "log" || name === "rsqrt" ? positive(3, 7) : normal(3, 7) }, attrs: {} }],
  });
  return (x) => op({ x }, {}).y;
}

type Grad2 = (a: Value, b: Value, y: Value, d: Value) => { a?: Value; b?: Value };

function map2(name: string, doc: string, f: (a: number, b: number) => number, grad: Grad2, sums = false): Binary {
  const compares = name === "less" || name === "equal";
  const op = defineOp({
    name,
    doc,
    inputs: ["a", "b"],
    outputs: ["y"],
    inplace: { y: "a" },
    ...(sums && { sumOf: { buf: "a" as const, x: "b" as const } }),
    infer: (t) => {
      need(sameShape(t.a.shape, t.b.shape), () => `${name}: a and b must have one shape, got ${show(t.a)} and ${show(t.b)}`);
      return { y: type(t.a.shape, compares ? "float32" : t.a.dtype) };
    },
    eval: (v) => v.a.map((p, i) => f(p, v.b[i]!)),
    grad: (g) => (g.d.y ? grad(g.in.a, g.in.b, g.out.y, g.d.y) : {}),
    bench: (d) => ({ inputs: { a: normal(d.examples), b: positive(d.examples) }, attrs: {} }),
    samples: [{ inputs: { a: normal(2, 9), b: name === "div" ? positive(2, 9) : normal(2, 9) }, attrs: {} }],
  });
  return (a, b) => {
    const [p, q] = align(a, b);
    return op({ a: p, b: q }, {}).y;
  };
}

function align(a: Value, b: Value | number): [Value, Value] {
  if (typeof b === "number") return [a, fill(b, a.type.shape, a.type.dtype)];
  const rank = Math.max(a.type.shape.length, b.type.shape.length);
  const at = (v: Value, i: number): Dim => v.type.shape[i - rank + v.type.shape.length] ?? 1;
  const shape = Array.from({ length: rank }, (_, i) => (at(a, i) === 1 ? at(b, i) : at(a, i)));
  return [broadcast(a, shape), broadcast(b, shape)];
}

const half = (a: Value): Value => fill(0.5, a.type.shape);

export const add: Binary = map2("add", "y = a + b.", (a, b) => a + b, (_a, _b, _y, d) => ({ a: d, b: d }), true);
export const mul: Binary = map2("mul", "y = a b.", (a, b) => a * b, (a, b, _y, d) => ({ a: mul(d, b), b: mul(d, a) }));
export const div: Binary = map2("div", "y = a / b.", (a, b) => a / b, (_a, b, y, d) => ({ a: div(d, b), b: neg(div(mul(d, y), b)) }));
/** Ties give half each: the subgradient that keeps a kink symmetric. */
export const max: Binary = map2("max", "y = max(a, b); a tie's gradient is halved.", Math.max, (a, b, _y, d) => ({
  a: mul(d, select(equal(a, b), half(a), less(b, a))),
  b: mul(d, select(equal(a, b), half(a), less(a, b))),
}));
export const less: Binary = map2("less", "y = 1 where a < b, else 0.", (a, b) => +(a < b), () => ({}));
export const equal: Binary = map2("equal", "y = 1 where a = b, else 0.", (a, b) => +(a === b), () => ({}));
export const exp: Unary = map1("exp", "y = e^x.", Math.exp, (_x, y, d) => mul(d, y));
export const log: Unary = map1("log", "y = ln x.", Math.log, (x, _y, d) => div(d, x));
export const rsqrt: Unary = map1("rsqrt", "y = 1 / sqrt(x).", (x) => 1 / Math.sqrt(x), (_x, y, d) => mul(d, mul(mul(mul(y, y), y), -0.5)));
export const cos: Unary = map1("cos", "y = cos x; no device needs it.", Math.cos, (x, _y, d) => neg(mul(d, sin(x))), false);
export const sin: Unary = map1("sin", "y = sin x; no device needs it.", Math.sin, (x, _y, d) => mul(d, cos(x)), false);
/** A primitive of its own: composed of max, its gradient at 0, where every DPO run starts, would depend on how ties are split. */
export const logSigmoid: Unary = map1(
  "log_sigmoid",
  "y = ln(1 / (1 + e^-x)), evaluated as min(x, 0) - log1p(e^-|x|).",
  (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x))),
  (x, _y, d) => mul(d, sigmoid(neg(x))),
);

export const neg: Unary = (x) => mul(x, -1);
export const sub = (a: Value, b: Value): Value => add(a, neg(b));
export const sigmoid: Unary = (x) => exp(logSigmoid(x));
export const not: Unary = (m) => sub(fill(1, m.type.shape), m);

const selectOp = defineOp({
  name: "select",
  doc: "y = a where m is not 0, else b.",
  inputs: ["m", "a", "b"],
  outputs: ["y"],
  infer: (t) => {
    need(sameShape(t.m.shape, t.a.shape) && sameShape(t.a.shape, t.b.shape), () => `select: m, a and b must have one shape, got ${show(t.m)}, ${show(t.a)}, ${show(t.b)}`);
    return { y: t.a };
  },
  eval: (v) => v.a.map((p, i) => (v.m[i] ? p : v.b[i]!)),
  grad: (g) => {
    const d = g.d.y!;
    const zero = fill(0, d.type.shape);
    return { a: select(g.in.m, d, zero), b: select(g.in.m, zero, d) };
  },
  bench: (d) => ({ inputs: { m: positive32(d.examples), a: normal(d.examples), b: normal(d.examples) }, attrs: {} }),
  samples: [{ inputs: { m: { shape: [6], dtype: "float32", values: [0, 1, 1, 0, 1, 0] }, a: normal(6), b: normal(6) }, attrs: {} }],
});
export function select(m: Value, a: Value, b: Value | number): Value {
  const [p, q] = align(a, b);
  return selectOp({ m: broadcast(m, p.type.shape), a: p, b: q }, {}).y;
}

const castOp = defineOp({
  name: "cast",
  doc: "y = x in another dtype (nearest even).",
  inputs: ["x"],
  outputs: ["y"],
  attrs: { to: "dtype" },
  infer: (t, a) => ({ y: type(t.x.shape, a.to) }),
  eval: (v) => v.x,
  grad: (g) => ({ x: g.d.y && cast(g.d.y, g.in.x.type.dtype) }),
  bench: (d) => ({ inputs: { x: normal32(d.examples) }, attrs: { to: "bfloat16" } }),
  samples: [
    { inputs: { x: normal(4, 5) }, attrs: { to: "bfloat16" } },
    { inputs: { x: normal(4, 5) }, attrs: { to: "float32" } },
  ],
});
export function cast(x: Value, to: DType): Value {
  return x.type.dtype === to ? x : castOp({ x }, { to }).y;
}

setSum((a, b) => add(a, b));
