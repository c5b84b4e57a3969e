// The optimiser's two programs: the gradient norm, and one AdamW update of all parameters with the clipping factor in hand.
// Between them the run looks at the norm: a gradient that is not finite stops it before any weight has changed.
import { flat, type Part } from "../ir/flat.ts";
import { buffer, store, trace, type Graph, type Value } from "../ir/graph.ts";
import { type, type DType } from "../ir/types.ts";
import { adamwOp, sumSquares } from "../ops/adamw.ts";

/** What the optimiser must know of a parameter. */
export interface Trained extends Part {
  readonly decay: boolean;
}
export interface AdamwOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
}

/** outputs/sum_squares: the squared norm of all gradients. */
export function normProgram(parameters: readonly Trained[]): Graph {
  return trace(() => store("outputs/sum_squares", sumSquares(flat("grads", parameters).all())));
}

/** Neighbours in memory that decay alike, which one op updates: two runs where those with decay come first. */
function runsOf(parameters: readonly Trained[]): { readonly first: Trained; readonly last: Trained }[] {
  const starts = parameters.flatMap((p, i) => (p.decay === parameters[i - 1]?.decay ? [] : [i]));
  return starts.map((at, k) => ({ first: parameters[at]!, last: parameters[(starts[k + 1] ?? parameters.length) - 1]! }));
}

/**
 * inputs/{scale, lr, bias1, bias2} (scalars) -> weights, moments and, for bfloat16 weights, float32 masters updated.
 * `parameters` stand in the order in which they lie in memory; `scale` is the clipping factor; bias1 = 1 - beta1^t, bias2 = 1 - beta2^t.
 */
export function updateProgram(parameters: readonly Trained[], dtype: DType, a: AdamwOptions): Graph {
  return trace(() => {
    const input = (name: string): Value => buffer(`inputs/${name}`, type([]));
    const scalars = { scale: input("scale"), lr: input("lr"), bias1: input("bias1"), bias2: input("bias2") };
    const weights = flat("weights", parameters, dtype);
    const master = dtype === "float32" ? undefined : flat("optimizer/master", parameters);
    const [grads, means, squares] = [flat("grads", parameters), flat("optimizer/m", parameters), flat("optimizer/v", parameters)];
    for (const { first, last } of runsOf(parameters)) {
      const [w, g, m, v] = [weights, grads, means, squares].map((f) => f.span(first.name, last.name)) as [Value, Value, Value, Value];
      const p = master?.span(first.name, last.name);
      const r = adamwOp({ g, m, v, ...scalars, w, master: p }, { beta1: a.beta1, beta2: a.beta2, eps: a.eps, decay: first.decay ? a.weightDecay : 0 });
      store(w.out, r.w2);
      if (p) store(p.out, r.master2);
      store(m.out, r.m2);
      store(v.out, r.v2);
    }
  });
}

/** torch.nn.utils.clip_grad_norm_: the factor that brings `norm` to at most `maxNorm`; 1 where maxNorm is 0. */
export function clipFactor(norm: number, maxNorm: number): number {
  return maxNorm > 0 ? Math.min(1, maxNorm / (norm + 1e-6)) : 1;
}
