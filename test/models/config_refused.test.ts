// What parseConfig refuses: every field that changes the mathematics, by name, and nothing it reads may break it.
import { describe, expect, it } from "vitest";
import { DataError } from "#lib/errors.js";
import { parameters, parseConfig } from "#lib/models/config.js";
import { random } from "../io/tools.ts";

type Json = Record<string, unknown>;
const base: Json = {
  model_type: "llama", architectures: ["LlamaForCausalLM"], vocab_size: 64, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2,
  num_attention_heads: 8, num_key_value_heads: 2, max_position_embeddings: 512, rms_norm_eps: 1e-5, hidden_act: "silu", dtype: "float32",
  rope_parameters: { rope_type: "default", rope_theta: 1e4 }, tie_word_embeddings: false, eos_token_id: 2, bos_token_id: 1,
}; // prettier-ignore
const { rope_parameters: _, ...old } = base;
const mistral = { ...base, model_type: "mistral", architectures: ["MistralForCausalLM"] };
const qwen2 = { ...base, model_type: "qwen2", architectures: ["Qwen2ForCausalLM"] };

const refused: [field: string, config: unknown][] = [
  ["model_type", { ...base, model_type: "gemma3" }],
  ["model_type", { ...base, model_type: undefined }],
  ["model_type", { ...base, model_type: "__proto__" }],
  ["architectures", { ...base, architectures: ["LlamaForSequenceClassification"] }],
  ["architectures", { ...base, architectures: "LlamaForCausalLM" }],
  ["vocab_size", { ...base, vocab_size: 1e300 }],
  ["vocab_size", { ...base, vocab_size: "64" }],
  ["vocab_size", { ...base, vocab_size: undefined }],
  ["hidden_size", { ...base, hidden_size: 0 }],
  ["hidden_size", { ...base, hidden_size: 68 }],
  ["intermediate_size", { ...base, intermediate_size: [96, 96] }],
  ["num_hidden_layers", { ...base, num_hidden_layers: 1.5 }],
  ["num_hidden_layers", { ...base, num_hidden_layers: 1e6 }],
  ["num_key_value_heads", { ...base, num_key_value_heads: 3 }],
  ["num_key_value_heads", { ...base, num_key_value_heads: 16 }],
  ["head_dim", { ...base, head_dim: 12 }],
  ["head_dim", { ...base, head_dim: 264 }],
  ["head_dim", { ...base, hidden_size: 32 }],
  ["rms_norm_eps", { ...base, rms_norm_eps: -1e-5 }],
  ["hidden_act", { ...base, hidden_act: "gelu" }],
  ["dtype", { ...base, dtype: "float64" }],
  ["torch_dtype", { ...base, dtype: undefined, torch_dtype: 7 }],
  ["tie_word_embeddings", { ...base, tie_word_embeddings: "no" }],
  ["eos_token_id", { ...base, eos_token_id: "two" }],
  ["rope_type", { ...base, rope_parameters: { rope_type: "yarn", rope_theta: 1e4, factor: 4 } }],
  ["rope_type", { ...base, rope_parameters: { rope_type: "longrope", short_factor: [1], long_factor: [1] } }],
  ["type", { ...old, rope_scaling: { type: "dynamic", factor: 2 } }],
  ["type", { ...old, rope_scaling: { rope_type: "linear", type: "yarn", factor: 2 } }],
  ["factor", { ...old, rope_scaling: { type: "linear" } }],
  ["factor", { ...old, rope_scaling: { type: "linear", factor: 0 } }],
  [
    "high_freq_factor",
    { ...old, rope_scaling: { type: "llama3", factor: 8, low_freq_factor: 4, high_freq_factor: 4 } },
  ],
  ["mrope_section", { ...old, rope_scaling: { type: "default", mrope_section: [2, 1, 1] } }],
  ["attention_factor", { ...old, rope_scaling: { type: "linear", factor: 2, attention_factor: 1.2 } }],
  ["full_attention", { ...base, rope_parameters: { full_attention: { rope_type: "default" } } }],
  ["rope_theta", { ...base, rope_theta: 5e5 }],
  ["rope_theta", { ...old, rope_theta: 0 }],
  ["rope_scaling", { ...base, rope_scaling: { type: "linear", factor: 2 } }],
  ["rope_scaling", { ...old, rope_scaling: "linear" }],
  ["partial_rotary_factor", { ...base, partial_rotary_factor: 0.5 }],
  ["partial_rotary_factor", { ...base, rope_parameters: { rope_theta: 1e4, partial_rotary_factor: 0.5 } }],
  ["quantization_config", { ...base, quantization_config: { quant_method: "gptq" } }],
  ["num_experts", { ...base, num_experts: 8 }],
  ["num_local_experts", { ...base, num_local_experts: 8 }],
  ["final_logit_softcapping", { ...base, final_logit_softcapping: 30 }],
  ["attn_logit_softcapping", { ...base, attn_logit_softcapping: 50 }],
  ["logit_scale", { ...base, logit_scale: 0.0625 }],
  ["embedding_multiplier", { ...base, embedding_multiplier: 12 }],
  ["is_encoder_decoder", { ...base, is_encoder_decoder: true }],
  ["sliding_window", { ...base, sliding_window: 128 }],
  ["use_mrope", { ...base, use_mrope: true }],
  ["my_new_attention_scale", { ...base, my_new_attention_scale: 2 }],
  ["layer_types", { ...base, layer_types: ["full_attention", "sliding_attention"] }],
  ["attention_bias", { ...mistral, attention_bias: true }],
  ["sliding_window", { ...mistral, sliding_window: 0 }],
  ["attention_bias", { ...qwen2, attention_bias: false }],
  ["mlp_bias", { ...qwen2, mlp_bias: true }],
  ["layer_types", { ...qwen2, layer_types: ["full_attention"] }],
  ["layer_types", { ...qwen2, layer_types: ["sliding_attention", "full_attention"] }],
  [
    "layer_types",
    { ...qwen2, use_sliding_window: true, sliding_window: 8, layer_types: ["chunked_attention", "full_attention"] },
  ],
  ["JSON object", []],
  ["JSON object", null],
  ["JSON object", 7],
];

describe("a refused config.json", () => {
  it.each(refused)("names %s (%#)", (field, config) => {
    const parse = () => parseConfig(JSON.parse(JSON.stringify(config)), "folder");
    expect(parse).toThrow(DataError);
    expect(parse).toThrow(new RegExp(`^folder/config.json.*\\b${field}\\b`));
    expect(parse).not.toThrow(/\n/);
  });

  it("is otherwise accepted: each case differs from a good file in its field alone", () => {
    for (const good of [base, old, mistral, qwen2]) expect(() => parseConfig(good, "folder")).not.toThrow();
  });
});

const fuzzMs = Number(process.env["ATTUNE_FUZZ_SECONDS"] ?? 0) * 1000; // npm run test:fuzz; at least 3000 cases without
describe("fuzzed files", () => {
  const next = random(7);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)]!;
  const deep = JSON.parse("[".repeat(5000) + "]".repeat(5000));
  const odd: unknown[] = [null, true, false, 0, -0, -1, 1, 1.5, 7, 8, 64, 2 ** 31, 2 ** 53, 1e308, Infinity, NaN, "", "silu", "llama3", "linear", [], [1], ["x"], {}, { rope_type: "linear" }, { a: { b: 1 } }, deep]; // prettier-ignore
  const keys = ["hidden_act", "rope_scaling", "rope_theta", "layer_types", "sliding_window", "__proto__", "constructor", "toString", "head_dim", "pad_token_id", "torch_dtype", "use_sliding_window", "max_window_layers", "original_max_position_embeddings", "num_experts"]; // prettier-ignore
  const families = [base, old, mistral, qwen2, { ...qwen2, model_type: "qwen3", architectures: ["Qwen3ForCausalLM"] }];

  it("give a DataError or a sound configuration, and nothing else", () => {
    let sound = 0;
    let cases = 0;
    const end = performance.now() + fuzzMs;
    for (; cases < 3000 || performance.now() < end; cases++) {
      const config = structuredClone(pick(families)) as Json;
      for (let n = 0; n < 1 + Math.floor(next() * 2); n++) {
        const key = next() < 0.6 ? pick(Object.keys(config)) : pick(keys);
        const value = pick(odd);
        const inner = config["rope_parameters"];
        if (next() < 0.2 && typeof inner === "object" && inner !== null)
          (inner as Json)[pick(["factor", "type", "rope_type", "rope_theta", "low_freq_factor", "high_freq_factor"])] = value; // prettier-ignore
        else Object.defineProperty(config, key, { value, enumerable: true, configurable: true, writable: true });
      }
      try {
        const c = parseConfig(config, "m");
        sound++;
        expect(c.headDim % 8 === 0 && c.headDim >= 8 && c.headDim <= 256).toBe(true);
        expect(c.numAttentionHeads % c.numKeyValueHeads).toBe(0);
        expect(c.windows).toHaveLength(c.numHiddenLayers);
        expect(c.windows.every((w) => Number.isInteger(w) && w >= 0)).toBe(true);
        expect(c.ropeFrequencies).toHaveLength(c.headDim / 2);
        expect(c.ropeFrequencies.every((f) => Number.isFinite(f) && f > 0 && f <= 1)).toBe(true);
        if (c.numHiddenLayers < 100) expect(parameters(c).every((p) => p.shape.every((n) => n > 0))).toBe(true);
      } catch (error) {
        if (!(error instanceof DataError)) throw error;
      }
    }
    expect(sound).toBeGreaterThan(cases / 20);
    expect(sound).toBeLessThan(cases);
  });
});
