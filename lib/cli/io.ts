// Where commands write. A closed pipe on stdout is no error: nobody is reading, and a training run goes on.

import { openProgress, silent } from "../train/progress.ts";
import type { Progress } from "../train/progress.ts";
import type { Io } from "./command.ts";
import { printable } from "./text.ts";

/** JSON on one line; typed arrays as lists, and figures that JSON cannot hold (NaN, infinities) as null. */
export function jsonLine(value: unknown): string {
  return JSON.stringify(value, (_, one: unknown) => {
    if (ArrayBuffer.isView(one) && !(one instanceof DataView))
      return Array.from(one as unknown as ArrayLike<number | bigint>, Number);
    return typeof one === "bigint" ? Number(one) : one;
  });
}

/** Called when stdout can take no more: by a pipe that was closed (quiet), or a full disk. */
export function watchStdout(onClosed: () => void, onFailed: (error: Error) => void): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE" || error.code === "ERR_STREAM_DESTROYED") onClosed();
    else onFailed(error);
  });
  // Nothing is left to tell anybody when stderr is gone.
  process.stderr.on("error", () => {});
}

/** The Io of a process. */
export async function openIo(json: boolean, signal: AbortSignal): Promise<Io> {
  const progress: Progress = await openProgress(process.stderr).catch(() => silent);
  const out = (text: string): void => progress.around(() => void process.stdout.write(text));
  return {
    json,
    signal,
    progress,
    value: (value) => out(`${jsonLine(value)}\n`),
    text: (text) => out(`${text}\n`),
    write: out,
    note: (line) => progress.around(() => void process.stderr.write(`${printable(line, true)}\n`)),
  };
}

/** Resolves when what was written to stdout and stderr has left the process, or cannot. */
export async function flush(): Promise<void> {
  const drained = (stream: NodeJS.WriteStream): Promise<void> =>
    new Promise((resolve) => {
      if (stream.destroyed || stream.writableEnded) return resolve();
      stream.write("", () => resolve());
      stream.once("error", () => resolve());
    });
  await Promise.all([drained(process.stdout), drained(process.stderr)]);
}
