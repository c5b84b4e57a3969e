// Prepares a data set: everything is tokenised once, in a worker thread, and cached on disk. The event loop of the caller stays free.

import { randomUUID } from "node:crypto";
import { Worker } from "node:worker_threads";
import * as errors from "../errors.ts";
import { DataError } from "../errors.ts";
import { cacheRoot } from "./cache.ts";
import type { InspectRecord } from "./inspect.ts";
import { TRIAL, WATCH_BYTES } from "./messages.ts";
import type { FromWorker, Job } from "./messages.ts";
import type { DataOptions } from "./pipeline.ts";
import type { DataReport } from "./report.ts";
import { TreeTable } from "./tree_table.ts";

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

type Done = Extract<FromWorker, { type: "done" }>;

/** Runs a job to its end. Records of inspect go to `onRecords` as they come; a promise it returns holds the worker back. */
export function runWorker(
  options: PrepareOptions,
  mode: Job["mode"],
  onRecords: (records: readonly InspectRecord[]) => void | Promise<void>,
): Promise<Done> {
  const { dataset, signal } = options;
  if (signal?.aborted) return Promise.reject(signal.reason as Error);
  const path = typeof dataset === "string" ? dataset : null;
  const job: Job = {
    mode,
    path,
    options: dataOptions(options),
    cache: options.cache === false ? null : (options.cache ?? cacheRoot()),
  };
  const watch = new SharedArrayBuffer(WATCH_BYTES);
  new Int32Array(watch)[0] = -1;
  const memory = options.workerMemory ?? 2048;
  const worker = new Worker(new URL("./worker.js", import.meta.url), {
    name: `attune-data-${randomUUID().slice(0, 8)}`,
    workerData: { job, watch },
    resourceLimits: { maxOldGenerationSizeMb: memory, stackSizeMb: 4 },
  });
  return new Promise<Done>((resolve, reject) => {
    let settled = false;
    const settle = (finish: () => void): void => {
      if (settled) return;
      settled = true;
      clearInterval(watchdog);
      signal?.removeEventListener("abort", abort);
      feed?.stop();
      void worker.terminate().then(finish);
    };
    const fail = (e: unknown): void => settle(() => reject(e as Error));
    const abort = (): void => fail(signal!.reason);
    signal?.addEventListener("abort", abort, { once: true });
    const watchdog = watchTemplate(watch, (options.templateSeconds ?? 10) * 1000, fail);
    const feed = path === null ? new Feed(worker, dataset as Rows, fail) : null;
    worker.on("message", (m: FromWorker) => {
      if (settled) return;
      if (m.type === "need") feed?.next();
      else if (m.type === "records") Promise.resolve(onRecords(m.records)).then(() => recordsRead(watch), fail);
      else if (m.type === "progress") options.onProgress?.({ rows: m.rows, bytes: m.bytes, totalBytes: m.totalBytes });
      else if (m.type === "error") fail(revive(m));
      else settle(() => resolve(m));
    });
    worker.on("error", (e: Error & { code?: string }) =>
      fail(
        e.code === "ERR_WORKER_OUT_OF_MEMORY"
          ? new DataError(`data: rows and chat template must fit in ${memory} MiB of memory, got more`, { cause: e })
          : e,
      ),
    );
    worker.on("exit", (code) => fail(new DataError(`data: the worker must finish, got exit ${code}`)));
  });
}

function recordsRead(watch: SharedArrayBuffer): void {
  const unread = new Int32Array(watch, 4, 1);
  Atomics.sub(unread, 0, 1);
  Atomics.notify(unread, 0);
}

/** Ends a job whose template runs for too long on one row: nothing inside the thread could. */
function watchTemplate(watch: SharedArrayBuffer, limit: number, fail: (e: Error) => void): NodeJS.Timeout {
  const [row, since] = [new Int32Array(watch, 0, 1), new Float64Array(watch, 8, 1)];
  return setInterval(
    () => {
      const at = Atomics.load(row, 0);
      if (at >= 0 && Date.now() - since[0]! > limit)
        fail(
          new DataError(
            `data: ${at === TRIAL ? "" : `row ${at}: `}the chat template must render a conversation within ${limit / 1000} s, got no end`,
          ),
        );
    },
    Math.min(limit / 4, 250),
  );
}

function revive(m: Extract<FromWorker, { type: "error" }>): Error {
  const Class = (errors as unknown as Record<string, new (message: string, options?: object) => Error>)[m.name];
  if (m.code !== null && Class && m.name !== "AttuneError") return new Class(m.message, { code: m.code });
  const error = new Error(m.message);
  error.stack = m.stack;
  return error;
}

const FEED_ROWS = 64;

/** Sends rows of the caller's iterable to the worker as it asks for them. */
class Feed {
  readonly #worker: Worker;
  readonly #iterator: AsyncIterator<unknown> | Iterator<unknown>;
  readonly #fail: (e: unknown) => void;
  #row = 0;
  #stopped = false;

  constructor(worker: Worker, rows: Rows, fail: (e: unknown) => void) {
    this.#worker = worker;
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
      if (rows.length > 0) this.#worker.postMessage({ type: "rows", rows });
    } catch (e) {
      throw new DataError(
        `dataset: rows ${this.#row} to ${this.#row + rows.length - 1} must be plain data, got ${(e as Error).message}`,
        { cause: e },
      );
    }
    this.#row += rows.length;
    if (!ended) return;
    this.#stopped = true;
    this.#worker.postMessage({ type: "end" });
  }
}
