// The worker that thread.test.ts calls.
import { readFileSync } from "node:fs";
import { threadId } from "node:worker_threads";
import { NumericError } from "#lib/errors.js";
import { Moved, note, serve } from "#lib/thread.js";

serve(
  {
    add: (a, b) => a + b,
    moved(n) {
      const x = new Float32Array(n).fill(1);
      return new Moved(x, [x.buffer]);
    },
    length: (x) => x.length,
    refuse() {
      throw new NumericError("loss: must be finite, got NaN", { code: "ERR_LOSS" });
    },
    read: (path) => void readFileSync(path),
    place: () => threadId,
    crash: () => null.nothing,
    fill() {
      for (const all = []; ; ) all.push(Array.from({ length: 1e5 }, () => ({})));
    },
    wait: () => new Promise((resolve) => setTimeout(resolve, 1e6)),
  },
  (message) => note({ heard: message }),
);
