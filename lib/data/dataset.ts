// Prepares a data set: everything is tokenised once, in a worker thread, and cached on disk. The event loop of the caller stays free.

import { DataError } from "../errors.ts";
import { Thread } from "../thread.ts";
import { cacheRoot } from "./cache.ts";
import type { InspectRecord } from "./inspect.ts";
import type { Done, Job, Note } from "./messages.ts";
import type { DataOptions } from "./pipeline.ts";
import type { DataReport } from "./report.ts";
import { TreeTable } from "./tree_table.ts";
import { newWatch, outOfHeap, TEMPLATE_SECONDS, watchTemplate, WORKER_HEAP } from "./watch.ts";
import type { DataFunctions } from "./worker.ts";

export type Rows = Iterable<unknown> | AsyncIterable<unknown>;

/** Options of `prepare` and `inspect`. Those left out take TRL's defaults. */
export interface PrepareOptions extends Partial<Omit<DataOptions, "task" | "tokenizer">> {
  readonly task: "sft" | "dpo";
  /** A JSONL or JSON file, or rows. */
  readonly dataset: string | Rows;
  /** Folder with tokenizer.json. */
  readonly tokenizer: string;
  /** Root of the cache (`$XDG_CACHE_HOME/attune`, else `~/.cache/attune`), or false: none. Rows that are not a file are never cached. */
  readonly cache?: string | false;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  /** Longest that the chat template may run on one row, in seconds (10). */
  readonly templateSeconds?: number;
  /** JavaScript heap of the worker in MiB (2048). */
  readonly workerMemory?: number;
}

/** Rows done so far; bytes of the file, 0 of 0 where the rows are not a file. */
export interface Progress {
  readonly rows: number;
  readonly bytes: number;
  readonly totalBytes: number;
}

/** A data set ready to train on. */
export interface Prepared {
  readonly task: "sft" | "dpo";
  readonly trees: TreeTable;
  readonly report: DataReport;
  /** SHA-256 over the trees: the same tokens and losses give the same hash. */
  readonly hash: string;
  /** Whether the trees came from the disk. */
  readonly cached: boolean;
}

/**
 * Reads, renders, tokenises and checks a data set.
 * Errors: DataError with file and line for an invalid row (`invalidRows: "error"`), a bad file, tokenizer or template; the signal's reason when aborted.
 */
export async function prepare(options: PrepareOptions): Promise<Prepared> {
  const done = await runWorker(options, "prepare", () => {});
  return {
    task: options.task,
    trees: new TreeTable(done.arrays!),
    report: done.report,
    hash: done.hash,
    cached: done.cached,
  };
}

/** The full options of a job, with defaults. */
function dataOptions(o: PrepareOptions): DataOptions {
  return {
    task: o.task,
    tokenizer: o.tokenizer,
    textField: o.textField ?? "text",
    roleMap: { ...o.roleMap },
    maxLength: o.maxLength === undefined ? 1024 : o.maxLength,
    assistantOnlyLoss: o.assistantOnlyLoss ?? false,
    completionOnlyLoss: o.completionOnlyLoss ?? null,
    specialTokensInContent: o.specialTokensInContent ?? "warn",
    untrainedRows: o.untrainedRows ?? "keep",
    chatTemplatePath: o.chatTemplatePath ?? null,
    chatTemplateDate: o.chatTemplateDate ?? today(),
    invalidRows: o.invalidRows ?? "error",
    vocabSize: o.vocabSize ?? null,
  };
}

/** The local date, as `chatTemplateDate` takes it. */
export function today(): string {
  const d = new Date();
  return [d.getFullYear(), d.getMonth() + 1, d.getDate()].map((n) => String(n).padStart(2, "0")).join("-");
}

/** Runs a job to its end. Records of inspect go to `onRecords` as they come; a promise it returns holds the worker back. */
export async function runWorker(
  options: PrepareOptions,
  mode: Job["mode"],
  onRecords: (records: readonly InspectRecord[]) => void | Promise<void>,
): Promise<Done> {
  const { dataset, signal } = options;
  signal?.throwIfAborted();
  const path = typeof dataset === "string" ? dataset : null;
  const cache = options.cache === false ? null : (options.cache ?? cacheRoot());
  const watch = newWatch();
  const heap = options.workerMemory ?? WORKER_HEAP;
  const onNote = (message: unknown): void => {
    const m = message as Note;
    if (m.type === "need") feed?.next();
    else if (m.type === "records") Promise.resolve(onRecords(m.records)).then(() => recordsRead(watch), fail);
    else options.onProgress?.({ rows: m.rows, bytes: m.bytes, totalBytes: m.totalBytes });
  };
  const thread = new Thread<DataFunctions>(new URL("./worker.js", import.meta.url), { name: "data", heap, onNote });
  const fail = (e: unknown): void => void thread.close(e);
  const abort = (): void => fail(signal!.reason);
  signal?.addEventListener("abort", abort, { once: true });
  const watchdog = watchTemplate(watch, options.templateSeconds ?? TEMPLATE_SECONDS, fail);
  const feed = path === null ? new Feed(thread, dataset as Rows, fail) : null;
  try {
    return await thread.call("run", [{ mode, path, options: dataOptions(options), cache }, watch]);
  } catch (e) {
    throw outOfHeap(e, heap);
  } finally {
    clearInterval(watchdog);
    signal?.removeEventListener("abort", abort);
    feed?.stop();
    await thread.close();
  }
}

function recordsRead(watch: SharedArrayBuffer): void {
  const unread = new Int32Array(watch, 4, 1);
  Atomics.sub(unread, 0, 1);
  Atomics.notify(unread, 0);
}

const FEED_ROWS = 64;

/** Sends rows of the caller's iterable to the worker as it asks for them. */
class Feed {
  readonly #thread: Thread<DataFunctions>;
  readonly #iterator: AsyncIterator<unknown> | Iterator<unknown>;
  readonly #fail: (e: unknown) => void;
  #row = 0;
  #stopped = false;

  constructor(thread: Thread<DataFunctions>, rows: Rows, fail: (e: unknown) => void) {
    this.#thread = thread;
    this.#iterator = Symbol.asyncIterator in rows ? rows[Symbol.asyncIterator]() : rows[Symbol.iterator]();
    this.#fail = fail;
  }

  next(): void {
    void this.#send().catch(this.#fail);
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    void Promise.resolve(this.#iterator.return?.()).catch(() => {});
  }

  async #send(): Promise<void> {
    const rows: unknown[] = [];
    let ended = false;
    while (rows.length < FEED_ROWS && !this.#stopped) {
      const next = await this.#iterator.next();
      if (next.done) {
        ended = true;
        break;
      }
      rows.push(next.value);
    }
    if (this.#stopped) return;
    try {
      if (rows.length > 0) this.#thread.tell({ type: "rows", rows });
    } catch (e) {
      throw new DataError(
        `dataset: rows ${this.#row} to ${this.#row + rows.length - 1} must be plain data, got ${(e as Error).message}`,
        { cause: e },
      );
    }
    this.#row += rows.length;
    if (!ended) return;
    this.#stopped = true;
    this.#thread.tell({ type: "end" });
  }
}
