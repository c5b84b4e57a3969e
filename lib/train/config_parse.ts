// Checks values against a schema and turns every complaint into a sentence: what must hold, what was given, how to mend it.

import { z } from "zod";
import { ConfigError } from "../errors.ts";
import { closest, TRL_KEYS } from "./config_hints.ts";
import { camel, choicesOf, metaOf, mustOf, snake, typesOf } from "./config_schema.ts";
import type { Shape, Spelling } from "./config_schema.ts";

/** Where values come from, for messages. */
export interface Source {
  readonly spelling: Spelling;
  /** How a key is called in a message, such as `run.yaml:3: beta` or `--beta`; the key itself unless given. */
  readonly label?: ((key: string) => string) | undefined;
  /** What an unknown key is told when it belongs to another command. */
  readonly elsewhere?: ((key: string) => string | undefined) | undefined;
}

/** How a value is shown in a message: short, on one line, as it would be written in a file. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  if (Array.isArray(value)) return value.length <= 4 ? `[${value.map(show).join(", ")}]` : `a list of ${value.length}`;
  if (typeof value === "object" && value !== null) return "a mapping";
  return String(value);
}

// zod writes and compiles code for each schema at its first use: once for a shape, not for each trainer of a service.
const schemas = new WeakMap<Shape, z.ZodObject>();
function schemaOf(shape: Shape): z.ZodObject {
  const schema = schemas.get(shape) ?? z.strictObject(shape);
  schemas.set(shape, schema);
  return schema;
}

/**
 * Parses `raw` (keys in `source.spelling`) with a strict object of `shape` (keys in snake_case); defaults filled in.
 * @throws ConfigError with every problem, one a line.
 */
export function parseShape<S extends Shape>(shape: S, raw: Readonly<Record<string, unknown>>, source: Source) {
  const spell = (key: string): string => (source.spelling === "camel" ? camel(key) : key);
  const label = source.label ?? spell;
  const problems: string[] = [];
  const input: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(raw)) {
    const name = source.spelling === "camel" ? snake(key) : key;
    // A library key in snake_case is a mistake too: one spelling for each place.
    if (Object.hasOwn(shape, name) && spell(name) === key) {
      if (value !== undefined) input[name] = value;
    } else {
      const said = source.spelling === "camel" ? key : label(key);
      problems.push(`${said}: ${unknownKey(name, Object.keys(shape).map(spell), "key", source.elsewhere)}`);
    }
  }
  const result = schemaOf(shape).safeParse(input);
  if (!result.success) {
    const seen = new Set<string>();
    for (const issue of result.error.issues) {
      const key = String(issue.path[0]);
      if (seen.has(key)) continue;
      seen.add(key);
      problems.push(`${label(key)}: ${complaint(shape[key]!, input[key])}`);
    }
  }
  if (problems.length > 0) throw new ConfigError(problems.join("\n"));
  return result.data as z.output<z.ZodObject<S>>;
}

/** What is said of a key that does not exist: what to write instead, where that is known. */
export function unknownKey(
  name: string,
  known: readonly string[],
  noun: "key" | "flag",
  elsewhere?: (key: string) => string | undefined,
): string {
  const answer = elsewhere?.(name) ?? (Object.hasOwn(TRL_KEYS, name) ? TRL_KEYS[name] : undefined);
  if (answer !== undefined) return `no such ${noun} (${answer})`;
  const meant = closest(name, known);
  const mend = meant === undefined ? "see --help" : `did you mean ${noun === "flag" ? "--" : ""}${meant}?`;
  return `no such ${noun} (${mend})`;
}

function complaint(schema: z.ZodType, value: unknown): string {
  const must = mustOf(schema);
  if (value === undefined) return `must be given: ${lowerFirst(metaOf(schema).description)}`;
  const hint = mend(schema, value);
  return `must be ${must}, got ${show(value)}${hint === undefined ? "" : ` (${hint})`}`;
}

function lowerFirst(text: string): string {
  const sentence = text.replace(/\.$/, "");
  return sentence.charAt(0).toLowerCase() + sentence.slice(1);
}

function mend(schema: z.ZodType, value: unknown): string | undefined {
  const types = typesOf(schema);
  if (typeof value !== "string") {
    if (value === null) return "leave the key out for its default";
    if (types.has("integer") && typeof value === "number" && !Number.isInteger(value)) return "no fractions";
    return types.has("string") && typeof value === "number" ? "put it in quotes" : undefined;
  }
  if ((types.has("number") || types.has("integer")) && value.trim() !== "" && Number.isFinite(Number(value))) {
    return "a text: remove the quotes";
  }
  if (types.has("boolean")) {
    if (/^(yes|on|y)$/i.test(value)) return "write true";
    if (/^(no|off|n)$/i.test(value)) return "write false";
  }
  const meant = closest(value, choicesOf(schema));
  return meant === undefined ? undefined : `did you mean ${meant}?`;
}
