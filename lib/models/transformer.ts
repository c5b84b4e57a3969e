// The decoder block that Llama, Mistral, Qwen2 and Qwen3 share, as a graph; families differ in their config alone.
import { inScope, type Value } from "../ir/graph.ts";
import { cap } from "../ir/types.ts";
import { mlp, norm, project } from "../nn/layers.ts";
import type { Params } from "../nn/params.ts";
import { gatherRows } from "../ops/gather_rows.ts";
import { add, equal, fill, select } from "../ops/primitives/elementwise.ts";
import { reshape } from "../ops/primitives/shape.ts";
import { qkvRopeOp, ropeTable } from "../ops/rope.ts";
import type { TransformerConfig } from "./config.ts";

/** How queries meet keys: over the packed batch in training, over a cache in generation. q (N,H,D), k and v (N,K,D) -> (N,H,D). */
export type Attend = (layer: number, q: Value, k: Value, v: Value, a: { scale: number; window: number }) => Value;

/** Token ids (N) -> their embeddings (N, C). */
export function embed(w: Params, ids: Value): Value {
  return gatherRows(w.get("model.embed_tokens.weight"), ids);
}

/** Token ids (N) as the embedding's gradient sees them: the padding token is none, as torch's `padding_idx` has it. */
export function learningIds(c: TransformerConfig, ids: Value): Value {
  if (c.padTokenId === null) return ids;
  return select(equal(ids, c.padTokenId), fill(-1, ids.type.shape, "int32"), ids);
}

/** Embeddings (N, C) and positions (N) -> hidden states (N, C) after the last norm. */
export function transformer(c: TransformerConfig, w: Params, embedded: Value, pos: Value, attend: Attend): Value {
  const table = ropeTable(pos, c.ropeFrequencies);
  let x = embedded;
  for (let l = 0; l < c.numHiddenLayers; l++) x = inScope(`layers.${l}`, () => block(c, w, l, x, table, attend));
  return norm(w, x, "model.norm", c.rmsNormEps);
}

function block(c: TransformerConfig, w: Params, l: number, x: Value, table: { cos: Value; sin: Value }, attend: Attend): Value {
  const at = `model.layers.${l}`;
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, rmsNormEps: eps } = c;
  const h = norm(w, x, `${at}.input_layernorm`, eps);
  const { q, k, v } = qkvRopeOp(
    {
      qkv: project(w, h, `${at}.self_attn.qkv_proj`),
      ...table,
      q_norm: w.find(`${at}.self_attn.q_norm.weight`),
      k_norm: w.find(`${at}.self_attn.k_norm.weight`),
    },
    { heads, kvHeads, eps },
  );
  const y = attend(l, q, k, v, { scale: c.headDim ** -0.5, window: c.windows[l]! });
  const flat = reshape(y, [y.type.shape[0]!, cap(y.type.shape[1]!) * cap(y.type.shape[2]!)]);
  const a = add(x, project(w, flat, `${at}.self_attn.o_proj`));
  return mlp(w, a, norm(w, a, `${at}.post_attention_layernorm`, eps), `${at}.mlp`);
}

/** The head's weight (V, C): its own, or the embedding where the two are tied. */
export function headWeight(c: TransformerConfig, w: Params): Value {
  return w.get(c.tieWordEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight");
}
