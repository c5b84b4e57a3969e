// Many token trees in one buffer: what the worker hands over, the cache stores, and training reads tree by tree without copying.

import type { Branch, Span, Tree } from "./types.ts";

/** Trees of one data set: `n` of them with `branches` branches each, in `buffer`. Can be posted between threads and written to a file as it is. */
export interface TreeArrays {
  readonly n: number;
  readonly branches: number;
  readonly tokens: number;
  readonly spans: number;
  readonly buffer: ArrayBuffer;
}

/** Byte sizes of the sections in order: offsets (Float64 [n]); then Int32: rows [n], trunks [n], lengths [n, branches], spanEnds [n, branches], spans [spans, 2], ids [tokens]. */
function sections(a: Omit<TreeArrays, "buffer">): number[] {
  const { n, branches: b } = a;
  return [8 * n, 4 * n, 4 * n, 4 * n * b, 4 * n * b, 8 * a.spans, 4 * a.tokens];
}

/** Bytes that the buffer of such arrays must have. */
export function treeBytes(a: Omit<TreeArrays, "buffer">): number {
  return sections(a).reduce((x, y) => x + y, 0);
}

/** A read-only list of trees. `at(i)` makes views, not copies. */
export class TreeTable implements Iterable<Tree> {
  readonly length: number;
  readonly branches: number;
  readonly arrays: TreeArrays;
  readonly #offsets: Float64Array;
  readonly #rows: Int32Array;
  readonly #trunks: Int32Array;
  readonly #lengths: Int32Array;
  readonly #spanEnds: Int32Array;
  readonly #spans: Int32Array;
  readonly #ids: Int32Array;

  /** @param length how many of the trees there are to see: the first ones; all unless given. */
  constructor(arrays: TreeArrays, length = arrays.n) {
    const { n, branches, buffer } = arrays;
    let at = 0;
    const ints = (count: number): Int32Array => {
      const out = new Int32Array(buffer, at, count);
      at += 4 * count;
      return out;
    };
    this.length = Math.min(n, length);
    this.branches = branches;
    this.arrays = arrays;
    this.#offsets = new Float64Array(buffer, 0, n);
    at = 8 * n;
    this.#rows = ints(n);
    this.#trunks = ints(n);
    this.#lengths = ints(n * branches);
    this.#spanEnds = ints(n * branches);
    this.#spans = ints(2 * arrays.spans);
    this.#ids = ints(arrays.tokens);
  }

  /** Tree `i`. Errors: RangeError out of bounds. */
  at(i: number): Tree {
    if (!(i >= 0 && i < this.length)) throw new RangeError(`tree index: must be in [0, ${this.length}), got ${i}`);
    let at = this.#offsets[i]!;
    const take = (count: number): Int32Array => this.#ids.subarray(at, (at += count));
    const trunk = take(this.#trunks[i]!);
    const branches: Branch[] = [];
    for (let b = 0; b < this.branches; b++) {
      const k = i * this.branches + b;
      const trained: Span[] = [];
      for (let s = k === 0 ? 0 : this.#spanEnds[k - 1]!; s < this.#spanEnds[k]!; s++)
        trained.push([this.#spans[2 * s]!, this.#spans[2 * s + 1]!]);
      branches.push({ ids: take(this.#lengths[k]!), trained });
    }
    return { row: this.#rows[i]!, trunk, branches };
  }

  /** Row of the data set that tree `i` came from. */
  row(i: number): number {
    return this.#rows[i]!;
  }

  /** The tree that row `row` became: rows ascend. Errors: RangeError where it became none. */
  find(row: number): number {
    let [low, high] = [0, this.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#rows[middle]! < row) low = middle + 1;
      else high = middle;
    }
    if (this.#rows[low] !== row) throw new RangeError(`row ${row}: must have become a tree`);
    return low;
  }

  /** Tokens of tree `i`, the trunk once; `shared: false` counts it once for each branch. */
  tokens(i: number, shared = true): number {
    let total = this.#trunks[i]! * (shared ? 1 : this.branches);
    for (let b = 0; b < this.branches; b++) total += this.#lengths[i * this.branches + b]!;
    return total;
  }

  /** Positions with a loss in tree `i`, over all branches. */
  trained(i: number): number {
    let total = 0;
    const from = i === 0 ? 0 : this.#spanEnds[i * this.branches - 1]!;
    for (let s = from; s < this.#spanEnds[(i + 1) * this.branches - 1]!; s++)
      total += this.#spans[2 * s + 1]! - this.#spans[2 * s]!;
    return total;
  }

  *[Symbol.iterator](): Generator<Tree> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }
}

const DENSITIES = 64;

/**
 * The most head rows that a micro-batch of `tokens` can have: those of the examples that have most of them a token, as far as the tokens go, and at
 * least the longest example's. A bound, by at most a DENSITIES-th above what the best choice of examples reaches.
 */
export function mostRows(trees: TreeTable, tokens: number, sharePrompt: boolean): number {
  let [longest, densest] = [1, 0];
  for (let i = 0; i < trees.length; i++) {
    longest = Math.max(longest, trees.trained(i));
    densest = Math.max(densest, trees.trained(i) / trees.tokens(i, sharePrompt));
  }
  const unit = densest / DENSITIES;
  const room = new Float64Array(DENSITIES + 1); // tokens of the examples, by density in units, rounded up
  for (let i = 0; i < trees.length; i++) {
    const size = trees.tokens(i, sharePrompt);
    room[Math.min(DENSITIES, Math.ceil(trees.trained(i) / size / unit))]! += size;
  }
  let [left, rows] = [tokens, 0];
  for (let k = DENSITIES; k > 0; k--) {
    const taken = Math.min(left, room[k]!);
    rows += taken * unit * k;
    left -= taken;
  }
  return Math.max(longest, Math.floor(rows + 1e-6));
}

class Growing {
  #data = new Int32Array(1024);
  length = 0;
  push(...values: readonly number[]): void {
    this.room(values.length);
    for (const v of values) this.#data[this.length++] = v;
  }
  append(values: Int32Array): void {
    this.room(values.length);
    this.#data.set(values, this.length);
    this.length += values.length;
  }
  room(count: number): void {
    if (this.length + count <= this.#data.length) return;
    const next = new Int32Array(Math.max(this.#data.length * 2, this.length + count));
    next.set(this.#data.subarray(0, this.length));
    this.#data = next;
  }
  view(): Int32Array {
    return this.#data.subarray(0, this.length);
  }
}

/** Collects trees one by one. */
export class TreeTableBuilder {
  readonly #branches: number;
  readonly #rows = new Growing();
  readonly #trunks = new Growing();
  readonly #lengths = new Growing();
  readonly #spanEnds = new Growing();
  readonly #spans = new Growing();
  readonly #ids = new Growing();

  constructor(branches: number) {
    this.#branches = branches;
  }

  add(tree: Tree): void {
    if (tree.branches.length !== this.#branches)
      throw new RangeError(`tree: must have ${this.#branches} branches, got ${tree.branches.length}`);
    this.#rows.push(tree.row);
    this.#trunks.push(tree.trunk.length);
    this.#ids.append(tree.trunk);
    for (const branch of tree.branches) {
      this.#lengths.push(branch.ids.length);
      this.#ids.append(branch.ids);
      for (const [a, b] of branch.trained) this.#spans.push(a, b);
      this.#spanEnds.push(this.#spans.length / 2);
    }
  }

  finish(): TreeArrays {
    const n = this.#rows.length;
    const shape = { n, branches: this.#branches, tokens: this.#ids.length, spans: this.#spans.length / 2 };
    const buffer = new ArrayBuffer(treeBytes(shape));
    const offsets = new Float64Array(buffer, 0, n);
    const [trunks, lengths] = [this.#trunks.view(), this.#lengths.view()];
    for (let i = 0, at = 0; i < n; i++) {
      offsets[i] = at;
      at += trunks[i]!;
      for (let b = 0; b < this.#branches; b++) at += lengths[i * this.#branches + b]!;
    }
    let at = 8 * n;
    for (const part of [this.#rows, this.#trunks, this.#lengths, this.#spanEnds, this.#spans, this.#ids]) {
      new Int32Array(buffer, at, part.length).set(part.view());
      at += 4 * part.length;
    }
    return { ...shape, buffer };
  }
}
