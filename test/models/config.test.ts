// config.json against what transformers makes of it: recorded values, both spellings, and the parameters that follow.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parameters, parseConfig, type TransformerConfig } from "#lib/models/config.js";
import { respell } from "./respell.ts";

type Json = Record<string, any>;
interface Case {
  config: Json;
  transformers5?: Json;
  inv_freq: number[];
  windows: number[];
  tensors: number;
  parameters: Record<string, { shape: number[]; decay: boolean }>;
}
const recorded = JSON.parse(readFileSync(new URL("../fixtures/io/configs.json", import.meta.url), "utf8"));
const cases = Object.entries(recorded.cases as Record<string, Case>);

const mathematics = ({ unknownFields: _u, warnings: _w, dtype: _d, ...rest }: TransformerConfig) => rest;

describe.each(cases)("%s", (name, { config, transformers5, inv_freq, windows, tensors, parameters: expected }) => {
  const parsed = parseConfig(config, name);

  it("has the rotary frequencies of transformers, to the last bit of float32", () => {
    expect(parsed.ropeFrequencies).toHaveLength(inv_freq.length);
    parsed.ropeFrequencies.forEach((f, i) => {
      // torch's vectorised pow is one unit off the correctly rounded value here and there
      expect(Math.abs(f - Math.fround(inv_freq[i]!))).toBeLessThanOrEqual(f * 2 ** -23);
    });
    const off = parsed.ropeFrequencies.filter((f, i) => f !== Math.fround(inv_freq[i]!));
    expect(off.length).toBeLessThanOrEqual(1);
  });

  it("has the windows of transformers", () => expect(parsed.windows).toEqual(windows));

  it("names the checkpoint's tensors with their shapes and weight decay", () => {
    const parts = parameters(parsed).flatMap((p) =>
      p.parts.map(({ tensor, rows }) => [tensor, { shape: [rows, ...p.shape.slice(1)], decay: p.decay }] as const),
    );
    expect(parts).toHaveLength(tensors);
    expect(Object.fromEntries(parts.filter(([tensor]) => !/layers\.[1-9]/.test(tensor)))).toEqual(expected);
  });

  it("means the same in the other spelling", () => {
    const modern = transformers5 ?? config;
    expect(mathematics(parseConfig(modern, name))).toEqual(mathematics(parsed));
    expect(mathematics(parseConfig(respell(modern), name))).toEqual(mathematics(parsed));
  });

  it("keeps every fused buffer as tall as its parts", () => {
    for (const p of parameters(parsed)) expect(p.parts.reduce((sum, { rows }) => sum + rows, 0)).toBe(p.shape[0]);
  });
});

describe("defaults", () => {
  const base = {
    model_type: "llama",
    vocab_size: 64,
    hidden_size: 64,
    intermediate_size: 96,
    num_hidden_layers: 3,
    num_attention_heads: 8,
  };
  const parse = (more: Json) => parseConfig({ ...base, ...more }, "m");

  it("takes null as absent", () => {
    const bare = parse({});
    expect(bare.headDim).toBe(8);
    expect(bare.numKeyValueHeads).toBe(8);
    expect(parse({ head_dim: null, num_key_value_heads: null, rope_theta: null, rope_scaling: null })).toEqual(bare);
  });

  it("follows each family's own", () => {
    const wide = { num_attention_heads: 32, hidden_size: 256 };
    expect(parse({ model_type: "mistral" }).windows).toEqual([4096, 4096, 4096]);
    expect(parse({ model_type: "mistral", sliding_window: null }).windows).toEqual([0, 0, 0]);
    expect(parse({ model_type: "mistral" }).numKeyValueHeads).toBe(8);
    expect(parse({ model_type: "qwen3", ...wide }).headDim).toBe(128);
    expect(parse({ model_type: "qwen2", ...wide })).toMatchObject({
      numKeyValueHeads: 32,
      headDim: 8,
      qkvBias: true,
      oBias: false,
    });
    expect(parse({ model_type: "llama", attention_bias: true })).toMatchObject({
      qkvBias: true,
      oBias: true,
      mlpBias: false,
    });
  });

  it("takes one stop token or several, and passes over ids outside the vocabulary with a warning", () => {
    expect(parse({ eos_token_id: 2 }).eosTokenIds).toEqual([2]);
    expect(parse({}).eosTokenIds).toEqual([2]);
    expect(parse({ eos_token_id: null }).eosTokenIds).toEqual([]);
    expect(parse({ eos_token_id: [2, 5] }).eosTokenIds).toEqual([2, 5]);
    const odd = parse({ eos_token_id: -1 });
    expect(odd.eosTokenIds).toEqual([]);
    expect(odd.warnings.join()).toContain("eos_token_id -1");
  });

  it("counts a negative padding token from the end of the vocabulary, as torch's embedding does", () => {
    const c = parse({ pad_token_id: -1 });
    expect(c.padTokenId).toBe(c.vocabSize - 1);
    expect(parse({ pad_token_id: -c.vocabSize - 1 }).padTokenId).toBeNull();
  });

  it("says dropout, custom code and unknown bookkeeping, and goes on", () => {
    const c = parse({ attention_dropout: 0.1, auto_map: { AutoModel: "x.Y" }, favourite_colour: "blue" });
    expect(c.warnings.join()).toMatch(/attention_dropout.*auto_map/);
    expect(c.unknownFields).toEqual(["favourite_colour"]);
  });

  it("accepts fields of other architectures that are off", () => {
    const off = {
      partial_rotary_factor: 1,
      num_experts: 0,
      quantization_config: null,
      final_logit_softcapping: null,
      sliding_window: null,
      use_sliding_window: false,
    };
    expect(mathematics(parse(off))).toEqual(mathematics(parse({}))); // prettier-ignore
  });
});
