// The mechanics under every configuration: one zod object per command, whose keys are snake_case in files and flags and
// camelCase in the library, and whose metadata gives help, messages, JSON Schema and the docs table.

import { z } from "zod";

/** What a key says about itself; kept in zod's metadata, so it is also in the JSON Schema. */
export interface FieldMeta {
  /** One or two sentences with the unit. */
  readonly description: string;
  /** Heading in `--help` and in the docs table. */
  readonly group: string;
  /** What must hold, in words, where the JSON Schema does not say it well. */
  readonly must?: string;
  /** The default in words, where it is not a constant. */
  readonly defaultText?: string;
  /** Placeholder in `--help`: `--key <placeholder>`. */
  readonly placeholder?: string;
  /** Does not alter the mathematics of a run: may change when it is resumed. */
  readonly neutral?: true;
}

export type Shape = Readonly<Record<string, z.ZodType>>;
export type Task = "sft" | "dpo";
/** How keys are spelt where the values come from. */
export type Spelling = "snake" | "camel";

/** `learning_rate` -> `learningRate`, in types. */
export type CamelKey<S> = S extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<CamelKey<Tail>>}` : S;
/** An object type with its keys in camelCase. */
export type CamelKeys<T> = { [K in keyof T as CamelKey<K>]: T[K] };

/** `learning_rate` -> `learningRate`. */
export function camel(key: string): string {
  return key.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase());
}

/** `learningRate` -> `learning_rate`: the inverse of `camel` on every key of the schemas (a digit never starts a word). */
export function snake(key: string): string {
  return key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
}

/** Attaches a key's metadata to its schema. */
export function field<T extends z.ZodType>(schema: T, meta: FieldMeta): T {
  return schema.meta({ ...meta }) as T;
}

export function metaOf(schema: z.ZodType): FieldMeta {
  return (schema.meta() ?? {}) as unknown as FieldMeta;
}

type Json = { readonly [key: string]: unknown };

/** The JSON Schema of one key as it is written in a file. */
export function jsonSchemaOf(schema: z.ZodType): Json {
  return z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as Json;
}

/** The default of a key, or undefined where it has none or must be given. */
export function defaultOf(schema: z.ZodType): unknown {
  return jsonSchemaOf(schema)["default"];
}

/** JSON types that a key accepts: string, number, integer, boolean, null, array, object. */
export function typesOf(schema: z.ZodType): Set<string> {
  const found = new Set<string>();
  const walk = (json: Json): void => {
    for (const name of [json["type"]].flat()) if (typeof name === "string") found.add(name);
    for (const one of (json["anyOf"] as Json[] | undefined) ?? []) walk(one);
  };
  walk(jsonSchemaOf(schema));
  return found;
}

/** The allowed texts of an enum key, or an empty list. */
export function choicesOf(schema: z.ZodType): string[] {
  const walk = (json: Json): string[] => [
    ...((json["enum"] as string[] | undefined) ?? []),
    ...(typeof json["const"] === "string" ? [json["const"]] : []),
    ...((json["anyOf"] as Json[] | undefined) ?? []).flatMap(walk),
  ];
  return walk(jsonSchemaOf(schema));
}

/** What must hold for a key, in words: "a number >= 0", "one of sigmoid, ipo, hinge", "a text or null". */
export function mustOf(schema: z.ZodType): string {
  return metaOf(schema).must ?? words(jsonSchemaOf(schema));
}

function words(json: Json): string {
  const any = json["anyOf"] as Json[] | undefined;
  if (any) return any.map(words).join(" or ");
  if (Array.isArray(json["type"])) return json["type"].map((type) => words({ ...json, type })).join(" or ");
  if (json["enum"]) return oneOf(json["enum"] as string[]);
  if ("const" in json) return String(json["const"]);
  switch (json["type"]) {
    case "integer":
      return `a whole number${bounds(json)}`;
    case "number":
      return `a number${bounds(json)}`;
    case "boolean":
      return "true or false";
    case "null":
      return "null";
    case "array":
      return `a list of ${words(json["items"] as Json)}`;
    default:
      return Number(json["minLength"]) > 0 ? "a text that is not empty" : "a text";
  }
}

function oneOf(values: readonly string[]): string {
  return values.length === 1 ? String(values[0]) : `one of ${values.join(", ")}`;
}

function bounds(json: Json): string {
  const parts: string[] = [];
  const add = (key: string, sign: string): void => {
    const value = json[key];
    // zod writes the limits of safe integers into every integer: they say nothing to a reader.
    if (typeof value === "number" && Math.abs(value) < Number.MAX_SAFE_INTEGER) parts.push(`${sign} ${value}`);
  };
  add("exclusiveMinimum", ">");
  add("minimum", ">=");
  add("exclusiveMaximum", "<");
  add("maximum", "<=");
  return parts.length > 0 ? ` ${parts.join(" and ")}` : "";
}
