// Progress of long work on a terminal: one line with a bar, speed and time left. Without a terminal there is none.

import type { SingleBar } from "cli-progress";

/** Where a piece of long work stands. */
export interface Stage {
  /** What is being done, such as "training" or "reference". A new name starts a new line. */
  readonly name: string;
  readonly done: number;
  /** Null where the end is not known. */
  readonly total: number | null;
  /** What is counted: "steps", "rows", "tokens". */
  readonly unit?: string;
  /** A few words after the figures, such as "loss 0.69". */
  readonly text?: string;
}

export interface Progress {
  update(stage: Stage): void;
  /** Takes the line away while `write` writes to the terminal. */
  around(write: () => void): void;
  close(): void;
}

/** Progress that shows nothing. */
export const silent: Progress = { update: () => {}, around: (write) => write(), close: () => {} };

/** Speed over the last seconds of a stage, and the time that its rest takes. */
export class Pace {
  readonly #marks: (readonly [seconds: number, done: number])[] = [];
  readonly #window: number;

  constructor(windowSeconds = 30) {
    this.#window = windowSeconds;
  }

  /** Adds a mark; `seconds` from any clock that does not go back. */
  add(seconds: number, done: number): void {
    this.#marks.push([seconds, done]);
    while (this.#marks.length > 2 && seconds - this.#marks[0]![0] > this.#window) this.#marks.shift();
  }

  /** Units per second; undefined before there are two marks. */
  get rate(): number | undefined {
    const first = this.#marks[0];
    const last = this.#marks.at(-1);
    if (!first || !last || last[0] <= first[0] || last[1] <= first[1]) return undefined;
    return (last[1] - first[1]) / (last[0] - first[0]);
  }

  /** Seconds until `total`; undefined before there are two marks. */
  left(total: number): number | undefined {
    const rate = this.rate;
    return rate === undefined ? undefined : Math.max(0, total - this.#marks.at(-1)![1]) / rate;
  }
}

const now = (): number => performance.now() / 1000;

/** Progress on `stream`; `silent` where that is no terminal. cli-progress is loaded only where it is shown. */
export async function openProgress(stream: NodeJS.WriteStream): Promise<Progress> {
  if (!stream.isTTY) return silent;
  const { default: library } = await import("cli-progress");
  const options = {
    stream,
    format: "{line}",
    fps: 10,
    clearOnComplete: true,
    hideCursor: false,
    // The command owns SIGINT and SIGTERM.
    gracefulExit: false,
    noTTYOutput: false,
  };
  let bar: SingleBar | undefined;
  let stage: Stage | undefined;
  let pace = new Pace();
  const show = (): void => {
    if (!stage) return;
    const line = formatStage(stage, pace, stream.columns || 80);
    if (bar) bar.update(stage.done, { line });
    else {
      bar = new library.SingleBar(options);
      bar.start(stage.total ?? Math.max(1, stage.done), stage.done, { line });
    }
  };
  const hide = (): void => {
    bar?.stop();
    bar = undefined;
  };
  const close = (): void => {
    hide();
    stage = undefined;
    process.removeListener("exit", hide);
  };
  // A bar switches the terminal's line wrapping off: put it back however the process ends.
  process.once("exit", hide);
  return {
    update(next) {
      if (next.name !== stage?.name || next.done < stage.done) {
        hide();
        pace = new Pace();
      }
      stage = next;
      pace.add(now(), next.done);
      if (next.total !== null && next.done >= next.total) hide();
      else show();
    },
    around(write) {
      const shown = bar !== undefined;
      hide();
      write();
      if (shown) show();
    },
    close,
  };
}

/** One line of at most `columns` characters: name, bar, counts, speed, time left, words. */
export function formatStage(stage: Stage, pace: Pace, columns: number): string {
  const unit = stage.unit ?? "";
  const parts = [stage.name];
  if (stage.total !== null) {
    const share = stage.total > 0 ? Math.min(1, stage.done / stage.total) : 1;
    const width = Math.max(8, Math.min(30, columns - 70));
    const full = Math.round(share * width);
    parts.push(`[${"=".repeat(full)}${"-".repeat(width - full)}]`, `${String(Math.floor(share * 100)).padStart(3)}%`);
  }
  parts.push(`${count(stage.done)}${stage.total === null ? "" : `/${count(stage.total)}`}${unit && ` ${unit}`}`);
  const rate = pace.rate;
  if (rate !== undefined)
    parts.push(rate >= 1 ? `${count(Number(rate.toPrecision(3)))}/s` : `${(1 / rate).toPrecision(3)} s each`);
  const left = stage.total === null ? undefined : pace.left(stage.total);
  if (left !== undefined) parts.push(`${clock(left)} left`);
  if (stage.text) parts.push(stage.text);
  const line = parts.join("  ");
  return line.length < columns ? line : line.slice(0, Math.max(0, columns - 1));
}

function count(n: number): string {
  return n.toLocaleString("en-US", { maximumFractionDigits: n < 100 ? 1 : 0 });
}

function clock(seconds: number): string {
  const s = Math.round(seconds);
  const two = (n: number): string => String(n).padStart(2, "0");
  return s >= 3600
    ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`
    : `${Math.floor(s / 60)}:${two(s % 60)}`;
}
