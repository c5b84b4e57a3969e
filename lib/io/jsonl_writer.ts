// metrics.jsonl and samples.jsonl: lines are appended off the event loop, in order, and cut back to a checkpoint's step on resume.
import { open, readFile, type FileHandle } from "node:fs/promises";
import { StateError } from "../errors.ts";
import { errorCode, isObject } from "./json.ts";
import { writing } from "./write.ts";

/** An append-only JSONL file. Calls may overlap: lines are written whole and in the order of the calls. */
export class JsonlWriter {
  readonly path: string;
  #file: FileHandle | null;
  #last: Promise<void> = Promise.resolve();

  private constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  /** Opens for appending; creates the file where it is missing. Throws WriteError. */
  static async open(path: string): Promise<JsonlWriter> {
    return new JsonlWriter(path, await writing(path, () => open(path, "a")));
  }

  /** Writes one line; resolves when the system has it. Throws WriteError, or StateError after a close. */
  append(value: unknown): Promise<void> {
    const line = JSON.stringify(value) + "\n";
    return this.#next(async (file) => {
      await file.appendFile(line);
    });
  }

  /** Resolves when everything so far would survive a power cut. */
  sync(): Promise<void> {
    return this.#next((file) => file.sync());
  }

  /** Waits for pending lines and closes; a second call does nothing. */
  async close(): Promise<void> {
    const file = this.#file;
    if (file === null) return;
    const pending = this.#last.catch(() => undefined);
    this.#file = null;
    await pending;
    await writing(this.path, () => file.close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #next(action: (file: FileHandle) => Promise<void>): Promise<void> {
    const file = this.#file;
    if (file === null)
      return Promise.reject(new StateError(`${this.path}: must be open to be written, but it was closed`));
    const next = this.#last.then(() => writing(this.path, () => action(file)));
    // A failed line rejects its own call and does not hold up the ones after it.
    this.#last = next.catch(() => undefined);
    return next;
  }
}

/**
 * Cuts a JSONL file to the lines before the first one whose `step` is above `step`, that is damaged or half-written, or that is a run's summary
 * (`train_runtime`): what a resumed run writes again. -1 empties it. A missing file stays missing. Returns the number of lines kept.
 */
export async function truncateToStep(path: string, step: number): Promise<number> {
  return writing(path, async () => {
    let bytes: Buffer;
    try {
      bytes = await readFile(path);
    } catch (error) {
      if (errorCode(error) === "ENOENT") return 0;
      throw error;
    }
    let kept = 0;
    let cut = 0;
    for (let end; (end = bytes.indexOf(0x0a, cut)) >= 0; kept++, cut = end + 1) {
      if (!belongsTo(bytes.subarray(cut, end).toString("utf8"), step)) break;
    }
    if (cut < bytes.length) {
      const file = await open(path, "r+");
      try {
        await file.truncate(cut);
        await file.sync();
      } finally {
        await file.close();
      }
    }
    return kept;
  });
}

function belongsTo(line: string, step: number): boolean {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return false;
  }
  if (!isObject(value) || "train_runtime" in value) return false;
  return typeof value["step"] === "number" && value["step"] <= step;
}
