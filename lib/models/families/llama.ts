// Llama 1 to 3.x (LlamaForCausalLM): attention_bias puts biases on q, k, v and o, mlp_bias on all three projections; no window.
import type { Family } from "./family.ts";

export const llama: Family = {
  name: "llama",
  architecture: "LlamaForCausalLM",
  keyValueHeads: (heads) => heads,
  headDim: null,
  maxPositions: 2048,
  tokens: { bos: 1, eos: 2 },
  read(config) {
    const attention = config.boolean("attention_bias", false);
    const types = config.get("layer_types") ?? [];
    if (!Array.isArray(types) || types.some((type) => type !== "full_attention")) {
      throw config.fail("layer_types", "absent, or full_attention everywhere: Llama has no other layers");
    }
    return {
      qkvBias: attention,
      oBias: attention,
      mlpBias: config.boolean("mlp_bias", false),
      qkNorm: false,
      windows: 0,
    };
  },
};
