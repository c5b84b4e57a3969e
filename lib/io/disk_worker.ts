// Worker thread of disk.ts: each call is done on this thread, which steps back; none of it in a thread of Node's pool.
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { serve } from "../thread.ts";

function withFile(path: string, flags: "r" | "w", use: (file: number) => void): void {
  const file = openSync(path, flags);
  try {
    use(file);
  } finally {
    closeSync(file);
  }
}

const functions = {
  write: (path: string, content: string | Uint8Array): void => writeFileSync(path, content),
  /** A file of `size` bytes that begins with `head`; the rest is zero and takes no space yet. */
  create: (path: string, head: Uint8Array, size: number): void =>
    withFile(path, "w", (file) => {
      writeSync(file, head, 0, head.length, 0);
      ftruncateSync(file, size);
    }),
  copy: (from: string, to: string): void => copyFileSync(from, to),
  /** What a file or folder holds survives a power cut. */
  sync: (path: string): void => withFile(path, "r", fsyncSync),
  makeFolder: (path: string): void => void mkdirSync(path, { recursive: true }),
  rename: (from: string, to: string): void => renameSync(from, to),
  /** A file or a folder with all in it, or nothing of that name. */
  remove: (path: string): void => rmSync(path, { recursive: true, force: true }),
};
export type DiskFunctions = typeof functions;
serve(functions);
