// Qwen2 and Qwen2.5 (Qwen2ForCausalLM): always biases on q, k and v, none elsewhere; some layers may have a window.
import { layerWindows, type Family } from "./family.ts";

export const qwen2: Family = {
  name: "qwen2",
  architecture: "Qwen2ForCausalLM",
  keyValueHeads: () => 32,
  headDim: null,
  maxPositions: 32768,
  tokens: null,
  read(config, layers) {
    for (const key of ["attention_bias", "qkv_bias"]) config.fixed(key, true, "Qwen2 always has biases on q, k and v");
    config.fixed("mlp_bias", false, "Qwen2 has no MLP biases");
    return { qkvBias: true, oBias: false, mlpBias: false, qkNorm: false, windows: layerWindows(config, layers) };
  },
};
