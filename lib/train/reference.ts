// The reference's log-probabilities: one no-grad pass before training, cached on disk under a hash of everything they depend on.
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { packStep } from "../data/pack.ts";
import type { TreeTable } from "../data/tree_table.ts";
import { hashFiles } from "../io/hash.ts";
import { Scorer, readWeights, type LoadedModel } from "./engine.ts";

export interface ReferenceOptions {
  readonly trees: TreeTable;
  readonly dataHash: string;
  readonly tokensPerBatch: number;
  readonly sharePrompt: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: (done: number, total: number) => void;
}

/** Sums (2 per tree: chosen, rejected), in the order of `trees`, and whether they came from the disk. */
export async function referenceLogps(loaded: LoadedModel, o: ReferenceOptions): Promise<{ logps: Float64Array; cached: boolean }> {
  const key = await cacheKey(loaded, o);
  const file = join(cacheDir(), `reference-${key}.bin`);
  const old = await readCache(file, 2 * o.trees.length);
  if (old) return { logps: old, cached: true };
  const rows = mostRows(o.trees, o.tokensPerBatch);
  const scorer = await Scorer.create(loaded, { tokens: o.tokensPerBatch, rows });
  await readWeights(loaded);
  const logps = new Float64Array(2 * o.trees.length);
  const group = 64;
  for (let from = 0; from < o.trees.length; from += group) {
    const part = Array.from({ length: Math.min(group, o.trees.length - from) }, (_, i) => o.trees.at(from + i));
    for (const micro of packStep(part, { tokensPerBatch: o.tokensPerBatch, rowsPerBatch: rows, sharePrompt: o.sharePrompt })) {
      o.signal.throwIfAborted();
      const { logp } = await scorer.score(micro, o.signal);
      micro.branch.forEach((b, m) => {
        const e = micro.examples[Math.floor(b / 2)]!;
        logps[2 * (from + e.tree) + (b % 2)]! += logp[m]!;
      });
    }
    o.onProgress(Math.min(from + group, o.trees.length), o.trees.length);
  }
  await scorer.close();
  await writeCache(file, logps);
  return { logps, cached: false };
}

/** Head rows that a micro-batch of that many tokens may have: a trunk's last row counts once per branch. */
export function mostRows(trees: TreeTable, tokensPerBatch: number): number {
  let most = 1;
  for (let i = 0; i < trees.length; i++) most = Math.max(most, trees.trained(i));
  return Math.max(most, tokensPerBatch);
}

async function cacheKey(loaded: LoadedModel, o: ReferenceOptions): Promise<string> {
  const files = [...new Set([...loaded.model.tensors.values()].map((t) => t.file))].sort();
  const hashes = await hashFiles([join(loaded.model.dir, "config.json"), ...files]);
  const parts = ["reference 1", ...hashes.map((h) => h.sha256), o.dataHash, loaded.spec.dtype, loaded.session.device];
  return createHash("sha256").update(parts.join("\n")).digest("hex").slice(0, 40);
}

export const cacheDir = (): string => join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "attune");

/** The numbers and their SHA-256; a file that does not hold both is not trusted. */
async function readCache(file: string, length: number): Promise<Float64Array | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch {
    return undefined;
  }
  const body = bytes.subarray(32);
  if (body.length !== 8 * length || !createHash("sha256").update(body).digest().equals(bytes.subarray(0, 32))) return undefined;
  return new Float64Array(body.buffer.slice(body.byteOffset, body.byteOffset + body.length));
}

/** A cache that cannot be written only costs the pass again. */
async function writeCache(file: string, logps: Float64Array): Promise<void> {
  const body = Buffer.from(logps.buffer, logps.byteOffset, logps.byteLength);
  const temporary = `${file}.tmp-${process.pid}-${Date.now()}`;
  try {
    await mkdir(cacheDir(), { recursive: true });
    await writeFile(temporary, Buffer.concat([createHash("sha256").update(body).digest(), body]));
    await rename(temporary, file);
  } catch (error) {
    process.emitWarning(`the reference's log-probabilities could not be cached: ${(error as Error).message}`);
  }
}
