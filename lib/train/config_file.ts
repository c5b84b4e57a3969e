// Run files: reading YAML (JSON is YAML too) and laying flags over it.

import { readFile } from "node:fs/promises";
import { isMap, isScalar, isSeq, LineCounter, parseDocument } from "yaml";
import { ConfigError, whyUnread } from "../errors.ts";

/** The keys of a run file as written, and where each stands. */
export interface RunFile {
  readonly path: string;
  readonly values: Readonly<Record<string, unknown>>;
  /** Line of each key, from 1. */
  readonly lines: ReadonlyMap<string, number>;
}

/** Groups of keys that say one thing: a flag of one group takes the place of the other group in the file. */
const RIVALS: readonly (readonly [readonly string[], readonly string[]])[] = [
  [["batch_size"], ["per_device_train_batch_size", "gradient_accumulation_steps"]],
  [["warmup_steps"], ["warmup_ratio"]],
];

/**
 * Reads a run file. Paths in it are relative to the working directory, as TRL's are.
 * @throws ConfigError when it cannot be read or is not a YAML mapping.
 */
export async function readRunFile(path: string): Promise<RunFile> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new ConfigError(`${path}: must be a YAML file that can be read, got ${whyUnread(error)}`, { cause: error });
  }
  return parseRunFile(path, text);
}

/** As `readRunFile`, from the text of the file. */
export function parseRunFile(path: string, text: string): RunFile {
  const counter = new LineCounter();
  const document = parseDocument(text, { lineCounter: counter, prettyErrors: false, uniqueKeys: true });
  const problem = document.errors[0];
  if (problem) {
    const { line } = counter.linePos(problem.pos[0]);
    throw new ConfigError(`${path}:${line}: must be YAML, got a text that is not (${problem.message})`);
  }
  const lines = new Map<string, number>();
  if (document.contents === null) return { path, values: {}, lines };
  if (!isMap(document.contents)) {
    const got = isSeq(document.contents) ? "a list" : "a text";
    throw new ConfigError(`${path}: must be a YAML mapping of keys to values, such as "learning_rate: 2e-5", got ${got}`);
  }
  for (const pair of document.contents.items) {
    if (!isScalar(pair.key)) throw new ConfigError(`${path}: must have texts for keys, got a list or a mapping as one`);
    lines.set(String(pair.key.value), counter.linePos(pair.key.range?.[0] ?? 0).line);
  }
  let values: unknown;
  try {
    values = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new ConfigError(`${path}: must be YAML of modest size (${(error as Error).message})`, { cause: error });
  }
  return { path, values: values as Record<string, unknown>, lines };
}

/** Values of a file with flags laid over them, and how each key is called in a message. */
export interface Merged {
  readonly raw: Readonly<Record<string, unknown>>;
  readonly label: (key: string) => string;
}

/** Lays flags (snake_case keys) over the values of a file. */
export function mergeFlags(file: RunFile | null, flags: Readonly<Record<string, unknown>>): Merged {
  const given = new Set(Object.keys(flags));
  const replaced = new Set<string>();
  for (const [one, other] of RIVALS) {
    if (one.some((key) => given.has(key))) for (const key of other) replaced.add(key);
    if (other.some((key) => given.has(key))) for (const key of one) replaced.add(key);
  }
  const kept = Object.entries(file?.values ?? {}).filter(([key]) => !replaced.has(key));
  const label = (key: string): string => {
    if (given.has(key) || file === null) return `--${key}`;
    const line = file.lines.get(key);
    return line === undefined ? `${file.path}: ${key}` : `${file.path}:${line}: ${key}`;
  };
  return { raw: Object.fromEntries([...kept, ...Object.entries(flags)]), label };
}
