// Reads config.json fields with their types and ranges, and sorts the fields nobody reads: harmless, suspicious or mathematical.
// Every refusal is a DataError that names the file and the field.
import { DataError } from "../errors.ts";
import { isObject, show, type JsonObject } from "../io/json.ts";

/** The fields of one object of a config file. Null counts as absent, as it does in transformers. */
export class Fields {
  readonly object: JsonObject;
  readonly where: string;
  readonly read = new Set<string>();

  constructor(object: JsonObject, where: string) {
    this.object = object;
    this.where = where;
  }

  /** The raw value; undefined when absent or null. */
  get(key: string): unknown {
    this.read.add(key);
    return Object.hasOwn(this.object, key) ? (this.object[key] ?? undefined) : undefined;
  }

  fail(key: string, must: string, value: unknown = this.get(key)): DataError {
    return new DataError(`${this.where}: ${key} must be ${must}, got ${show(value)}`);
  }

  integer(key: string, min: number, max: number, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
      throw this.fail(key, `a whole number from ${min} to ${max}`, value);
    }
    return value as number;
  }

  number(key: string, min: number, max: number, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    if (typeof value !== "number" || !(value >= min && value <= max)) {
      throw this.fail(key, `a number from ${min} to ${max}`, value);
    }
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.get(key) ?? fallback;
    if (typeof value !== "boolean") throw this.fail(key, "true or false", value);
    return value;
  }

  string(key: string, fallback?: string): string {
    const value = this.get(key) ?? fallback;
    if (typeof value !== "string") throw this.fail(key, "a string", value);
    return value;
  }

  /** A nested object, or undefined when absent. */
  child(key: string): Fields | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (!isObject(value)) throw this.fail(key, "an object");
    return new Fields(value, `${this.where}: ${key}`);
  }

  /** Where a family fixes what the field would say: a value that says otherwise is refused. */
  fixed(key: string, value: unknown, why: string): void {
    const got = this.get(key);
    if (got !== undefined && got !== value) throw this.fail(key, `${show(value)} (${why})`, got);
  }
}

/** Fields that never change a log-probability of a decoder-only model: bookkeeping, generation, training and classification settings. */
const harmless = new Set(
  `_attn_implementation _flash_attn_2_enabled _attn_implementation_autoset _attn_implementation_internal _commit_hash _experts_implementation
  _name_or_path add_bos_token add_eos_token architectures attn_implementation bad_words_ids begin_suppress_tokens cache_config
  cache_implementation chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample early_stopping
  encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
  gradient_checkpointing id2label initializer_range is_decoder label2id length_penalty max_length max_new_tokens max_window_layers
  min_length min_new_tokens model_max_length model_type name_or_path no_repeat_ngram_size num_beam_groups num_beams num_labels
  num_return_sequences output_attentions output_hidden_states output_router_logits output_scores pad_token_id prefix
  pretraining_tp problem_type remove_invalid_values renormalize_logits repetition_penalty return_dict return_dict_in_generate
  sep_token_id stop_strings suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class
  tokenizer_file top_k top_p torchscript transformers.js_config transformers_version typical_p unk_token_id unsloth_fixed
  unsloth_version use_bfloat16 use_cache use_flash_attn use_flash_attention use_flash_attention_2`.split(/\s+/),
);

/** Dropout changes training (attune applies none) but no log-probability: it is said, not refused. */
const dropout = /drop(out|_?path)?|pdrop/;

/** Fields that change the mathematics unless they hold one of these values. */
const neutral: { readonly [key: string]: readonly unknown[] } = {
  add_cross_attention: [false],
  alibi: [false],
  attention_in_fp32: [false, true],
  attention_multiplier: [],
  attn_logit_softcapping: [0],
  clip_qkv: [],
  embedding_multiplier: [1],
  final_logit_softcapping: [0],
  is_encoder_decoder: [false],
  logit_scale: [1],
  logits_scaling: [1],
  num_experts: [0],
  num_local_experts: [0],
  partial_rotary_factor: [1],
  quantization_config: [],
  query_pre_attn_scalar: [],
  residual_multiplier: [1],
  rotary_pct: [1],
  tie_encoder_decoder: [false],
};

/** Words that mark an unknown field as likely to change the mathematics. */
const suspicious =
  /scal|cap(ping)?$|softcap|multiplier|rope|rotary|bias|norm|window|expert|moe|router|mup|alibi|clip|attn|attention|activation|hidden_act|quant|residual|sink|lora|mask|layer|head|embed|adapter|mtp|nope|compress|latent|eps$/i;

/**
 * Sorts the fields that no reader asked for. Refused (DataError): known mathematical fields with another value than the neutral one, and
 * unknown fields whose name looks mathematical and whose value is not null, false or empty. Returned: the names of all other unknown
 * fields that hold a value, and warnings for dropout, which the published model was trained with and attune leaves out.
 */
export function checkUnread(fields: Fields): { unknownFields: string[]; warnings: string[] } {
  const unknownFields: string[] = [];
  const warnings: string[] = [];
  for (const [key, value] of Object.entries(fields.object)) {
    if (fields.read.has(key) || harmless.has(key) || isEmpty(value)) continue;
    const allowed = Object.hasOwn(neutral, key) ? neutral[key]! : undefined;
    if (allowed !== undefined) {
      if (!allowed.includes(value)) {
        throw fields.fail(
          key,
          `${["absent", ...allowed.map(show)].join(" or ")} (attune does not implement it)`,
          value,
        );
      }
    } else if (dropout.test(key)) {
      if (value !== 0) warnings.push(`${fields.where}: ${key} ${show(value)}: attune trains without dropout`);
    } else if (key === "auto_map") {
      warnings.push(`${fields.where}: auto_map names custom code, which is not run: the standard architecture is used`);
    } else if (suspicious.test(key)) {
      throw fields.fail(
        key,
        "absent: attune does not know this field and it may change the mathematics (remove it if the model ignores it)",
        value,
      );
    } else {
      unknownFields.push(key);
    }
  }
  return { unknownFields, warnings };
}

function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === false || value === "") return true;
  return Array.isArray(value) ? value.length === 0 : isObject(value) && Object.keys(value).length === 0;
}
