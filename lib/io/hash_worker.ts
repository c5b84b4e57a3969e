// Worker thread of hash.ts: reads the files it is given, one after another, and posts their sizes and SHA-256 sums.
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";

const paths = workerData as readonly string[];
const chunk = Buffer.allocUnsafeSlow(2 ** 22);
for (const path of paths) {
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
    parentPort?.postMessage({ path, size, sha256: hash.digest("hex") });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    parentPort?.postMessage({ path, code, message });
    break;
  }
}
