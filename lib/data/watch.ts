// Guards over a thread that runs a stranger's chat template: a limit on time, which only its owner can keep, and on memory.

import { DataError } from "../errors.ts";

/** Longest that a template may run on one conversation, and the JavaScript heap of its thread in MiB. */
export const TEMPLATE_SECONDS = 10;
export const WORKER_HEAP = 2048;

/** Shared with the owner: Int32 [0] the row whose template runs or -1, [1] batches of records not yet read; Float64 at byte 8 when the row began. */
const WATCH_BYTES = 16;

/** What `onRow` is told while the template is read and tried on a short conversation. */
export const TRIAL = 0x7fffffff;

export function newWatch(): SharedArrayBuffer {
  const watch = new SharedArrayBuffer(WATCH_BYTES);
  new Int32Array(watch)[0] = -1;
  return watch;
}

/** In the worker: says which row's template runs (-1: none). */
export function rowWatcher(watch: SharedArrayBuffer): (row: number) => void {
  const [at, since] = [new Int32Array(watch, 0, 1), new Float64Array(watch, 8, 1)];
  return (row) => {
    since[0] = Date.now();
    Atomics.store(at, 0, row);
  };
}

/** Fails where a template runs for too long on one row: nothing inside the thread could. Clear the interval at the end. */
export function watchTemplate(watch: SharedArrayBuffer, seconds: number, fail: (e: Error) => void): NodeJS.Timeout {
  const [row, since] = [new Int32Array(watch, 0, 1), new Float64Array(watch, 8, 1)];
  const look = (): void => {
    const at = Atomics.load(row, 0);
    if (at < 0 || Date.now() - since[0]! <= seconds * 1000) return;
    const where = at === TRIAL ? "" : `row ${at}: `;
    fail(new DataError(`data: ${where}the chat template must render a conversation within ${seconds} s, got no end`));
  };
  return setInterval(look, Math.min(seconds * 250, 250)).unref();
}

/** What a thread ended by its heap's limit means; any other error is itself. */
export function outOfHeap(error: unknown, heap: number): unknown {
  if ((error as { code?: unknown } | null)?.code !== "ERR_WORKER_OUT_OF_MEMORY") return error;
  return new DataError(`data: rows and chat template must fit in ${heap} MiB of memory, got more`, { cause: error });
}
