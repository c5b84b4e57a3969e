// Worker thread of disk.ts: each call is done on this thread, which steps back; none of it in a thread of Node's pool.
import { closeSync, fsyncSync, openSync, renameSync, rmSync } from "node:fs";
import { serve } from "../thread.ts";

const functions = {
  /** What a file or folder holds survives a power cut. */
  sync(path: string): void {
    const file = openSync(path, "r");
    try {
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  },
  /** The space of a file that `to` was is freed in here. */
  rename: (from: string, to: string): void => renameSync(from, to),
  /** A file or a folder with all in it, or nothing of that name. */
  remove: (path: string): void => rmSync(path, { recursive: true, force: true }),
};
export type DiskFunctions = typeof functions;
serve(functions);
