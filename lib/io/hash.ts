// Content hashes of files, computed on a worker thread: large files never hold up the event loop.
import { createHash } from "node:crypto";
import { Worker } from "node:worker_threads";
import { StateError } from "../errors.ts";
import { readError } from "./json.ts";

export interface FileHash {
  readonly path: string;
  readonly size: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

type Message = FileHash | { readonly path: string; readonly code: string; readonly message: string };

/** Sizes and SHA-256 sums of files, in their order. Throws DataError naming a file that cannot be read; an abort rejects with its reason. */
export async function hashFiles(
  paths: readonly string[],
  options: { readonly signal?: AbortSignal } = {},
): Promise<FileHash[]> {
  options.signal?.throwIfAborted();
  if (paths.length === 0) return [];
  const worker = new Worker(new URL("./hash_worker.js", import.meta.url), { workerData: [...paths], execArgv: [] });
  const results: FileHash[] = [];
  let stop: (() => void) | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      stop = () => reject(options.signal?.reason as Error);
      options.signal?.addEventListener("abort", stop, { once: true });
      worker.on("error", reject);
      worker.on("exit", () => reject(new StateError("the hashing thread must finish its files, but it ended early")));
      worker.on("message", (message: Message) => {
        if ("message" in message)
          return reject(readError(message.path, Object.assign(new Error(message.message), message)));
        results.push(message);
        if (results.length === paths.length) resolve();
      });
    });
  } finally {
    if (stop !== undefined) options.signal?.removeEventListener("abort", stop);
    await worker.terminate();
  }
  return results;
}

/** SHA-256 of a string, for cache keys and configuration hashes. */
export function hashText(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** One key from parts: no two different lists of parts give the same text. */
export function hashParts(parts: readonly string[]): string {
  return hashText(JSON.stringify(parts));
}
