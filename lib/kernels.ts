// Single ops on typed arrays: a one-op program on a device. `import { run, attention } from "attune/kernels"`.
import "./ops/index.ts";
import { ConfigError, ShapeError } from "./errors.ts";
import { buffer, emit, store, trace } from "./ir/graph.ts";
import { type Op, type OpDef } from "./ir/op.ts";
import { show, size, type as typeOf, type DType, type Type } from "./ir/types.ts";
import { adamwOp, sumSquaresOp } from "./ops/adamw.ts";
import { attentionDecodeOp, attentionOp } from "./ops/attention.ts";
import { dpoLossOp } from "./ops/dpo_loss.ts";
import { gatherRowsOp } from "./ops/gather_rows.ts";
import { gemmOp } from "./ops/gemm.ts";
import { linearLogprobOp } from "./ops/linear_logprob.ts";
import { logSoftmaxGatherOp } from "./ops/log_softmax_gather.ts";
import { rmsNormOp } from "./ops/rms_norm.ts";
import { qkvRopeOp, ropeTableOp } from "./ops/rope.ts";
import { segmentSumOp } from "./ops/segment.ts";
import { swigluOp } from "./ops/swiglu.ts";
import { compile } from "./passes/compile.ts";
import { encode, tableHash } from "./program/encode.ts";
import { scratchOf } from "./runtime/host.ts";
import { Session } from "./runtime/session.ts";

export type { DType } from "./ir/types.ts";
type HostArray = Float32Array | Int32Array | Uint16Array;

/** A typed array with a shape. Float32Array is float32, Int32Array int32, Uint16Array the bits of bfloat16. */
export interface Tensor {
  readonly data: HostArray;
  readonly shape: readonly number[];
}
/** A typed array alone stands for a vector. */
export type TensorLike = Tensor | HostArray;

export interface RunOptions {
  readonly device?: "auto" | "cpu" | "null" | "cuda";
  readonly threads?: number;
}

/** Give a typed array a shape. Throws ShapeError unless the sizes agree. */
export function tensor(data: HostArray, shape: readonly number[]): Tensor {
  const n = shape.reduce((a, b) => a * b, 1);
  if (n !== data.length) throw new ShapeError(`tensor: shape [${shape.join(",")}] must have ${data.length} elements, got ${n}`);
  return { data, shape };
}

const dtypeOf = (a: HostArray): DType => (a instanceof Float32Array ? "float32" : a instanceof Int32Array ? "int32" : "bfloat16");
const asTensor = (x: TensorLike): Tensor => ("shape" in x ? tensor(x.data, x.shape) : { data: x, shape: [x.length] });
const neutral = { number: 0, boolean: false, dtype: "float32" } as Readonly<Record<string, unknown>>;

/**
 * Run one op and return its outputs by name. `attrs` left out take 0, false or float32.
 * Throws ShapeError (shapes, dtypes), ConfigError (unknown names) or DeviceError.
 */
export async function run<I extends string, P extends string, O extends string>(
  op: Op<I, P, O, never> | { readonly def: OpDef },
  inputs: Readonly<Record<string, TensorLike>>,
  attrs: Readonly<Record<string, unknown>> = {},
  options: RunOptions = {},
): Promise<Record<O, Tensor>> {
  const { def } = op;
  const known = [...def.inputs, ...def.optional];
  for (const k of Object.keys(inputs)) if (!known.includes(k)) throw new ConfigError(`${def.name}: inputs are ${known.join(", ")}, got ${k}`);
  for (const k of Object.keys(attrs)) if (!(k in def.attrs)) throw new ConfigError(`${def.name}: attributes are ${Object.keys(def.attrs).join(", ") || "none"}, got ${k}`);
  const given = Object.fromEntries(Object.entries(inputs).map(([k, x]) => [k, asTensor(x)]));
  const full = Object.fromEntries(Object.entries(def.attrs).map(([k, kind]) => [k, attrs[k] ?? neutral[kind]]));
  const types = new Map<string, Type>();
  const graph = trace(() => {
    const values = Object.fromEntries(Object.entries(given).map(([k, t]) => [k, buffer(`inputs/${k}`, typeOf(t.shape, dtypeOf(t.data)))]));
    for (const [o, v] of Object.entries(emit(def, values, full))) {
      types.set(o, v.type);
      store(`outputs/${o}`, v);
    }
  });
  const session = Session.create({ device: options.device ?? "auto", tableHash: tableHash(), ...(options.threads && { threads: options.threads }) });
  try {
    const program = await session.load(encode(compile(graph, scratchOf(session.device))));
    const out = await session.run(program, { inputs: Object.fromEntries(Object.entries(given).map(([k, t]) => [`inputs/${k}`, t.data])) });
    return Object.fromEntries([...types].map(([o, t]) => [o, tensor(check(out[`outputs/${o}`] as HostArray, t), t.shape as number[])])) as Record<O, Tensor>;
  } finally {
    await session.close();
  }
}

function check(data: HostArray, t: Type): HostArray {
  if (data.length !== size(t)) throw new ShapeError(`run: ${show(t)} expected, got ${data.length} elements`);
  return data;
}

export {
  adamwOp as adamw,
  attentionDecodeOp as attentionDecode,
  attentionOp as attention,
  dpoLossOp as dpoLoss,
  gatherRowsOp as gatherRows,
  gemmOp as gemm,
  linearLogprobOp as linearLogprob,
  logSoftmaxGatherOp as logSoftmaxGather,
  qkvRopeOp as qkvRope,
  rmsNormOp as rmsNorm,
  ropeTableOp as ropeTable,
  segmentSumOp as segmentSum,
  sumSquaresOp as sumSquares,
  swigluOp as swiglu,
};
