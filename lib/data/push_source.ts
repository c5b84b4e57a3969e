// Rows that the owner pushes to the worker, a batch at a time, each asked for when the one before is used up.

import { toRow } from "./pipeline.ts";
import type { Source } from "./pipeline.ts";
import type { Row } from "./rows.ts";

export class PushSource implements Source {
  readonly name = "dataset";
  readonly #ask: () => void;
  readonly #batches: (readonly unknown[] | null)[] = [];
  #wake: (() => void) | null = null;

  constructor(ask: () => void) {
    this.#ask = ask;
  }

  push(rows: readonly unknown[]): void {
    this.#batches.push(rows);
    this.#wake?.();
  }

  end(): void {
    this.#batches.push(null);
    this.#wake?.();
  }

  async *rows(): AsyncGenerator<Row> {
    let row = 0;
    for (;;) {
      this.#ask();
      while (this.#batches.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
      const batch = this.#batches.shift();
      if (!batch) return;
      for (const value of batch) yield toRow(value, row++);
    }
  }
}
