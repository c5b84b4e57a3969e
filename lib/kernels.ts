// Single ops on typed arrays: a one-op program on a device. `import { run, attention } from "attune/kernels"`.
import "./ops/index.ts";
import { ConfigError, ShapeError } from "./errors.ts";
import { buffer, emit, store, trace } from "./ir/graph.ts";
import type { AttrSchema, AttrsOf, Op } from "./ir/op.ts";
import { show, size, type as typeOf, type DType, type Type } from "./ir/types.ts";
import { adamwOp, sumSquaresOp } from "./ops/adamw.ts";
import { attentionOp } from "./ops/attention.ts";
import { attentionDecodeOp } from "./ops/attention_decode.ts";
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
import { Session, type DeviceName } from "./runtime/session.ts";

export type { DType } from "./ir/types.ts";
/** Float32Array is float32, Int32Array int32, Uint16Array the bits of bfloat16. */
export type HostArray = Float32Array | Int32Array | Uint16Array;

/** A typed array with a shape, row-major. */
export interface Tensor {
  readonly data: HostArray;
  readonly shape: readonly number[];
}
/** A typed array alone stands for a vector. */
export type TensorLike = Tensor | HostArray;

/** An op's inputs by name: those of `I` must be there, those of `P` may. */
export type Inputs<I extends string, P extends string> = { readonly [K in I]: TensorLike } & { readonly [K in P]?: TensorLike | undefined };

/** Where an op runs. */
export interface RunOptions {
  /** Default auto: the best device of this machine. */
  readonly device?: DeviceName;
  /** Default: the cores this process may use. Results do not depend on it. */
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
 * Run one op and return its outputs by name. `attrs` left out take 0, false or float32. Shapes and formulas stand at each op below.
 * Throws ShapeError (shapes, dtypes), ConfigError (unknown names) or DeviceError.
 */
export async function run<I extends string, P extends string, O extends string, S extends AttrSchema>(
  op: Op<I, P, O, S>,
  inputs: Inputs<I, P>,
  attrs: Partial<AttrsOf<S>> = {},
  options: RunOptions = {},
): Promise<Record<O, Tensor>> {
  const { def } = op;
  const known = [...def.inputs, ...def.optional];
  const arrays = Object.entries<TensorLike | undefined>(inputs).flatMap(([k, x]) => (x === undefined ? [] : [[k, asTensor(x)] as const]));
  const wanted: Readonly<Record<string, unknown>> = attrs;
  for (const k of Object.keys(inputs)) if (!known.includes(k)) throw new ConfigError(`${def.name}: inputs are ${known.join(", ")}, got ${k}`);
  for (const k of Object.keys(attrs)) if (!(k in def.attrs)) throw new ConfigError(`${def.name}: attributes are ${Object.keys(def.attrs).join(", ") || "none"}, got ${k}`);
  const given = Object.fromEntries(arrays);
  const full = Object.fromEntries(Object.entries(def.attrs).map(([k, kind]) => [k, wanted[k] ?? neutral[kind]]));
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

/**
 * y (N,C) = w (C) x (N,C) rstd (N), rstd = 1 / sqrt(mean of x^2 + eps).
 *
 * @see arXiv:1910.07467 eq. 4
 */
export const rmsNorm = rmsNormOp;

/** y (m,n) = op(a) op(b) + bias (n) + onto (m,n), where ta and tb transpose; a is (m,k) and b (k,n) after that. Sums in float32; `dtype` is y's. */
export const gemm = gemmOp;

/**
 * y (N,F) = silu(x[:, :F]) x[:, F:] of x (N,2F), silu(z) = z sigmoid(z).
 *
 * @see arXiv:2002.05202
 */
export const swiglu = swigluOp;

/**
 * cos and sin (N,D/2) of pos (N) times freq (D/2, radians per position), the angles formed in float64.
 *
 * @see arXiv:2104.09864
 */
export const ropeTable = ropeTableOp;

/**
 * Split qkv (N,(H+2K)D) into q (N,H,D), k and v (N,K,D); normalise the heads of q and k by q_norm and k_norm (D) where given (rstd (N,H+K)); rotate
 * q and k by cos and sin (N,D/2) over half-heads.
 *
 * @see arXiv:2104.09864, Hugging Face's half-split layout
 */
export const qkvRope = qkvRopeOp;

/**
 * y (N,H,D) = softmax(scale q k^T) v of q (N,H,D), k and v (N,K,D) over visible keys; lse (H,N). Key j is visible to query i iff j <= i < end[j] (end (N),
 * int32) and, where window > 0, pos[i] - pos[j] < window. A query that sees nothing gives y = 0 and lse = infinity.
 *
 * @see arXiv:1706.03762 eq. 1, arXiv:2205.14135
 */
export const attention = attentionOp;

/** y (S,H,D): the query q (S,H,D) of slot s attends to the first len[s] places of k and v (S,L,K,D), to the last `window` of them where window > 0; len 0 gives 0. */
export const attentionDecode = attentionDecodeOp;

/** y (M,C) = x (R,C) at rows idx (M); a negative index gives zeros. */
export const gatherRows = gatherRowsOp;

/** y (segments) = sums of x (M) by seg (M), in ascending order; a negative segment is dropped. */
export const segmentSum = segmentSumOp;

/**
 * logp (M) = logits (M,V) at targets (M) - lse (M), in nats; entropy, hit (1 where the target is the arg-max) and the logits' mean, each (M), beside. A negative
 * target gives 0.
 */
export const logSoftmaxGather = logSoftmaxGatherOp;

/**
 * logSoftmaxGather of hidden (M,C) times weight (V,C) transposed at targets (M), in tiles of the vocabulary: logp, lse, entropy, hit and mean with no logits
 * in memory. With `keep` also tops (M, V/192), the highest logit of each 192 columns, and shares (M,V) = e^(logit - top) in the type of hidden.
 *
 * @see arXiv:2411.09009
 */
export const linearLogprob = linearLogprobOp;

/**
 * loss (P) = -(1-s) ln sigmoid(d) - s ln sigmoid(-d), d = beta ((chosen - ref_chosen) - (rejected - ref_rejected)), log-probabilities (P) in nats, s =
 * labelSmoothing.
 *
 * @see arXiv:2305.18290 eq. 7
 */
export const dpoLoss = dpoLossOp;

/** y () = onto () + the sum of x^2, accumulated in float64; the same bits on any number of threads. */
export const sumSquares = sumSquaresOp;

/**
 * One AdamW update of w from the gradient g, moments m and v (all of one shape), scalars scale, lr, bias1 = 1 - beta1^t and bias2 = 1 - beta2^t; `master` is the
 * float32 copy where w is bfloat16. Gives w2, master2, m2 and v2.
 *
 * @see arXiv:1711.05101, torch.optim.AdamW
 */
export const adamw = adamwOp;
