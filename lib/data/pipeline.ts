// Rows in, encoded rows out, in batches: what the data worker runs for training and for inspect alike.

import { existsSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { DataError } from "../errors.ts";
import { RowEncoder } from "./encode.ts";
import type { EncodeOptions, EncodedRow } from "./encode.ts";
import { JsonError, fromJs, kindOf } from "./json.ts";
import { readRows } from "./rows.ts";
import type { OnBytes, Row } from "./rows.ts";
import { endTokens } from "./stop.ts";
import type { EndTokens } from "./stop.ts";
import { ChatTemplate, templateDate } from "./template.ts";
import { loadTokenizer } from "./tokenizer.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { TRIAL } from "./watch.ts";

/** What decides the tokens of a data set, besides its rows. Plain data: it crosses to the worker. */
export interface DataOptions extends EncodeOptions {
  /** Folder with tokenizer.json. */
  readonly tokenizer: string;
  /** A .jinja file, or a folder with a tokenizer whose templates are taken; null: the tokenizer's own. */
  readonly chatTemplatePath: string | null;
  /** What `strftime_now` prints, as YYYY-MM-DD. */
  readonly chatTemplateDate: string;
  readonly invalidRows: "error" | "drop";
  /** Ids must be below this, the model's vocabulary; null: not checked. */
  readonly vocabSize: number | null;
}

export interface Source {
  readonly name: string;
  /** Rows as they come; `line` 0 where there are no lines. */
  rows(onBytes?: OnBytes): AsyncIterable<Row>;
}

export interface Loaded {
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate | null;
  readonly templates: ReadonlyMap<string, string>;
  readonly ends: EndTokens;
  readonly encoder: RowEncoder;
}

/** Tokenizer, template and encoder of a run. Errors: DataError. */
export async function load(options: DataOptions, onRow?: (row: number) => void): Promise<Loaded> {
  const tokenizer = loadTokenizer(options.tokenizer);
  const templates =
    options.chatTemplatePath === null ? tokenizer.templates : readTemplatePath(options.chatTemplatePath);
  const date = templateDate(options.chatTemplateDate);
  onRow?.(TRIAL);
  const template =
    templates.size === 0 ? null : new ChatTemplate({ sources: templates, special: tokenizer.special, date });
  const ends = await endTokens(tokenizer, template);
  onRow?.(-1);
  return { tokenizer, template, templates, ends, encoder: new RowEncoder(tokenizer, template, ends, options) };
}

function readTemplatePath(path: string): ReadonlyMap<string, string> {
  if (!existsSync(path)) throw new DataError(`chat_template_path: a file or folder must exist, got ${path}`);
  if (!statSync(path).isDirectory()) return new Map([["default", readFileSync(path, "utf8")]]);
  const file = join(path, "chat_template.jinja");
  if (existsSync(file)) return new Map([["default", readFileSync(file, "utf8")]]);
  const { templates } = loadTokenizer(path);
  if (templates.size === 0)
    throw new DataError(`chat_template_path: a folder must hold a chat template, got none in ${path}`);
  return templates;
}

/** A file as a source. */
export function fileSource(path: string): Source {
  return { name: basename(path), rows: (onBytes) => readRows(path, onBytes) };
}

/** Values of a program's own, already counted, as rows. */
export function toRow(value: unknown, row: number): Row {
  try {
    const json = fromJs(value);
    if (!(json instanceof Map)) throw new JsonError(`a row must be an object, got ${kindOf(json)}`, 0);
    return { row, line: 0, value: json };
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    throw new DataError(`dataset: row ${row}: ${e.message}`, { cause: e });
  }
}

const BATCH_ROWS = 64;
const BATCH_UNITS = 1 << 20;

/** Encodes all rows in order, a batch at a time. `onRow` is told which row's template runs (-1: none). */
export async function* encodeAll(
  source: Source,
  encoder: RowEncoder,
  onRow?: (row: number) => void,
  onBytes?: OnBytes,
): AsyncGenerator<{ rows: readonly Row[]; encoded: readonly EncodedRow[] }> {
  let batch: Row[] = [];
  let units = 0;
  for await (const row of source.rows(onBytes)) {
    batch.push(row);
    units += roughUnits(row.value);
    if (batch.length < BATCH_ROWS && units < BATCH_UNITS) continue;
    yield { rows: batch, encoded: await encoder.encode(batch, onRow) };
    batch = [];
    units = 0;
  }
  if (batch.length > 0) yield { rows: batch, encoded: await encoder.encode(batch, onRow) };
}

function roughUnits(value: unknown): number {
  if (typeof value === "string") return value.length;
  let n = 0;
  if (value instanceof Map) for (const v of value.values()) n += roughUnits(v);
  else if (Array.isArray(value)) for (const v of value) n += roughUnits(v);
  return n;
}

/** The error of a row that must not be used, naming file and line. */
export function invalidRow(source: Source, row: Row, message: string, mend = "invalid_rows: drop leaves such rows out"): DataError {
  const where = row.line > 0 ? `${source.name}:${row.line}` : `${source.name}: row ${row.row}`;
  const said = message.endsWith(")") ? `${message.slice(0, -1)}; ${mend})` : `${message} (${mend})`;
  return new DataError(`${where}: ${said}`);
}

/** Errors where an id is past the model's vocabulary. */
export function checkVocab(encoded: EncodedRow, source: Source, row: Row, vocabSize: number): void {
  for (const part of [encoded.tree.trunk, ...encoded.tree.branches.map((b) => b.ids)])
    for (const id of part)
      if (id >= vocabSize)
        throw invalidRow(
          source,
          row,
          `ids must be below the model's vocab_size ${vocabSize}, got ${id}`,
          "the tokenizer belongs to another model",
        );
}
