// Flags from a shape: how they are read from a command line, and how `--help` shows them.

import { Option } from "commander";
import type { z } from "zod";
import { ConfigError } from "../errors.ts";
import { unknownKey } from "../train/config_parse.ts";
import { choicesOf, defaultOf, metaOf, typesOf } from "../train/config_schema.ts";
import type { Shape } from "../train/config_schema.ts";

/** Flags that every command has. */
const COMMON: ReadonlySet<string> = new Set(["json", "help"]);

/** A command line with each flag as one word, `--key=value`, spelt as the shape spells it. */
export interface Words {
  readonly words: readonly string[];
  /** Flags that the shape does not have, as given. */
  readonly problems: readonly string[];
}

/**
 * Brings flags into one form: `-` or `_` between words, `--flag` and `--no-flag` for booleans, `--flag value` or
 * `--flag=value` for the others. A value is never taken for a flag.
 */
export function normaliseFlags(argv: readonly string[], shape: Shape): Words {
  const words: string[] = [];
  const problems: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!;
    if (word === "--") {
      words.push(...argv.slice(i));
      break;
    }
    if (!word.startsWith("--")) {
      words.push(word);
      continue;
    }
    const equals = word.indexOf("=");
    const given = equals < 0 ? word : word.slice(0, equals);
    const value = equals < 0 ? undefined : word.slice(equals + 1);
    let key = given.slice(2).replaceAll("-", "_");
    const off = key.startsWith("no_") && !Object.hasOwn(shape, key);
    if (off) key = key.slice(3);
    if (COMMON.has(key) && !off) {
      if (value === undefined) words.push(`--${key}`);
      else problems.push(`${given}: must stand alone, got ${JSON.stringify(value)}`);
      continue;
    }
    if (!Object.hasOwn(shape, key)) {
      problems.push(`${given}: ${unknownKey(key, [...Object.keys(shape), ...COMMON], "flag")}`);
      continue;
    }
    const types = typesOf(shape[key]!);
    const next = argv[i + 1];
    if (off) {
      if (types.has("boolean") && value === undefined) words.push(`--${key}=false`);
      else problems.push(`${given}: no such flag (--${key} takes a value)`);
    } else if (value !== undefined) words.push(`--${key}=${value}`);
    else if (types.has("boolean")) {
      const said = next === "true" || next === "false" || next === "null";
      words.push(`--${key}=${said ? next : "true"}`);
      if (said) i++;
    } else if (next === undefined) problems.push(`${given}: must be followed by a value, got nothing`);
    else {
      words.push(`--${key}=${next}`);
      i++;
    }
  }
  return { words, problems };
}

/** A flag's text as the JSON value that its key accepts; a text that fits no other type stays one, for the schema to judge. */
export function flagValue(schema: z.ZodType, text: string): unknown {
  const types = typesOf(schema);
  if (types.has("null") && text === "null") return null;
  if (types.has("boolean") && (text === "true" || text === "false")) return text === "true";
  if ((types.has("number") || types.has("integer")) && text.trim() !== "" && Number.isFinite(Number(text)))
    return Number(text);
  return text;
}

/** The options of commander for a shape, grouped and with defaults in words. */
export function optionsOf(shape: Shape): Option[] {
  return Object.entries(shape).map(([key, schema]) => {
    const meta = metaOf(schema);
    const types = typesOf(schema);
    const choices = choicesOf(schema);
    const named =
      meta.placeholder ?? (choices.length > 0 && choices.length <= 3 ? choices.join("|") : placeholderOf(types));
    const value = types.has("boolean") ? "[true|false]" : `<${named}>`;
    const option = new Option(`--${key} ${value}`, `${meta.description}${defaultWords(schema)}`).helpGroup(
      `${meta.group}:`,
    );
    return option.argParser((text: string, before: unknown) => {
      const read = flagValue(schema, text);
      return types.has("array") && !types.has("string") ? [...((before as unknown[] | undefined) ?? []), read] : read;
    });
  });
}

function placeholderOf(types: ReadonlySet<string>): string {
  if (types.has("integer")) return "n";
  return types.has("number") ? "number" : types.has("array") ? "text" : "name";
}

/** The default of a key in words, "" where it must be given. */
export function defaultWords(schema: z.ZodType): string {
  const { defaultText } = metaOf(schema);
  if (defaultText !== undefined) return ` (default: ${defaultText})`;
  const value = defaultOf(schema);
  if (typeof value === "number") return ` (default: ${formatDefault(value)})`;
  if (value !== undefined) return ` (default: ${typeof value === "string" ? value : JSON.stringify(value)})`;
  return schema.safeParse(undefined).success ? "" : " (required)";
}

/** 1e-6 rather than 0.000001. */
function formatDefault(value: number): string {
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : String(value);
}

/** @throws ConfigError where there are problems. */
export function refuse(problems: readonly string[]): void {
  if (problems.length > 0) throw new ConfigError(problems.join("\n"));
}
