// One job of the data worker: read, encode, count; hand over trees and report.

import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { DataError } from "../errors.ts";
import { cacheKey, hashFile, readCache, writeCache } from "./cache.ts";
import type { EncodedRow } from "./encode.ts";
import { inspectRecord } from "./inspect.ts";
import { Moved } from "../thread.ts";
import type { Done, Job, Note } from "./messages.ts";
import { checkVocab, encodeAll, fileSource, invalidRow, load } from "./pipeline.ts";
import type { DataOptions, Loaded, Source } from "./pipeline.ts";
import { tally } from "./report.ts";
import type { DataReport, TokenName } from "./report.ts";
import type { Row } from "./rows.ts";
import { TreeTableBuilder } from "./tree_table.ts";
import { treeTokens, trainedCount } from "./types.ts";
import { rowWatcher } from "./watch.ts";

export type Say = (message: Note) => void;

export async function runJob(job: Job, pushed: Source | null, watch: SharedArrayBuffer, say: Say): Promise<Moved<Done>> {
  const { options } = job;
  const source = pushed ?? fileSource(job.path!);
  const onRow = rowWatcher(watch);
  const loaded = await load(options, onRow);
  const cache = job.mode === "prepare" && job.path !== null ? job.cache : null;
  const keyOf = (fileHash: string): string => cacheKey(fileHash, loaded.tokenizer.hash, loaded.templates, options);
  if (cache !== null) {
    const fileHash = hashFile(job.path!);
    const entry = fileHash === null ? null : readCache(cache, keyOf(fileHash));
    if (entry) {
      const report = { ...entry.report, chatTemplateDate: options.chatTemplateDate };
      return new Moved({ arrays: entry.arrays, report, hash: entry.hash, cached: true }, [entry.arrays.buffer]);
    }
  }
  const report = startReport(loaded, options);
  const builder = new TreeTableBuilder(options.task === "dpo" ? 2 : 1);
  let bytes = 0;
  const totalBytes = job.path === null ? 0 : sizeOf(job.path);
  const fileHash = createHash("sha256");
  const onBytes = (chunk: Uint8Array): void => {
    bytes += chunk.length;
    if (cache !== null) fileHash.update(chunk);
  };
  for await (const { rows, encoded } of encodeAll(source, loaded.encoder, onRow, onBytes)) {
    if (job.mode === "inspect") sayRecords(encoded, watch, say);
    encoded.forEach((e, i) => {
      count(report, e);
      if (job.mode === "inspect") return;
      if (take(e, rows[i]!, source, options)) {
        if (options.vocabSize !== null) checkVocab(e, source, rows[i]!, options.vocabSize);
        builder.add(e.tree);
      }
    });
    say({ type: "progress", rows: report.rows, bytes, totalBytes });
  }
  if (job.mode === "inspect") return new Moved({ arrays: null, report, hash: "", cached: false }, []);
  if (report.kept === 0) throw nothingLeft(source, report);
  const arrays = builder.finish();
  const hash = createHash("sha256").update(new Uint8Array(arrays.buffer)).digest("hex");
  // Named by the bytes that were read: the file may have changed since it was looked up.
  if (cache !== null) writeCache(cache, keyOf(fileHash.digest("hex")), { arrays, report, hash });
  return new Moved({ arrays, report, hash, cached: false }, [arrays.buffer]);
}

/** Notes records, a batch ahead of the reader at most. */
function sayRecords(encoded: readonly EncodedRow[], watch: SharedArrayBuffer, say: Say): void {
  const unread = new Int32Array(watch, 4, 1);
  for (let n = Atomics.load(unread, 0); n > 1; n = Atomics.load(unread, 0)) Atomics.wait(unread, 0, n, 100);
  Atomics.add(unread, 0, 1);
  say({ type: "records", records: encoded.map(inspectRecord) });
}

function sizeOf(path: string): number {
  try {
    return statSync(path).size;
  } catch {
    return 0;
  }
}

/** Whether a row is trained on. Errors: DataError for an invalid one unless they are dropped. */
function take(e: EncodedRow, row: Row, source: Source, options: DataOptions): boolean {
  if (e.invalid !== null && (e.fatal || options.invalidRows === "error"))
    throw invalidRow(source, row, e.invalid, e.fatal ? "special_tokens_in_content: warn keeps such rows" : undefined);
  return e.dropped === null;
}

function nothingLeft(source: Source, report: DataReport): DataError {
  const reasons = Object.entries(report.dropped).map(([reason, t]) => `${t.count} ${reason}`);
  const got = report.rows === 0 ? "an empty one" : `${report.rows} rows, all dropped: ${reasons.join(", ")}`;
  return new DataError(`${source.name}: a data set must have at least one row to train on, got ${got}`);
}

function startReport({ tokenizer, ends }: Loaded, options: DataOptions): DataReport {
  const name = (id: number | null): TokenName | null =>
    id === null ? null : { id, text: tokenizer.idToToken(id) ?? "" };
  return {
    rows: 0,
    kept: 0,
    dropped: {},
    warnings: {},
    tokens: 0,
    trainedTokens: 0,
    longest: 0,
    longestKept: 0,
    conversational: false,
    bos: name(ends.bos),
    eos: name(ends.eos),
    stop: name(ends.stop),
    chatTemplateDate: options.chatTemplateDate,
  };
}

function count(report: DataReport, e: EncodedRow): void {
  report.rows++;
  for (const w of e.warnings) tally(report.warnings, w, e.row);
  if (e.dropped !== null) return tally(report.dropped, e.dropped, e.row);
  report.kept++;
  report.conversational ||= e.conversational;
  report.tokens += treeTokens(e.tree);
  report.trainedTokens += e.tree.branches.reduce((n, b) => n + trainedCount(b), 0);
  report.longest = Math.max(report.longest, e.fullLength);
  for (const b of e.tree.branches)
    report.longestKept = Math.max(report.longestKept, e.tree.trunk.length + b.ids.length);
}
