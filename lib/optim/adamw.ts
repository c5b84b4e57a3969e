// The optimiser's two programs: the gradient norm, and one AdamW update of every parameter with the clipping factor in hand.
// Between them the run looks at the norm: a gradient that is not finite stops it before any weight has changed.
import { buffer, inScope, store, trace, type Graph, type Value } from "../ir/graph.ts";
import { type, type DType } from "../ir/types.ts";
import { adamwOp, sumSquares } from "../ops/adamw.ts";
import { gradients } from "./gradients.ts";

/** What the optimiser must know of a parameter. */
export interface Trained {
  /** Buffer name without its class. */
  readonly name: string;
  readonly shape: readonly number[];
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
  return trace(() => store("outputs/sum_squares", sumSquares(gradients(parameters).all())));
}

/**
 * inputs/{scale, lr, bias1, bias2} (scalars) -> weights, moments and, for bfloat16 weights, float32 masters updated; gradients zeroed.
 * `scale` is the clipping factor; bias1 = 1 - beta1^t, bias2 = 1 - beta2^t.
 */
export function updateProgram(parameters: readonly Trained[], dtype: DType, a: AdamwOptions): Graph {
  return trace(() => {
    const input = (name: string): Value => buffer(`inputs/${name}`, type([]));
    const scalars = { scale: input("scale"), lr: input("lr"), bias1: input("bias1"), bias2: input("bias2") };
    const grads = gradients(parameters);
    for (const p of parameters) {
      const state = (cls: string): Value => buffer(`optimizer/${cls}/${p.name}`, type(p.shape));
      const r = inScope(p.name, () =>
        adamwOp(
          {
            g: grads.of(p.name),
            m: state("m"),
            v: state("v"),
            ...scalars,
            w: buffer(`weights/${p.name}`, type(p.shape, dtype)),
            master: dtype === "float32" ? undefined : state("master"),
          },
          { beta1: a.beta1, beta2: a.beta2, eps: a.eps, decay: p.decay ? a.weightDecay : 0 },
        ),
      );
      store(`weights/${p.name}`, r.w2);
      if (dtype !== "float32") store(`optimizer/master/${p.name}`, r.master2);
      store(`optimizer/m/${p.name}`, r.m2);
      store(`optimizer/v/${p.name}`, r.v2);
      store(`grads/${p.name}`, r.g2);
    }
  });
}

/** torch.nn.utils.clip_grad_norm_: the factor that brings `norm` to at most `maxNorm`; 1 where maxNorm is 0. */
export function clipFactor(norm: number, maxNorm: number): number {
  return maxNorm > 0 ? Math.min(1, maxNorm / (norm + 1e-6)) : 1;
}
