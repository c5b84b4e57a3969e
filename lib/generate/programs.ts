// The two programs of generation: prefill (a packed pass over prompts that fills the cache) and decode (one token per slot).
import { buffer, store, trace, type Graph, type Value } from "../ir/graph.ts";
import { type, type Capacity, type DType } from "../ir/types.ts";
import { embed, headWeight, transformer } from "../models/transformer.ts";
import { Params } from "../nn/params.ts";
import { attention } from "../ops/attention.ts";
import { attentionDecode, cacheWrite } from "../ops/attention_decode.ts";
import { gatherRows } from "../ops/gather_rows.ts";
import { linear } from "../ops/gemm.ts";
import type { ModelSpec } from "../engine/programs.ts";

export interface CacheSizes {
  /** Sequences at a time. */
  readonly slots: number;
  /** Tokens of a sequence, prompt and answer. */
  readonly places: number;
}

const input = (name: string, d: Capacity | number, dtype: DType = "int32"): Value => buffer(`inputs/${name}`, type([d], dtype));

/** The keys or values of a layer, (S, L, K, D), after writing x (N, K, D) at inputs/{slot, place}. */
function writeCache(m: ModelSpec, s: CacheSizes, name: string, x: Value, slot: Value, place: Value): Value {
  const t = type([s.slots, s.places, m.config.numKeyValueHeads, m.config.headDim], m.dtype);
  const path = `cache/${s.slots}x${s.places}/${name}`; // a larger cache is another buffer
  const y = cacheWrite(buffer(path, t), x, slot, place);
  store(path, y);
  return y;
}

/** Packed prompts: inputs/{ids, pos, end, slot, place} (N) and inputs/last (one row per sequence) -> outputs/logits (rows, V). */
export function prefillProgram(m: ModelSpec, s: CacheSizes, tokens: number): Graph {
  return trace(() => {
    const n: Capacity = { name: "tokens", capacity: tokens };
    const w = new Params(m.parameters, m.dtype);
    const [ids, pos, end, slot, place] = ["ids", "pos", "end", "slot", "place"].map((name) => input(name, n)) as [Value, Value, Value, Value, Value];
    const hidden = transformer(m.config, w, embed(w, ids), pos, (l, q, k, v, a) => {
      writeCache(m, s, `k.${l}`, k, slot, place);
      writeCache(m, s, `v.${l}`, v, slot, place);
      return attention(q, k, v, end, a, pos);
    });
    const last = input("last", { name: "sequences", capacity: s.slots });
    store("outputs/logits", linear(gatherRows(hidden, last), headWeight(m.config, w), undefined, "float32"));
  });
}

/** One token per slot: inputs/{ids, pos, slot, len} (S) -> outputs/logits (S, V). A slot of -1 rests; pos = len - 1. */
export function decodeProgram(m: ModelSpec, s: CacheSizes): Graph {
  return trace(() => {
    const w = new Params(m.parameters, m.dtype);
    const [ids, pos, slot, len] = ["ids", "pos", "slot", "len"].map((name) => input(name, s.slots)) as [Value, Value, Value, Value];
    const hidden = transformer(m.config, w, embed(w, ids), pos, (l, q, k, v, a) =>
      attentionDecode(q, writeCache(m, s, `k.${l}`, k, slot, pos), writeCache(m, s, `v.${l}`, v, slot, pos), len, a),
    );
    store("outputs/logits", linear(hidden, headWeight(m.config, w), undefined, "float32"));
  });
}
