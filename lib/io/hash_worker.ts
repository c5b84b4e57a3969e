// Worker thread of hash.ts: reads the files it is given, one after another, and answers with their sizes and SHA-256 sums.
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { serve } from "../thread.ts";
import type { FileHash } from "./hash.ts";
import { readError } from "./json.ts";

const chunk = Buffer.allocUnsafeSlow(2 ** 22);

function hashFile(path: string): FileHash {
  try {
    const file = openSync(path, "r");
    const hash = createHash("sha256");
    let size = 0;
    try {
      for (let got = 0; (got = readSync(file, chunk, 0, chunk.length, null)) > 0; size += got)
        hash.update(chunk.subarray(0, got));
    } finally {
      closeSync(file);
    }
    return { path, size, sha256: hash.digest("hex") };
  } catch (error) {
    throw readError(path, error);
  }
}

const functions = { hash: (paths: readonly string[]): FileHash[] => paths.map(hashFile) };
export type HashFunctions = typeof functions;
serve(functions);
