// What programs over packed tokens share, and the scoring pass.
import { buffer, store, trace, type Graph, type Value } from "../ir/graph.ts";
import { type, type Capacity, type DType } from "../ir/types.ts";
import type { Parameter, TransformerConfig } from "../models/config.ts";
import { embed, headWeight, transformer } from "../models/transformer.ts";
import { Params } from "../nn/params.ts";
import { attention } from "../ops/attention.ts";
import { gatherRows } from "../ops/gather_rows.ts";
import { linearLogprob } from "../ops/linear_logprob.ts";

export interface ModelSpec {
  readonly config: TransformerConfig;
  /** In the order in which they lie in memory. */
  readonly parameters: readonly Parameter[];
  readonly dtype: DType;
}
/** Capacities of a scoring pass: packed tokens, rows that are scored. */
export interface ScoreSizes {
  readonly tokens: number;
  readonly rows: number;
}

export const dim = (name: string, capacity: number): Capacity => ({ name, capacity });
export const input = (name: string, d: Capacity, dtype: DType = "int32"): Value => buffer(`inputs/${name}`, type([d], dtype));

/** Hidden states (N, C) of a packed micro-batch and the embeddings under them: inputs/{ids, pos, end}. */
export function hiddenStates(m: ModelSpec, w: Params, tokens: number): { ids: Value; embedded: Value; hidden: Value } {
  const n = dim("tokens", tokens);
  const [ids, pos, end] = [input("ids", n), input("pos", n), input("end", n)];
  const embedded = embed(w, ids);
  return { ids, embedded, hidden: transformer(m.config, w, embedded, pos, (_, q, k, v, a) => attention(q, k, v, end, a, pos)) };
}

/** Forward only: outputs/{logp, hit, entropy} (M) of inputs/{rows, targets}: scoring, evaluation, the reference. */
export function scoreProgram(m: ModelSpec, sizes: ScoreSizes): Graph {
  return trace(() => {
    const w = new Params(m.parameters, m.dtype);
    const rows = dim("rows", sizes.rows);
    const { hidden } = hiddenStates(m, w, sizes.tokens);
    const r = linearLogprob(gatherRows(hidden, input("rows", rows)), headWeight(m.config, w), input("targets", rows));
    store("outputs/logp", r.logp);
    store("outputs/hit", r.hit);
    store("outputs/entropy", r.entropy);
  });
}
