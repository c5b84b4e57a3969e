// Mistral (MistralForCausalLM): Llama without biases; sliding_window holds in every layer, null turns it off, absent means 4096.
import type { Family } from "./family.ts";

export const mistral: Family = {
  name: "mistral",
  architecture: "MistralForCausalLM",
  keyValueHeads: () => 8,
  headDim: null,
  maxPositions: 131072,
  tokens: { bos: 1, eos: 2 },
  read(config) {
    config.fixed("attention_bias", false, "Mistral has no biases");
    config.fixed("mlp_bias", false, "Mistral has no biases");
    const off = Object.hasOwn(config.object, "sliding_window") && config.get("sliding_window") === undefined;
    const window = off ? 0 : config.integer("sliding_window", 1, 2 ** 31 - 1, 4096);
    return { qkvBias: false, oBias: false, mlpBias: false, qkNorm: false, windows: window };
  },
};
