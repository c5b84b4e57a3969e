// A config.json as transformers 4 wrote it.

/** The spelling of transformers 4, from that of transformers 5. */
export function respell({ rope_parameters, dtype, layer_types, head_dim, ...rest }: Record<string, any>): Record<string, any> {
  const { rope_theta, ...scaling } = rope_parameters;
  const derived = rest["hidden_size"] / rest["num_attention_heads"];
  return {
    ...rest,
    rope_theta,
    rope_scaling: scaling.rope_type === "default" ? null : scaling,
    torch_dtype: dtype,
    ...(head_dim === undefined || (head_dim === derived && rest["model_type"] !== "qwen3") ? {} : { head_dim }),
    ...(rest["use_sliding_window"] && layer_types ? { layer_types } : {}),
  };
}
