// Where the recorded fixtures are, and how the tests read them: numbers as Python wrote them.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseJson } from "#lib/data/json.js";
import type { Json, JsonObject } from "#lib/data/json.js";
import { ChatTemplate, templateDate } from "#lib/data/template.js";
import { endTokens } from "#lib/data/stop.js";
import { RowEncoder } from "#lib/data/encode.js";
import type { EncodeOptions } from "#lib/data/encode.js";
import { loadTokenizer } from "#lib/data/tokenizer.js";

export const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/data/${name}`, import.meta.url));

export const readFixture = (name: string): JsonObject => parseJson(readFileSync(fixture(name), "utf8")) as JsonObject;

/** Plain numbers of a list of integers, however deep. */
export const numbers = (v: Json | undefined): unknown => (Array.isArray(v) ? v.map(numbers) : Number(v));

export const sft: EncodeOptions = {
  task: "sft",
  maxLength: null,
  assistantOnlyLoss: false,
  completionOnlyLoss: null,
  specialTokensInContent: "warn",
  untrainedRows: "keep",
};
export const dpo: EncodeOptions = { ...sft, task: "dpo" };

/** An encoder over one of the small tokenizers; `template` is a template's text, or null for the tokenizer's own. */
export async function encoderOf(
  tokenizer: string,
  options: EncodeOptions,
  template: string | null = null,
): Promise<RowEncoder> {
  const tok = loadTokenizer(fixture(`tokenizers/${tokenizer}`));
  const sources = template === null ? tok.templates : new Map([["default", template]]);
  const chat =
    sources.size === 0 ? null : new ChatTemplate({ sources, special: tok.special, date: templateDate("2026-07-06") });
  return new RowEncoder(tok, chat, await endTokens(tok, chat), options);
}

/** The ids of a span list as a sorted list of positions. */
export const positions = (spans: readonly (readonly [number, number])[]): number[] =>
  spans.flatMap(([a, b]) => Array.from({ length: b - a }, (_, i) => a + i));
