// Checkpoints of a run: output_dir/checkpoint-<step>, whole or absent, with a manifest (state.json) that holds the run's state and lists every
// file with its size and SHA-256, so that a damaged folder is found before it is trusted.
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { DataError } from "../errors.ts";
import { removeFolder, writeFolder } from "./atomic_folder.ts";
import { hashFiles } from "./hash.ts";
import { errorCode, isObject, readError, readJson, show, type JsonObject } from "./json.ts";
import { jsonText } from "./json_text.ts";
import { sync, writeText, writing } from "./write.ts";

/** What a run needs besides its tensors to go on bit for bit. */
export interface CheckpointState {
  /** Optimiser steps done. */
  readonly step: number;
  /** Epochs done, fractional, as the metrics show it. */
  readonly epoch: number;
  /** Where the order of examples goes on: epochs begun and examples of that epoch already used. */
  readonly cursor: { readonly epoch: number; readonly example: number };
  /** Hash of the resolved configuration's keys that alter the mathematics. */
  readonly configHash: string;
  /** Seeds by name: every random number is a function of a seed and a counter. */
  readonly seeds: { readonly [name: string]: number };
  /** Whatever else the run wants back; JSON. */
  readonly extra: JsonObject;
}

export interface Checkpoint {
  readonly dir: string;
  readonly step: number;
  readonly state: CheckpointState;
}

const manifestName = "state.json";
const formatVersion = 1;
const folderName = /^checkpoint-(0|[1-9]\d{0,14})$/;

interface Manifest {
  readonly state: CheckpointState;
  readonly files: readonly { readonly name: string; readonly size: number; readonly sha256: string }[];
}

/**
 * Writes output_dir/checkpoint-<step>. `write` fills the temporary folder that it is given (flat, no subfolders). Nothing of that name
 * exists before all of it is on disk. Throws WriteError, with every earlier checkpoint intact and nothing half-written left behind.
 */
export async function saveCheckpoint(
  outputDir: string,
  state: CheckpointState,
  write: (dir: string) => Promise<void>,
): Promise<Checkpoint> {
  const dir = join(outputDir, `checkpoint-${state.step}`);
  await writeFolder(dir, async (draft) => {
    await write(draft);
    const names = (await writing(draft, () => readdir(draft))).sort();
    // On disk before they are hashed: the sums must be those of what a reader will get.
    for (const name of names) await sync(join(draft, name));
    const hashes = await hashFiles(names.map((name) => join(draft, name)));
    const files = hashes.map(({ size, sha256 }, i) => ({ name: names[i]!, size, sha256 }));
    await writeText(join(draft, manifestName), jsonText({ format: formatVersion, ...state, files }));
  });
  return { dir, step: state.step, state };
}

export interface Found {
  readonly checkpoint: Checkpoint | null;
  /** Newer checkpoints that were passed over, newest first, each with one sentence why. */
  readonly skipped: readonly { readonly dir: string; readonly reason: string }[];
}

/** The newest complete checkpoint of a run, every byte checked against its manifest. Throws DataError where the folder cannot be read. */
export async function newestCheckpoint(outputDir: string): Promise<Found> {
  const skipped: { dir: string; reason: string }[] = [];
  for (const step of (await checkpointSteps(outputDir)).reverse()) {
    const dir = join(outputDir, `checkpoint-${step}`);
    try {
      return { checkpoint: await openCheckpoint(dir, step), skipped };
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      skipped.push({ dir, reason: error.message });
    }
  }
  return { checkpoint: null, skipped };
}

/** Steps of all folders named like a checkpoint, ascending, complete or not. A missing folder has none. */
export async function checkpointSteps(outputDir: string): Promise<number[]> {
  try {
    const names = await readdir(outputDir);
    const steps = names.flatMap((name) => folderName.exec(name)?.[1] ?? []).map(Number);
    return steps.sort((a, b) => a - b);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw readError(outputDir, error);
  }
}

async function openCheckpoint(dir: string, step: number): Promise<Checkpoint> {
  const { state, files } = await readManifest(dir, step);
  await checkSizes(dir, files);
  const hashes = await hashFiles(files.map((file) => join(dir, file.name)));
  for (const [i, file] of files.entries()) {
    if (hashes[i]!.sha256 !== file.sha256)
      throw new DataError(`${join(dir, file.name)}: content must match state.json, but it is damaged`);
  }
  return { dir, step, state };
}

async function readManifest(dir: string, step: number): Promise<Manifest> {
  const path = join(dir, manifestName);
  const { value } = await readJson(path, { maxBytes: 2 ** 26 });
  if (!isObject(value)) throw new DataError(`${path}: must be a JSON object, got ${show(value)}`);
  const { format, files, ...rest } = value;
  if (format !== formatVersion)
    throw new DataError(`${path}: format must be ${formatVersion}, got ${show(format)} (another attune wrote it)`);
  const state = rest as unknown as CheckpointState;
  const cursor: unknown = state.cursor;
  const whole = isObject(cursor) && Number.isInteger(cursor["epoch"]) && Number.isInteger(cursor["example"]);
  if (state.step !== step || !whole || typeof state.epoch !== "number" || typeof state.configHash !== "string") {
    throw new DataError(
      `${path}: must hold step ${step}, epoch, cursor and configHash, got ${show(Object.keys(rest))}`,
    );
  }
  if (!isObject(state.seeds) || !isObject(state.extra)) throw new DataError(`${path}: seeds and extra must be objects`);
  if (!Array.isArray(files) || !files.every(isFileEntry))
    throw new DataError(`${path}: files must list name, size and sha256`);
  return { state, files };
}

function isFileEntry(entry: unknown): entry is Manifest["files"][number] {
  if (!isObject(entry)) return false;
  const { name, size, sha256 } = entry;
  return (
    typeof name === "string" && /^[\w][\w.-]*$/.test(name) && Number.isSafeInteger(size) && typeof sha256 === "string"
  );
}

async function checkSizes(dir: string, files: Manifest["files"]): Promise<void> {
  for (const { name, size } of files) {
    const path = join(dir, name);
    let got: number;
    try {
      got = (await stat(path)).size;
    } catch (error) {
      throw readError(path, error);
    }
    if (got !== size) throw new DataError(`${path}: must be ${size} bytes by state.json, got ${got}`);
  }
}

/**
 * Keeps the newest `limit` complete checkpoints (by manifest and sizes) and removes everything older, complete or not. Newer damaged ones
 * stay for their owner to look at. Returns the removed folders. Throws WriteError.
 */
export async function pruneCheckpoints(outputDir: string, limit: number): Promise<string[]> {
  const removed: string[] = [];
  let kept = 0;
  for (const step of (await checkpointSteps(outputDir)).reverse()) {
    const dir = join(outputDir, `checkpoint-${step}`);
    if (kept < limit) {
      if (await looksComplete(dir, step)) kept++;
    } else {
      await removeFolder(dir);
      removed.push(dir);
    }
  }
  return removed;
}

async function looksComplete(dir: string, step: number): Promise<boolean> {
  try {
    await checkSizes(dir, (await readManifest(dir, step)).files);
    return true;
  } catch (error) {
    if (error instanceof DataError) return false;
    throw error;
  }
}
