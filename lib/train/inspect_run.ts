// What a run would train on, row by row in the file's order: what `attune inspect` calls.

import { runWorker } from "../data/dataset.ts";
import type { InspectRecord, InspectSequence } from "../data/inspect.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { RunConfig, Task } from "./config.ts";
import { dataOptions } from "./data_options.ts";
import type { Stage } from "./progress.ts";

/** Tokens of one sequence, trunk included, where its loss is, and for eyes its text in pieces. */
export interface InspectedTokens extends InspectSequence {
  readonly segments?: readonly { readonly text: string; readonly trained: boolean }[];
}

/** What is said of a row. SFT rows have tokens of their own, preference rows the trunk's length and two branches. */
export interface Inspected extends Partial<InspectedTokens> {
  readonly row: number;
  readonly trunk?: number;
  readonly chosen?: InspectedTokens;
  readonly rejected?: InspectedTokens;
  readonly dropped: string | null;
  readonly warnings: readonly string[];
}

export interface InspectHooks {
  readonly signal: AbortSignal;
  onStage(stage: Stage): void;
  /** Adds `segments`. */
  readonly decode?: boolean;
}

/**
 * Every row of the run's data set, usable or not. Nothing is read before the first row is asked for.
 * @throws DataError where the file, the tokenizer or the template cannot be used at all.
 */
export async function* inspectRun(task: Task, config: RunConfig, hooks: InspectHooks): AsyncGenerator<Inspected> {
  const stop = new AbortController();
  const signal = AbortSignal.any([hooks.signal, stop.signal]);
  const waiting: { readonly records: readonly InspectRecord[]; readonly taken: () => void }[] = [];
  let wake = (): void => {};
  let ended = false;
  const onProgress = ({ rows }: { rows: number }): void =>
    hooks.onStage({ name: "reading", done: rows, total: null, unit: "rows" });
  // The worker reads on when the rows so far have been taken.
  const onRecords = (records: readonly InspectRecord[]): Promise<void> =>
    new Promise((taken) => {
      waiting.push({ records, taken });
      wake();
    });
  const work = runWorker({ ...dataOptions(task, config), signal, onProgress }, "inspect", onRecords).finally(() => {
    ended = true;
    wake();
  });
  // Its failure is thrown below, after the rows that came before it.
  work.catch(() => {});
  const tokenizer = hooks.decode ? loadTokenizer(config.model) : null;
  try {
    for (;;) {
      const next = waiting.shift();
      if (next) {
        for (const record of next.records) yield tokenizer ? await decoded(record, tokenizer) : record;
        next.taken();
        continue;
      }
      if (ended) break;
      await new Promise<void>((resolve) => (wake = resolve));
    }
    await work;
  } finally {
    stop.abort();
    await work.catch(() => {});
  }
}

async function decoded(record: InspectRecord, tokenizer: Tokenizer): Promise<Inspected> {
  if ("input_ids" in record) return { ...record, segments: await segments(record, tokenizer) };
  const side = async (one: InspectSequence): Promise<InspectedTokens> => ({
    ...one,
    segments: await segments(one, tokenizer),
  });
  return { ...record, chosen: await side(record.chosen), rejected: await side(record.rejected) };
}

/** The text between the borders of trained spans. A token that is half a character at a border shows as U+FFFD. */
async function segments(one: InspectSequence, tokenizer: Tokenizer): Promise<NonNullable<InspectedTokens["segments"]>> {
  const parts: { text: string; trained: boolean }[] = [];
  let at = 0;
  const add = async (end: number, trained: boolean): Promise<void> => {
    if (end > at) parts.push({ text: await tokenizer.decode(one.input_ids.slice(at, end)), trained });
    at = Math.max(at, end);
  };
  for (const [start, end] of one.trained) {
    await add(start, false);
    await add(end, true);
  }
  await add(one.input_ids.length, false);
  return parts;
}
