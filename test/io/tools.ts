// Shared by the tests of this room: temporary folders, a seeded generator, and a stand-in for the native session's file transfers.
import { closeSync, cpSync, mkdtempSync, openSync, readSync, writeSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";
import type { Parameter } from "#lib/models/config.js";
import type { WeightTransfer } from "#lib/io/model_folder.js";

export const fixtures = fileURLToPath(new URL("../fixtures/io/", import.meta.url));

const made: string[] = [];
afterAll(() => Promise.all(made.map((dir) => rm(dir, { recursive: true, force: true }))));

/** A folder that is removed after the test file. */
export function temporaryFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), "attune-io-"));
  made.push(dir); // a hook set inside a test would never run
  return dir;
}

/** A writable copy of a fixture model. */
export function copyOfModel(family: string): string {
  const dir = join(temporaryFolder(), family);
  cpSync(join(fixtures, "models", family), dir, { recursive: true });
  return dir;
}

/** Seeded numbers in [0, 1): xorshift32. */
export function random(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

const sizes = { float32: 4, bfloat16: 2, float16: 2 };

/** Reads every buffer's raw bytes, in the file's dtype, as the native session would. */
export function readBuffers(transfers: readonly WeightTransfer[], list: readonly Parameter[]): Map<string, Buffer> {
  const buffers = new Map<string, Buffer>();
  for (const t of transfers) {
    const parameter = list.find((p) => t.buffer === `weights/${p.name}`)!;
    const rowBytes = parameter.shape.slice(1).reduce((a, b) => a * b, sizes[t.fileDtype]);
    const buffer = buffers.get(t.buffer) ?? Buffer.alloc(parameter.shape[0]! * rowBytes);
    buffers.set(t.buffer, buffer);
    const file = openSync(t.path, "r");
    readSync(file, buffer, t.rowStart * rowBytes, t.rows * rowBytes, t.fileOffset);
    closeSync(file);
  }
  return buffers;
}

/** The reverse: writes rows of raw bytes. */
export function writeBuffers(
  transfers: readonly WeightTransfer[],
  list: readonly Parameter[],
  buffers: Map<string, Buffer>,
) {
  for (const t of transfers) {
    const parameter = list.find((p) => t.buffer === `weights/${p.name}`)!;
    const rowBytes = parameter.shape.slice(1).reduce((a, b) => a * b, sizes[t.fileDtype]);
    const file = openSync(t.path, "r+");
    writeSync(file, buffers.get(t.buffer)!, t.rowStart * rowBytes, t.rows * rowBytes, t.fileOffset);
    closeSync(file);
  }
}
