// `attune inspect`: what a run would train on, token by token.

import { createHash } from "node:crypto";
import { z } from "zod";
import type { Inspected, InspectedTokens } from "../train/inspect_run.ts";
import { parseShape } from "../train/config_parse.ts";
import { field } from "../train/config_schema.ts";
import type { Command } from "./command.ts";
import { library } from "./library.ts";
import { anyTaskShape, RUN_ARGUMENT, runOf } from "./run_file.ts";
import { formatRecord } from "./tables.ts";
import { printable } from "./text.ts";

const own = {
  rows: field(z.int().min(1).nullable().default(null), {
    group: "Inspect",
    defaultText: "20, and all with --json",
    description: "Rows to show; the figures at the end count all.",
  }),
};

export const command: Command = {
  summary: "Show every row as the run would see it, with the trained tokens marked",
  examples: [
    "attune inspect run.yaml",
    "attune inspect run.yaml --rows 3",
    "attune inspect run.yaml --json > rows.jsonl",
  ],
  shape: { ...own, ...anyTaskShape },
  argument: RUN_ARGUMENT,
  async run(call, io) {
    const { rows, ...flags } = call.flags;
    const options = parseShape(own, rows === undefined ? {} : { rows }, {
      spelling: "snake",
      label: (key) => `--${key}`,
    });
    const limit = options.rows ?? (io.json ? Infinity : 20);
    const { task, config } = await runOf({ ...call, flags }, io);
    const { inspectRun } = await library.inspect();
    const hooks = { signal: io.signal, onStage: io.progress.update, log: io.note };
    const figures = new Figures();
    let shown = 0;
    for await (const row of inspectRun(task, config, { ...hooks, decode: !io.json })) {
      figures.add(row);
      if (shown++ >= limit) continue;
      if (io.json) io.value(row);
      else io.text(forEyes(row, process.stdout.isTTY === true));
    }
    io.progress.close();
    if (!io.json) io.text(formatRecord(figures.summary()));
  },
};

/** A row as text: trained tokens in green on a terminal, in brackets elsewhere. */
export function forEyes(row: Inspected, colour: boolean): string {
  const lines = [`row ${row.row}${row.dropped === null ? "" : `: dropped (${printable(row.dropped)})`}`];
  const show = (name: string, tokens: InspectedTokens | undefined): void => {
    if (!tokens) return;
    const trained = tokens.trained.reduce((n, [a, b]) => n + b - a, 0);
    lines.push(`  ${name}${tokens.input_ids.length} tokens, ${trained} trained`);
    if (tokens.segments) lines.push(`    ${marked(tokens.segments, colour)}`);
  };
  if (row.input_ids && row.trained) show("", row as InspectedTokens);
  if (row.trunk !== undefined) lines.push(`  shared prompt: ${row.trunk} tokens`);
  show("chosen: ", row.chosen);
  show("rejected: ", row.rejected);
  for (const warning of row.warnings) lines.push(`  warning: ${printable(warning)}`);
  return `${lines.join("\n")}\n`;
}

function marked(segments: NonNullable<InspectedTokens["segments"]>, colour: boolean): string {
  const [on, off] = colour ? ["\x1b[32m", "\x1b[0m"] : ["[[", "]]"];
  const texts = segments.map(({ text, trained }) =>
    trained ? on + printable(text, true) + off : printable(text, true),
  );
  return texts.join("").replaceAll("\n", "\n    ");
}

/** Counts over all rows, for the lines at the end. */
class Figures {
  readonly #lengths: number[] = [];
  readonly #dropped: Record<string, number> = {};
  readonly #warnings: Record<string, number> = {};
  readonly #seen = new Set<string>();
  #rows = 0;
  #trained = 0;
  #duplicates = 0;

  add(row: Inspected): void {
    this.#rows++;
    if (row.dropped !== null) this.#dropped[row.dropped] = (this.#dropped[row.dropped] ?? 0) + 1;
    for (const warning of row.warnings) this.#warnings[warning] = (this.#warnings[warning] ?? 0) + 1;
    const parts = [row, row.chosen, row.rejected].filter((part) => part?.input_ids !== undefined) as InspectedTokens[];
    if (parts.length === 0) return;
    const hash = createHash("sha1");
    let length = row.trunk ?? 0;
    for (const part of parts) {
      hash.update(Int32Array.from(part.input_ids)).update("|");
      length += part.input_ids.length - (row.trunk ?? 0);
      this.#trained += part.trained.reduce((n, [a, b]) => n + b - a, 0);
    }
    this.#lengths.push(length);
    const key = hash.digest("base64");
    if (this.#seen.has(key)) this.#duplicates++;
    this.#seen.add(key);
  }

  summary(): Record<string, unknown> {
    const sorted = this.#lengths.toSorted((a, b) => a - b);
    const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
    return {
      rows: this.#rows,
      tokens: sorted.reduce((a, b) => a + b, 0),
      trained_tokens: this.#trained,
      "tokens a row": `${at(0)} least, ${at(0.5)} median, ${at(0.95)} at 95%, ${at(1)} most`,
      duplicates: this.#duplicates,
      ...(Object.keys(this.#dropped).length > 0 && { dropped: this.#dropped }),
      ...(Object.keys(this.#warnings).length > 0 && { warnings: this.#warnings }),
    };
  }
}
