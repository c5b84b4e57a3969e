// Content hashes of files, computed on a worker thread: large files never hold up the event loop.
import { createHash } from "node:crypto";
import { Thread } from "../thread.ts";
import type { HashFunctions } from "./hash_worker.ts";

export interface FileHash {
  readonly path: string;
  readonly size: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

/** Sizes and SHA-256 sums of files, in their order. Throws DataError naming a file that cannot be read; an abort rejects with its reason. */
export async function hashFiles(
  paths: readonly string[],
  options: { readonly signal?: AbortSignal } = {},
): Promise<FileHash[]> {
  const { signal } = options;
  signal?.throwIfAborted();
  if (paths.length === 0) return [];
  const thread = new Thread<HashFunctions>(new URL("./hash_worker.js", import.meta.url), { name: "hash" });
  const stop = (): void => void thread.close(signal!.reason);
  signal?.addEventListener("abort", stop, { once: true });
  try {
    return await thread.call("hash", [paths]);
  } finally {
    signal?.removeEventListener("abort", stop);
    await thread.close();
  }
}

/** SHA-256 of a string, for cache keys and configuration hashes. */
export function hashText(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** One key from parts: no two different lists of parts give the same text. */
export function hashParts(parts: readonly string[]): string {
  return hashText(JSON.stringify(parts));
}
