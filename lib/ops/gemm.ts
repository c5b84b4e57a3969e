// gemm: the matrix product of every projection, forward and backward.
import type { Value } from "../ir/graph.ts";
import { defineOp } from "../ir/op.ts";
import { bytes, cap, need, sameDim, show, size, type, type DType } from "../ir/types.ts";
import { add } from "./primitives/elementwise.ts";
import { matmul } from "./primitives/reduce.ts";
import { normal, normal32, weight } from "./samples.ts";
import { sumRows } from "./sum_rows.ts";

export const gemmOp = defineOp({
  name: "gemm",
  doc: "y (m,n) = op(a) op(b) + bias (n) + onto (m,n), op = transpose where ta / tb. Sums in float32 whatever the dtype.",
  inputs: ["a", "b"],
  optional: ["bias", "onto"],
  outputs: ["y"],
  attrs: { ta: "boolean", tb: "boolean", dtype: "dtype" },
  accumulate: { y: "onto" },
  infer: (t, { ta, tb, dtype }) => {
    need(t.a.shape.length === 2 && t.b.shape.length === 2, () => `gemm: a and b must be matrices, got ${show(t.a)} and ${show(t.b)}`);
    const [m, k] = ta ? [t.a.shape[1]!, t.a.shape[0]!] : [t.a.shape[0]!, t.a.shape[1]!];
    const [k2, n] = tb ? [t.b.shape[1]!, t.b.shape[0]!] : [t.b.shape[0]!, t.b.shape[1]!];
    const names = (): string => `${show(t.a)}${ta ? "^T" : ""} and ${show(t.b)}${tb ? "^T" : ""}`;
    need(sameDim(k, k2), () => `gemm: the inner sizes must agree, got ${names()}`);
    need(t.a.dtype === t.b.dtype, () => `gemm: a and b must have one dtype, got ${names()}`);
    need(!t.bias || (t.bias.shape.length === 1 && sameDim(t.bias.shape[0]!, n)), () => `gemm: bias must have ${cap(n)} elements, got ${show(t.bias!)}`);
    need(!t.onto || size(t.onto) === cap(m) * cap(n), () => `gemm: onto must be ${cap(m)} x ${cap(n)}, got ${show(t.onto!)}`);
    return { y: type([m, n], t.onto?.dtype ?? dtype) };
  },
  compose: ({ a, b, bias, onto }, { ta, tb }) => {
    let y = matmul(a, b, ta, tb);
    if (bias) y = add(y, bias);
    return { y: onto ? add(onto, y) : y };
  },
  // Closed under differentiation: no backward op.
  grad: (g, { ta, tb }) => {
    const d = g.d.y!;
    const { a, b } = g.in;
    return {
      onto: d,
      bias: g.needs.bias && sumRows(d),
      a: g.needs.a && (ta ? gemm(b, d, tb, true, a.type.dtype) : gemm(d, b, false, !tb, a.type.dtype)),
      b: g.needs.b && (tb ? gemm(d, a, true, ta, b.type.dtype) : gemm(a, d, !ta, false, b.type.dtype)),
    };
  },
  cost: (t, { ta, tb }) => {
    const m = cap(t.a.shape[ta ? 1 : 0]!);
    const n = cap(t.b.shape[tb ? 0 : 1]!);
    return { flops: 2 * size(t.a) * n, bytes: bytes(t.a) + bytes(t.b) + m * n * 4 };
  },
  bench: (d) => {
    const x = normal(d.tokens, d.hidden);
    const dy = normal(d.tokens, d.intermediate);
    const w = weight(d.intermediate, d.hidden);
    if (d.form === "dw") return { inputs: { a: dy, b: x, onto: normal32(d.intermediate, d.hidden) }, attrs: { ta: true, tb: false, dtype: "float32" } };
    return { inputs: { a: d.form === "dx" ? dy : x, b: w }, attrs: { ta: false, tb: d.form !== "dx", dtype: d.dtype } };
  },
  samples: [
    ...[[false, true], [false, false], [true, false], [true, true]].map(([ta, tb]) => ({
      inputs: { a: ta ? normal(37, 29) : normal(29, 37), b: tb ? normal(35, 37) : normal(37, 35) },
      attrs: { ta: ta!, tb: tb!, dtype: "float32" as const },
    })),
    { inputs: { a: normal(130, 72), b: normal(65, 72), bias: normal(65) }, attrs: { ta: false, tb: true, dtype: "float32" } },
    { inputs: { a: normal(61, 70), b: normal(61, 33), onto: normal32(70, 33) }, attrs: { ta: true, tb: false, dtype: "float32" } },
    { inputs: { a: normal(17, 40), b: normal(24, 40), onto: normal(17, 24) }, attrs: { ta: false, tb: true, dtype: "float32" } },
    { inputs: { a: normal(1, 8), b: normal(1, 8) }, attrs: { ta: false, tb: true, dtype: "float32" } },
    { inputs: { a: normal(0, 24), b: normal(40, 24) }, attrs: { ta: false, tb: true, dtype: "float32" } },
    { inputs: { a: normal(0, 24), b: normal(0, 40) }, attrs: { ta: true, tb: false, dtype: "float32" } }, // an unused chunk of the head
    { inputs: { a: normal(0, 24), b: normal(0, 40), onto: normal32(24, 40) }, attrs: { ta: true, tb: false, dtype: "float32" } },
    { inputs: { a: normal(129, 136), b: normal(200, 136) }, attrs: { ta: false, tb: true, dtype: "float32" } },
  ],
});

/** op(a) . op(b): matrices, each optionally transposed; sums in float32, stored as `dtype` (default a's). */
export function gemm(a: Value, b: Value, ta = false, tb = false, dtype: DType = a.type.dtype): Value {
  return gemmOp({ a, b }, { ta, tb, dtype }).y;
}

/** x . w^T + bias: a layer with torch's weight layout, w (out, in). */
export function linear(x: Value, w: Value, bias?: Value, dtype: DType = x.type.dtype): Value {
  return gemmOp({ a: x, b: w, bias }, { ta: false, tb: true, dtype }).y;
}

