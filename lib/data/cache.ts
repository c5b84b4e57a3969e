// Prepared data sets on disk, named by the hash of all that decides them. A file carries its checksum: a damaged one is made again, never trusted.

import { createHash, randomUUID } from "node:crypto";
import { closeSync, fstatSync, fsyncSync, mkdirSync, openSync, readSync, renameSync, rmSync, writeSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import type { DataOptions } from "./pipeline.ts";
import type { DataReport } from "./report.ts";
import { treeBytes } from "./tree_table.ts";
import type { TreeArrays } from "./tree_table.ts";

/** Raised whenever encoding or this file changes, so that older entries are not found. */
const VERSION = 1;
const MAGIC = "ATTNDATA";
const CHECKSUM = 32;
const MAX_HEADER = 16 << 20;

export interface CacheEntry {
  readonly arrays: TreeArrays;
  readonly report: DataReport;
  readonly hash: string;
}

/** `$XDG_CACHE_HOME/attune`, else `~/.cache/attune`. */
export function cacheRoot(): string {
  const xdg = process.env["XDG_CACHE_HOME"];
  return join(xdg && isAbsolute(xdg) ? xdg : join(homedir(), ".cache"), "attune");
}

/** The name of an entry: SHA-256 over file, tokenizer, templates and options. The date counts only where a template prints it. */
export function cacheKey(
  fileHash: string,
  tokenizerHash: string,
  templates: ReadonlyMap<string, string>,
  options: DataOptions,
): string {
  const { tokenizer: _, chatTemplatePath: __, chatTemplateDate, ...rest } = options;
  const dated = [...templates.values()].some((t) => t.includes("strftime_now"));
  const parts = [
    VERSION,
    fileHash,
    tokenizerHash,
    [...templates],
    dated ? chatTemplateDate : null,
    Object.entries(rest).sort(),
  ];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}

/** SHA-256 of a file, read in pieces; null where it cannot be read. */
export function hashFile(path: string): string | null {
  let file: number | null = null;
  try {
    file = openSync(path, "r");
    const hash = createHash("sha256");
    const piece = Buffer.alloc(1 << 20);
    for (let n = readSync(file, piece); n > 0; n = readSync(file, piece)) hash.update(piece.subarray(0, n));
    return hash.digest("hex");
  } catch {
    return null;
  } finally {
    if (file !== null) closeSync(file);
  }
}

const entryPath = (root: string, key: string): string => join(root, "data", `${key}.bin`);

/** Reads an entry; null where there is none or it is damaged. */
export function readCache(root: string, key: string): CacheEntry | null {
  let file: number | null = null;
  try {
    file = openSync(entryPath(root, key), "r");
    const head = Buffer.alloc(MAGIC.length + 4);
    readFully(file, head);
    const headerBytes = head.readUInt32LE(MAGIC.length);
    if (head.toString("latin1", 0, MAGIC.length) !== MAGIC || headerBytes > MAX_HEADER) return null;
    const header = Buffer.alloc(headerBytes);
    readFully(file, header);
    const { shape, report, hash } = JSON.parse(header.toString("utf8")) as Header;
    const bytes = treeBytes(shape);
    if (!Number.isSafeInteger(bytes) || fstatSync(file).size !== head.length + headerBytes + bytes + CHECKSUM)
      return null;
    const buffer = new ArrayBuffer(bytes);
    const body = Buffer.from(buffer);
    readFully(file, body);
    const sum = Buffer.alloc(CHECKSUM);
    readFully(file, sum);
    if (!checksum(head, header, body).equals(sum)) return null;
    return { arrays: { ...shape, buffer }, report, hash };
  } catch {
    return null;
  } finally {
    if (file !== null) closeSync(file);
  }
}

interface Header {
  readonly shape: Omit<TreeArrays, "buffer">;
  readonly report: DataReport;
  readonly hash: string;
}

/** Writes an entry under a temporary name and renames it. A cache that cannot be written is no error: the next run prepares again. */
export function writeCache(root: string, key: string, entry: CacheEntry): void {
  const path = entryPath(root, key);
  const temporary = `${path}.${randomUUID().slice(0, 8)}.tmp`;
  let file: number | null = null;
  try {
    mkdirSync(join(root, "data"), { recursive: true });
    const { buffer, ...shape } = entry.arrays;
    const header = Buffer.from(JSON.stringify({ shape, report: entry.report, hash: entry.hash } satisfies Header));
    const head = Buffer.alloc(MAGIC.length + 4);
    head.write(MAGIC, "latin1");
    head.writeUInt32LE(header.length, MAGIC.length);
    const body = Buffer.from(buffer);
    file = openSync(temporary, "wx");
    for (const part of [head, header, body, checksum(head, header, body)]) writeFully(file, part);
    fsyncSync(file);
    closeSync(file);
    file = null;
    renameSync(temporary, path);
  } catch {
    if (file !== null) closeSync(file);
    try {
      rmSync(temporary, { force: true });
    } catch {
      // Its folder is none.
    }
  }
}

function checksum(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

const PIECE = 1 << 30;

function readFully(file: number, into: Buffer): void {
  for (let at = 0; at < into.length;) {
    const n = readSync(file, into, at, Math.min(PIECE, into.length - at), null);
    if (n === 0) throw new Error("the file is too short");
    at += n;
  }
}

function writeFully(file: number, from: Buffer): void {
  for (let at = 0; at < from.length;) at += writeSync(file, from, at, Math.min(PIECE, from.length - at));
}
