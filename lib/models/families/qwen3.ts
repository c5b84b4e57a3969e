// Qwen3 (Qwen3ForCausalLM, dense): RMSNorm over each head of q and k before the rotation; head_dim 128 unless given.
import { layerWindows, type Family } from "./family.ts";

export const qwen3: Family = {
  name: "qwen3",
  architecture: "Qwen3ForCausalLM",
  keyValueHeads: () => 32,
  headDim: 128,
  maxPositions: 32768,
  tokens: null,
  read(config, layers) {
    const attention = config.boolean("attention_bias", false);
    config.fixed("mlp_bias", false, "Qwen3 has no MLP biases");
    return {
      qkvBias: attention,
      oBias: attention,
      mlpBias: false,
      qkNorm: true,
      windows: layerWindows(config, layers),
    };
  },
};
