// What a model family says about its config.json: defaults and rules of its own fields. One file per family beside this one.
import type { Fields } from "../config_fields.ts";

export interface FamilyFields {
  readonly qkvBias: boolean;
  readonly oBias: boolean;
  readonly mlpBias: boolean;
  readonly qkNorm: boolean;
  /** Window of every layer, or one per layer; 0 is full attention. */
  readonly windows: number | readonly number[];
}

export interface Family {
  /** config.json's model_type. */
  readonly name: string;
  readonly architecture: string;
  /** Key/value heads where the field is absent (null always means as many as query heads). */
  readonly keyValueHeads: (heads: number) => number;
  /** Head size where the field is absent; null: hidden_size / num_attention_heads. */
  readonly headDim: number | null;
  /** max_position_embeddings where the field is absent. */
  readonly maxPositions: number;
  /** bos_token_id and eos_token_id where the fields are absent (null means none). */
  readonly tokens: { readonly bos: number; readonly eos: number } | null;
  /** Reads the family's own fields. `layers` is num_hidden_layers. */
  readonly read: (config: Fields, layers: number) => FamilyFields;
}

/**
 * Qwen's per-layer windows: none unless use_sliding_window; then layer_types says which layers have one, or, where it is absent,
 * layers from max_window_layers on.
 */
export function layerWindows(config: Fields, layers: number): number[] {
  const used = config.boolean("use_sliding_window", false);
  const off = Object.hasOwn(config.object, "sliding_window") && config.get("sliding_window") === undefined;
  const window = used && !off ? config.integer("sliding_window", 1, 2 ** 31 - 1, 4096) : 0;
  config.get("sliding_window"); // without use_sliding_window it has no part
  const from = config.integer("max_window_layers", 0, 2 ** 31 - 1, 28);
  const types = config.get("layer_types");
  if (types === undefined) return Array.from({ length: layers }, (_, i) => (i >= from ? window : 0));
  if (!Array.isArray(types) || types.length !== layers) {
    throw config.fail("layer_types", `a list of num_hidden_layers (${layers}) names`);
  }
  return types.map((type: unknown) => {
    if (type === "full_attention" || type === "attention") return 0;
    if (type === "sliding_attention" && window > 0) return window;
    const may = window > 0 ? "full_attention or sliding_attention" : "full_attention where use_sliding_window is off";
    throw config.fail("layer_types", may, type);
  });
}
