// Layers: plain functions from values to values, named as in the checkpoint.
import type { Value } from "../ir/graph.ts";
import { linear } from "../ops/gemm.ts";
import { add } from "../ops/primitives/elementwise.ts";
import { rmsNorm } from "../ops/rms_norm.ts";
import { swiglu } from "../ops/swiglu.ts";
import type { Params } from "./params.ts";

/** x (N, in) -> (N, out) by `name`.weight (out, in) and, where the model has one, `name`.bias (out). */
export function project(w: Params, x: Value, name: string): Value {
  return linear(x, w.get(`${name}.weight`), w.find(`${name}.bias`));
}

/** RMSNorm of x (N, C) by `name`.weight (C). */
export function norm(w: Params, x: Value, name: string, eps: number): Value {
  return rmsNorm(x, w.get(`${name}.weight`), eps);
}

/** The gated MLP with its residual: x + down(swiglu(gate_up(h))). The sum folds into the product. */
export function mlp(w: Params, x: Value, h: Value, prefix: string): Value {
  return add(x, project(w, swiglu(project(w, h, `${prefix}.gate_up_proj`)), `${prefix}.down_proj`));
}
