// The reference's log-probabilities: one no-grad pass before training over the rows that the run will use, kept on disk as it goes
// under a hash of everything its bits depend on.
import { createHash } from "node:crypto";
import { homedir } from "node:os";
import { join } from "node:path";
import { packStep } from "../data/pack.ts";
import { mostRows, type TreeTable } from "../data/tree_table.ts";
import { hashFiles } from "../io/hash.ts";
import { cpuInfo } from "../runtime/host.ts";
import { readWeights, type LoadedModel } from "../engine/model.ts";
import { Scorer } from "../engine/scorer.ts";
import { makerOf } from "./products.ts";
import { ReferenceCache } from "./reference_cache.ts";

export interface ReferenceOptions {
  readonly trees: TreeTable;
  /** Which trees the run will use, where not all: the first `count` of `order`, which is a permutation of all. */
  readonly use?: { readonly order: Int32Array; readonly count: number };
  readonly dataHash: string;
  readonly tokensPerBatch: number;
  readonly sharePrompt: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: (done: number, total: number) => void;
}

/** Trees that are packed together and kept in one record: what a kill can lose. */
const GROUP = 64;

/**
 * Sums (2 per tree of the table: chosen, rejected; NaN in groups that no used tree is in), how many trees were wanted, and how many of
 * those came from the disk. Groups follow the order, so a longer run goes on with a shorter one's, and the bits are the same.
 */
export async function referenceLogps(loaded: LoadedModel, o: ReferenceOptions): Promise<{ logps: Float64Array; wanted: number; cached: number }> {
  const places = o.use?.order ?? Int32Array.from({ length: o.trees.length }, (_, i) => i);
  const cache = await ReferenceCache.open(join(cacheDir(), `reference-${await cacheKey(loaded, o, places)}.bin`), 2 * GROUP);
  const groups = Math.ceil((o.use?.count ?? places.length) / GROUP);
  const missing = Array.from({ length: groups }, (_, g) => g).filter((g) => !cache.groups.has(g));
  const sizeOf = (g: number): number => Math.min(GROUP, places.length - g * GROUP);
  const wanted = Math.min(groups * GROUP, places.length);
  let done = wanted - missing.reduce((n, g) => n + sizeOf(g), 0);
  const cached = done;
  if (missing.length) {
    const rows = mostRows(o.trees, o.tokensPerBatch, o.sharePrompt);
    const scorer = await Scorer.create(loaded, { tokens: o.tokensPerBatch, rows });
    await readWeights(loaded);
    for (const g of missing) {
      const part = Array.from(places.subarray(g * GROUP, g * GROUP + sizeOf(g)), (place) => o.trees.at(place));
      const sums = new Float64Array(2 * GROUP);
      for (const micro of packStep(part, { tokensPerBatch: o.tokensPerBatch, rowsPerBatch: rows, sharePrompt: o.sharePrompt })) {
        o.signal.throwIfAborted();
        const { logp } = await scorer.score(micro, o.signal);
        micro.branch.forEach((b, m) => (sums[2 * micro.examples[Math.floor(b / 2)]!.tree + (b % 2)]! += logp[m]!));
      }
      await cache.add(g, sums);
      o.onProgress((done += sizeOf(g)), wanted);
    }
    await scorer.close();
  }
  const logps = new Float64Array(2 * o.trees.length).fill(NaN);
  for (let i = 0; i < wanted; i++) {
    const at = 2 * (i % GROUP);
    logps.set(cache.groups.get(Math.floor(i / GROUP))!.subarray(at, at + 2), 2 * places[i]!);
  }
  return { logps, wanted, cached };
}

/** Packing, the kernels' level, a GPU and its library change the last bits, so they are part of the key: a run's bits depend on no earlier run. */
async function cacheKey(loaded: LoadedModel, o: ReferenceOptions, places: Int32Array): Promise<string> {
  const files = [...new Set([...loaded.model.tensors.values()].map((t) => t.file))].sort();
  const hashes = await hashFiles([join(loaded.model.dir, "config.json"), ...files]);
  const rows = createHash("sha256").update(new Uint8Array(places.buffer, places.byteOffset, places.byteLength)).digest("hex");
  const { device } = loaded.session;
  const multiplier = makerOf(await loaded.session.choices());
  const parts = ["reference 3", ...hashes.map((h) => h.sha256), o.dataHash, rows, loaded.spec.dtype, device, multiplier, cpuInfo().level, o.tokensPerBatch, o.sharePrompt];
  return createHash("sha256").update(parts.join("\n")).digest("hex").slice(0, 40);
}

export const cacheDir = (): string => join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "attune");
