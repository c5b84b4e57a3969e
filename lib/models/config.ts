// A Hugging Face config.json, in the spelling of transformers 4 or 5, as the one record that the model graph is built from, and the
// parameters that follow from it. What attune does not implement is refused by name, never ignored.
import { DataError } from "../errors.ts";
import { isObject, show } from "../io/json.ts";
import { checkUnread, Fields } from "./config_fields.ts";
import { ropeFrequencies } from "./config_rope.ts";
import type { Family } from "./families/family.ts";
import { llama } from "./families/llama.ts";
import { mistral } from "./families/mistral.ts";
import { qwen2 } from "./families/qwen2.ts";
import { qwen3 } from "./families/qwen3.ts";

export type WeightDtype = "float32" | "bfloat16" | "float16";

export interface TransformerConfig {
  /** config.json's model_type. */
  readonly family: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly rmsNormEps: number;
  readonly tieWordEmbeddings: boolean;
  readonly qkvBias: boolean;
  readonly oBias: boolean;
  readonly mlpBias: boolean;
  readonly qkNorm: boolean;
  /** One per layer: query i sees key j only if pos[i] - pos[j] < window; 0 is full attention. */
  readonly windows: readonly number[];
  /** headDim / 2 radians per position, scaling applied (config_rope.ts). */
  readonly ropeFrequencies: readonly number[];
  readonly maxPositionEmbeddings: number;
  readonly initializerRange: number;
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | null;
  /** transformers gives this row of the embedding no gradient from its use as an input, and initialises it to zero. */
  readonly padTokenId: number | null;
  /** The dtype that the file names (float32 where it names none); the tensors themselves say what is stored. */
  readonly dtype: WeightDtype;
  /** Fields that attune does not know and took for harmless, by name. */
  readonly unknownFields: readonly string[];
  /** Sentences worth showing once. */
  readonly warnings: readonly string[];
}

export interface Parameter {
  /** Buffer name without its class; the checkpoint's own name unless fused. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Weight decay applies: as in transformers' Trainer, not to biases and norm weights. */
  readonly decay: boolean;
  readonly init: "normal" | "ones" | "zeros";
  /** Checkpoint tensors that stand one below the other in the buffer; `rows` is each one's first dimension. */
  readonly parts: readonly { readonly tensor: string; readonly rows: number }[];
}

const families: readonly Family[] = [llama, mistral, qwen2, qwen3];

/** The class name that transformers gives the family, as config.json's `architectures` holds it. */
export function architectureOf(family: string): string {
  return families.find((f) => f.name === family)!.architecture;
}

/** Checks and reads a parsed config.json; `folder` stands in messages. Throws DataError and nothing else. */
export function parseConfig(json: unknown, folder: string): TransformerConfig {
  const where = `${folder}/config.json`;
  if (!isObject(json)) throw new DataError(`${where}: must be a JSON object, got ${show(json)}`);
  const config = new Fields(json, where);
  const family = findFamily(config);
  const vocabSize = config.integer("vocab_size", 1, 2 ** 24);
  const hiddenSize = config.integer("hidden_size", 1, 2 ** 17);
  const layers = config.integer("num_hidden_layers", 1, 4096);
  const heads = config.integer("num_attention_heads", 1, 4096);
  const maxPositions = config.integer("max_position_embeddings", 1, 2 ** 31 - 1, family.maxPositions);
  const headDim = readHeadDim(config, family, hiddenSize, heads);
  const own = family.read(config, layers);
  const { windows } = own;
  const activation = config.string("hidden_act", "silu");
  if (activation !== "silu" && activation !== "swish")
    throw config.fail("hidden_act", "silu (attune implements no other)");
  const warnings: string[] = [];
  const result = {
    family: family.name,
    vocabSize,
    hiddenSize,
    intermediateSize: config.integer("intermediate_size", 1, 2 ** 20),
    numHiddenLayers: layers,
    numAttentionHeads: heads,
    numKeyValueHeads: readKeyValueHeads(config, family, heads),
    headDim,
    rmsNormEps: config.number("rms_norm_eps", 0, 1, 1e-6),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    qkvBias: own.qkvBias,
    oBias: own.oBias,
    mlpBias: own.mlpBias,
    qkNorm: own.qkNorm,
    windows: typeof windows === "number" ? Array.from({ length: layers }, () => windows) : windows,
    ropeFrequencies: ropeFrequencies(config, headDim, maxPositions),
    maxPositionEmbeddings: maxPositions,
    initializerRange: config.number("initializer_range", 0, 1, 0.02),
    eosTokenIds: tokenIds(config, "eos_token_id", vocabSize, warnings, family.tokens?.eos),
    bosTokenId: tokenIds(config, "bos_token_id", vocabSize, warnings, family.tokens?.bos)[0] ?? null,
    padTokenId: paddingRow(config, vocabSize, warnings),
    dtype: readDtype(config),
  };
  const rest = checkUnread(config);
  return { ...result, unknownFields: rest.unknownFields, warnings: [...warnings, ...rest.warnings] };
}

function findFamily(config: Fields): Family {
  const names = families.map((f) => f.name).join(", ");
  const type = config.get("model_type");
  const family = families.find((f) => f.name === type);
  if (family === undefined) throw config.fail("model_type", `one of ${names} (attune implements no other)`);
  const architectures = config.get("architectures") ?? [family.architecture];
  if (!Array.isArray(architectures) || architectures.some((a) => a !== family.architecture)) {
    throw config.fail("architectures", `["${family.architecture}"] for model_type ${family.name}`);
  }
  return family;
}

function readHeadDim(config: Fields, family: Family, hiddenSize: number, heads: number): number {
  const derived = family.headDim ?? hiddenSize / heads;
  if (config.get("head_dim") === undefined && !Number.isInteger(derived)) {
    throw config.fail("hidden_size", `a multiple of num_attention_heads (${heads}) where head_dim is absent`);
  }
  const headDim = config.integer("head_dim", 8, 256, derived);
  if (headDim % 8 !== 0) throw config.fail("head_dim", "a multiple of 8 (attune's kernels need it)", headDim);
  return headDim;
}

function readKeyValueHeads(config: Fields, family: Family, heads: number): number {
  const key = "num_key_value_heads";
  const absent = Object.hasOwn(config.object, key) ? heads : family.keyValueHeads(heads);
  const count = config.integer(key, 1, heads, absent);
  if (heads % count !== 0) throw config.fail(key, `a divisor of num_attention_heads (${heads})`, count);
  return count;
}

function readDtype(config: Fields): WeightDtype {
  const key = config.get("dtype") === undefined ? "torch_dtype" : "dtype";
  config.get("torch_dtype");
  const name = config.string(key, "float32").replace(/^torch\./, "");
  if (name === "float32" || name === "bfloat16" || name === "float16") return name;
  throw config.fail(key, "float32, bfloat16 or float16");
}

/** One id or a list; ids outside the vocabulary (some published files hold -1) mean none. */
function tokenIds(config: Fields, key: string, vocabSize: number, warnings: string[], absent?: number): number[] {
  const value = (Object.hasOwn(config.object, key) ? config.get(key) : absent) ?? [];
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  return list.filter((id): id is number => {
    if (!Number.isInteger(id)) throw config.fail(key, "a token id or a list of them");
    const inside = (id as number) >= 0 && (id as number) < vocabSize;
    if (!inside)
      warnings.push(`${config.where}: ${key} ${String(id)} lies outside the vocabulary of ${vocabSize} and is ignored`);
    return inside;
  });
}

/** Row of the embedding that torch's padding_idx names: a negative one counts from the end. */
function paddingRow(config: Fields, vocabSize: number, warnings: string[]): number | null {
  const id = config.get("pad_token_id");
  if (Number.isInteger(id) && (id as number) < 0 && (id as number) >= -vocabSize) return vocabSize + (id as number);
  return tokenIds(config, "pad_token_id", vocabSize, warnings)[0] ?? null;
}

/** All parameters in the order of the forward pass. Fused buffers name their checkpoint tensors in row order. */
export function parameters(c: TransformerConfig): Parameter[] {
  const list: Parameter[] = [];
  const weight = (name: string, rows: number, columns: number): void => {
    const shape = [rows, columns];
    list.push({ name, shape, decay: true, init: "normal", parts: [{ tensor: name, rows }] });
  };
  const norm = (name: string, size: number): void => {
    list.push({ name, shape: [size], decay: false, init: "ones", parts: [{ tensor: name, rows: size }] });
  };
  // A projection of the checkpoint, or several of one input fused into one buffer; a bias follows its weight.
  const linear = (
    path: string,
    fused: string,
    split: readonly (readonly [string, number])[],
    columns: number,
    bias: boolean,
  ) => {
    const rows = split.reduce((sum, [, n]) => sum + n, 0);
    const parts = (suffix: string) => split.map(([name, n]) => ({ tensor: `${path}.${name}.${suffix}`, rows: n }));
    const at = `${path}.${fused}`;
    list.push({ name: `${at}.weight`, shape: [rows, columns], decay: true, init: "normal", parts: parts("weight") });
    if (bias) list.push({ name: `${at}.bias`, shape: [rows], decay: false, init: "zeros", parts: parts("bias") });
  };
  const hidden = c.hiddenSize;
  const queries = c.numAttentionHeads * c.headDim;
  const keys = c.numKeyValueHeads * c.headDim;
  const inner = c.intermediateSize;
  weight("model.embed_tokens.weight", c.vocabSize, hidden);
  for (let l = 0; l < c.numHiddenLayers; l++) {
    const layer = `model.layers.${l}`;
    const attention = `${layer}.self_attn`;
    const mlp = `${layer}.mlp`;
    norm(`${layer}.input_layernorm.weight`, hidden);
    linear(attention, "qkv_proj", [["q_proj", queries], ["k_proj", keys], ["v_proj", keys]], hidden, c.qkvBias); // prettier-ignore
    if (c.qkNorm) norm(`${attention}.q_norm.weight`, c.headDim);
    if (c.qkNorm) norm(`${attention}.k_norm.weight`, c.headDim);
    linear(attention, "o_proj", [["o_proj", hidden]], queries, c.oBias);
    norm(`${layer}.post_attention_layernorm.weight`, hidden);
    linear(mlp, "gate_up_proj", [["gate_proj", inner], ["up_proj", inner]], hidden, c.mlpBias); // prettier-ignore
    linear(mlp, "down_proj", [["down_proj", hidden]], inner, c.mlpBias);
  }
  norm("model.norm.weight", hidden);
  if (!c.tieWordEmbeddings) weight("lm_head.weight", c.vocabSize, hidden);
  return list;
}

/** The order in which they lie in memory: those with weight decay first, so that the update is one op over these and one over the others. */
export const inMemory = (list: readonly Parameter[]): Parameter[] => [...list.filter((p) => p.decay), ...list.filter((p) => !p.decay)];
