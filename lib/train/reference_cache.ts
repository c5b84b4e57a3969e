// The reference's log-probabilities on disk: records of one group of rows each, appended as they are computed, so that a pass that
// was killed goes on where it was. A record is whole or absent: its SHA-256 stands before it, and a torn one ends what is trusted.
import { createHash } from "node:crypto";
import { appendFile, mkdir, readFile, truncate } from "node:fs/promises";
import { dirname } from "node:path";

const HASH = 32;
const sha256 = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();

/** One file of groups of `width` numbers. Several processes may append to it at once. */
export class ReferenceCache {
  /** Groups by number. */
  readonly groups = new Map<number, Float64Array>();
  readonly #path: string;
  readonly #width: number;
  #failed = false;

  private constructor(path: string, width: number) {
    this.#path = path;
    this.#width = width;
  }

  /** Reads what is there, and cuts off a record that was torn. */
  static async open(path: string, width: number): Promise<ReferenceCache> {
    const cache = new ReferenceCache(path, width);
    const size = HASH + 8 * (width + 1);
    const bytes = await readFile(path).catch(() => Buffer.alloc(0));
    let at = 0;
    for (; at + size <= bytes.length; at += size) {
      const body = bytes.subarray(at + HASH, at + size);
      if (!sha256(body).equals(bytes.subarray(at, at + HASH))) break;
      const numbers = new Float64Array(body.buffer.slice(body.byteOffset, body.byteOffset + body.length));
      cache.groups.set(numbers[0]!, numbers.subarray(1));
    }
    if (at < bytes.length) await truncate(path, at).catch(() => undefined);
    return cache;
  }

  /** Keep a group. A cache that cannot be written costs the pass again and no more: it warns once. */
  async add(group: number, numbers: Float64Array): Promise<void> {
    this.groups.set(group, numbers);
    if (this.#failed) return;
    const body = Buffer.alloc(8 * (this.#width + 1));
    new Float64Array(body.buffer, body.byteOffset, this.#width + 1).set([group, ...numbers]);
    try {
      await mkdir(dirname(this.#path), { recursive: true });
      await appendFile(this.#path, Buffer.concat([sha256(body), body]));
    } catch (error) {
      this.#failed = true;
      process.emitWarning(`the reference's log-probabilities could not be cached: ${(error as Error).message}`);
    }
  }
}
