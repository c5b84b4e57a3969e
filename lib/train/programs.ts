// The programs of a run: one micro-step (forward, loss, backward, gradients added where they are computed), the same without
// gradients, and the update.
// The head's rows come in chunks, and each chunk's backward runs before the next chunk's forward, because that is the order of the calls.
import { dim, hiddenStates, input, type ModelSpec } from "../engine/programs.ts";
import { flat } from "../ir/flat.ts";
import { buffer, inScope, store, trace, type Graph, type Value } from "../ir/graph.ts";
import { type, type DType } from "../ir/types.ts";
import { vjp } from "../ir/vjp.ts";
import { negativeLogLikelihood } from "../losses/language_model.ts";
import { preferenceLosses, type PreferenceLossType, type PreferenceOptions } from "../losses/preference.ts";
import { embed, headWeight, learningIds } from "../models/transformer.ts";
import { Params } from "../nn/params.ts";
import { gatherRows } from "../ops/gather_rows.ts";
import { linear } from "../ops/gemm.ts";
import { linearLogprob } from "../ops/linear_logprob.ts";
import { logSoftmaxGather, type Logprobs } from "../ops/log_softmax_gather.ts";
import { add, fill, mul } from "../ops/primitives/elementwise.ts";
import { sum } from "../ops/primitives/reduce.ts";
import { reshape } from "../ops/primitives/shape.ts";
import { segmentSum } from "../ops/segment.ts";

export { normProgram, updateProgram } from "../optim/adamw.ts";

/** Capacities of one program. */
export interface Sizes {
  /** Packed tokens of a micro-batch. */
  readonly tokens: number;
  /** Rows with a loss in one chunk of the head. */
  readonly rows: number;
  /** Examples in one chunk. */
  readonly examples: number;
  readonly chunks: number;
}
/** The buffer in which all gradients lie: a step's first micro-batch overwrites it. */
export const GRADIENTS = "grads/all";
/** What the head keeps of its logits for their gradient: themselves, in fp32; their shares of the softmax, in the model's type; nothing, so that they are computed twice. */
export type Kept = "logits" | "shares" | "nothing";
export type LossSpec =
  { readonly kind: "sft" } | ({ readonly kind: "dpo"; readonly lossType: PreferenceLossType } & PreferenceOptions);

/** Rows of `hidden` with a loss in chunk k, and their targets: inputs/{rows, targets}.k */
function chunk(hidden: Value, k: number, s: Sizes): { h: Value; targets: Value } {
  const m = dim(`rows.${k}`, s.rows);
  return { h: gatherRows(hidden, input(`rows.${k}`, m)), targets: input(`targets.${k}`, m) };
}

/**
 * The losses of the head's chunks over `hidden`; `each` gets a scalar before the next chunk is traced. Stores, per chunk k,
 * sft: outputs/{loss, hits, entropy}.k sums over rows (loss already scaled);
 * dpo: outputs/{loss, chosen, rejected}.k per pair, outputs/{hits, entropy, chosen_logits, rejected_logits}.k sums (hits over chosen
 * rows, logits averaged over the vocabulary).
 * `inputs/scale` is what the sum of losses is divided by, inverted. Where nothing is kept, an example's rows may lie in several chunks.
 */
function headLosses(m: ModelSpec, s: Sizes, loss: LossSpec, kept: Kept, hidden: Value, head: Value, each?: (value: Value) => void): void {
  const logprobs = (k: number): Logprobs => {
    const { h, targets } = chunk(hidden, k, s);
    if (kept === "logits") return logSoftmaxGather(linear(h, head, undefined, "float32"), targets, m.dtype);
    return linearLogprob(h, head, targets, kept === "shares" && each !== undefined);
  };
  inScope("head", () => {
    const parts: Logprobs[] = [];
    for (let k = 0; k < s.chunks; k++) {
      parts.push(logprobs(k));
      if (kept === "nothing" && k < s.chunks - 1) continue;
      const value = lossOf(loss, s, parts.splice(0), kept === "nothing" ? 0 : k);
      each?.(value);
    }
  });
}

/** One micro-step of training: `headLosses`, and their gradients added into grads/*. */
export function microStep(m: ModelSpec, s: Sizes, loss: LossSpec, kept: Kept): Graph {
  return trace(() => {
    const w = new Params(m.parameters, m.dtype);
    const { ids, embedded, hidden } = hiddenStates(m, w, s.tokens);
    const head = headWeight(m.config, w);
    const names = new Map([...w.used].map(([name, v]) => [v, name]));
    const places = flat("grads", m.parameters);
    const grads = new Map<string, Value>();
    const cuts = new Map<Value, Value>(); // gradients of what is no weight
    const sink = (of: Value, d: Value): void => {
      if (of === hidden || of === embedded) {
        const old = cuts.get(of);
        cuts.set(of, old ? add(old, d) : d);
        return;
      }
      const name = names.get(of)!;
      grads.set(name, add(grads.get(name) ?? places.find(name)!, d));
    };
    headLosses(m, s, loss, kept, hidden, head, (value) => vjp([[value, fill(1, [])]], [hidden, head], sink));
    vjp([[hidden, cuts.get(hidden)!]], [embedded, ...w.used.values()], sink);
    vjp([[embed(w, learningIds(m.config, ids)), cuts.get(embedded)!]], [...w.used.values()], sink);
    for (const [name, v] of grads) store(`grads/${name}`, v);
  });
}

/** The micro-step without gradients, for evaluation: the same inputs and outputs, by the same kernels. */
export function evaluationStep(m: ModelSpec, s: Sizes, loss: LossSpec, kept: Kept): Graph {
  return trace(() => {
    const w = new Params(m.parameters, m.dtype);
    const { hidden } = hiddenStates(m, w, s.tokens);
    headLosses(m, s, loss, kept, hidden, headWeight(m.config, w));
  });
}

const total = (x: Value): Value => reshape(sum(x), []);
const addUp = (parts: readonly Value[]): Value => parts.reduce((a, b) => add(a, b));

/** The scalar that is differentiated; `parts` are chunks first, first + 1, ... of rows that share examples. */
function lossOf(loss: LossSpec, s: Sizes, parts: readonly Logprobs[], first: number): Value {
  const scale = buffer("inputs/scale", type([]));
  store(`outputs/entropy.${first}`, addUp(parts.map((p) => total(p.entropy))));
  if (loss.kind === "sft") {
    const value = addUp(parts.map((p) => negativeLogLikelihood(p.logp, scale)));
    store(`outputs/loss.${first}`, value);
    store(`outputs/hits.${first}`, addUp(parts.map((p) => total(p.hit))));
    return value;
  }
  const pairs = dim(`pairs.${first}`, s.examples);
  const side = (name: "chosen" | "rejected", of: keyof Logprobs): Value =>
    addUp(
      parts.map((p, i) => segmentSum(p[of], input(`${name}.${first + i}`, dim(`rows.${first + i}`, s.rows)), pairs)),
    );
  const data = (name: string): Value => input(`${name}.${first}`, pairs, "float32");
  const chosen = side("chosen", "logp");
  const rejected = side("rejected", "logp");
  const each = preferenceLosses[loss.lossType](
    {
      chosen,
      rejected,
      refChosen: data("ref_chosen"),
      refRejected: data("ref_rejected"),
      chosenLength: data("chosen_length"),
      rejectedLength: data("rejected_length"),
    },
    loss,
  );
  store(`outputs/loss.${first}`, each);
  store(`outputs/chosen.${first}`, chosen);
  store(`outputs/rejected.${first}`, rejected);
  store(`outputs/hits.${first}`, total(side("chosen", "hit")));
  store(`outputs/chosen_logits.${first}`, total(side("chosen", "mean")));
  store(`outputs/rejected_logits.${first}`, total(side("rejected", "mean")));
  return mul(total(each), scale);
}

/** outputs/y = inputs/x (n, n) times weights/w (n, n): what a machine's rate is measured with. */
export const squareProduct = (n: number, dtype: DType): Graph =>
  trace(() => store("outputs/y", linear(buffer("inputs/x", type([n, n], dtype)), buffer("weights/w", type([n, n], dtype)))));
