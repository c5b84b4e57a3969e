// Rotary frequencies of a config.json in either spelling, default, linear and llama3 scaled; anything else is refused by name.
import { DataError } from "../errors.ts";
import { Fields } from "./config_fields.ts";

/**
 * Angular frequencies, radians per position, length headDim / 2: component pair (i, i + headDim/2) turns by position * frequency[i].
 * Formulas: transformers' modeling_rope_utils (default, linear, llama3). Each step is rounded to float32 as there, because published
 * models were trained with the rounded values; the result is doubles that hold float32 values.
 * Spellings: transformers 5 `rope_parameters {rope_type, rope_theta, ...}`; transformers 4 top-level `rope_theta` and
 * `rope_scaling {rope_type | type, ...}`. Where a file holds both, they must agree.
 */
export function ropeFrequencies(config: Fields, headDim: number, maxPositions: number): number[] {
  const parameters = config.child("rope_parameters");
  const scaling = config.child("rope_scaling");
  const top = config.get("rope_theta") === undefined ? undefined : theta(config);
  const tables = [parameters, scaling].filter((t) => t !== undefined);
  const results = tables.map((t) => frequencies(t, config, headDim, maxPositions, top));
  const [first, second] = results;
  if (first === undefined) return plain(top ?? 10000, headDim);
  if (second !== undefined && first.some((f, i) => f !== second[i])) {
    throw new DataError(
      `${config.where}: rope_parameters and rope_scaling must agree where both are given (remove one)`,
    );
  }
  return first;
}

function frequencies(
  t: Fields,
  config: Fields,
  headDim: number,
  maxPositions: number,
  top: number | undefined,
): number[] {
  const type = ropeType(t);
  const own = t.get("rope_theta") === undefined ? undefined : theta(t);
  if (own !== undefined && top !== undefined && own !== top) {
    throw config.fail("rope_theta", `the rope_theta of ${t.where}, ${own} (remove one)`, top);
  }
  const base = plain(own ?? top ?? 10000, headDim);
  t.fixed("partial_rotary_factor", 1, "attune rotates the whole head");
  const result = type === "linear" ? linear(t, base) : type === "llama3" ? llama3(t, config, base, maxPositions) : base;
  if (type !== "llama3") t.get("original_max_position_embeddings"); // has no part in these types
  for (const [key, value] of Object.entries(t.object)) {
    if (!t.read.has(key) && value !== null) throw t.fail(key, `absent (it has no part in rope type ${type})`, value);
  }
  return result;
}

function ropeType(t: Fields): "default" | "linear" | "llama3" {
  const modern = t.get("rope_type");
  const type = modern ?? t.get("type") ?? "default";
  if (modern !== undefined) t.fixed("type", modern, "rope_type says so");
  if (type !== "default" && type !== "linear" && type !== "llama3") {
    throw t.fail(
      modern === undefined ? "type" : "rope_type",
      "default, linear or llama3 (attune implements no other)",
      type,
    );
  }
  return type;
}

function theta(fields: Fields): number {
  return fields.number("rope_theta", 1, 1e12);
}

const f32 = Math.fround;

function plain(base: number, headDim: number): number[] {
  return Array.from({ length: headDim / 2 }, (_, i) => f32(1 / f32(f32(base) ** f32((2 * i) / headDim))));
}

function linear(t: Fields, base: readonly number[]): number[] {
  const factor = t.number("factor", 1, 1e6);
  return base.map((f) => f32(f / f32(factor)));
}

function llama3(t: Fields, config: Fields, base: readonly number[], maxPositions: number): number[] {
  const factor = f32(t.number("factor", 1, 1e6));
  const low = t.number("low_freq_factor", 1e-6, 1e6);
  const high = t.number("high_freq_factor", 1e-6, 1e6);
  if (high <= low) throw t.fail("high_freq_factor", `greater than low_freq_factor ${low}`, high);
  // As in transformers, a field beside the table wins over the one inside, and max_position_embeddings stands in for both.
  const inside = t.integer("original_max_position_embeddings", 1, 2 ** 31 - 1, maxPositions);
  const context = config.integer("original_max_position_embeddings", 1, 2 ** 31 - 1, inside);
  return base.map((f) => {
    const wavelength = f32(f32(2 * Math.PI) / f);
    if (wavelength < f32(context / high)) return f;
    const slow = f32(f / factor);
    if (wavelength > f32(context / low)) return slow;
    const smooth = f32(f32(f32(f32(context) / wavelength) - f32(low)) / f32(high - low));
    return f32(f32(f32(f32(1 - smooth) * f) / factor) + f32(smooth * f));
  });
}
