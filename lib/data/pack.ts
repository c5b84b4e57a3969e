// One optimiser step's trees -> micro-batches: which trees share one, and the arrays that a compiled program takes.

import { ConfigError, DataError } from "../errors.ts";
import type { Branch, Tree } from "./types.ts";

/** One example of a micro-batch: its rows of the head are [rowStart, rowEnd), its branches [branchStart, branchEnd). */
export interface PackedExample {
  /** Place in the list of trees that was packed. */
  readonly tree: number;
  /** Row of the data set. */
  readonly row: number;
  readonly rowStart: number;
  readonly rowEnd: number;
  readonly branchStart: number;
  readonly branchEnd: number;
}

/** Arrays of a micro-batch. Token arrays are in pre-order: each tree's trunk, then its branches. Head arrays are grouped by example, then by branch. */
export interface MicroBatch {
  readonly tokens: number;
  /** Token ids [tokens]. */
  readonly ids: Int32Array;
  /** RoPE positions [tokens], from the start of the trunk through the branch. */
  readonly pos: Int32Array;
  /** Key j is visible to query i iff j <= i < end[j] [tokens]. */
  readonly end: Int32Array;
  readonly examples: readonly PackedExample[];
  /** Number of branches in all. */
  readonly branches: number;
  /** Token row whose hidden state predicts the target [rows]: may repeat (a trunk's last row), unsorted. */
  readonly rows: Int32Array;
  /** Token to predict [rows]. */
  readonly targets: Int32Array;
  /** Branch of the row within the micro-batch [rows]: for pairs 2 * pair for chosen, 2 * pair + 1 for rejected. */
  readonly branch: Int32Array;
}

export interface PackOptions {
  readonly tokensPerBatch: number;
  /** False: every branch is a sequence of its own with its own copy of the trunk. Same loss, more work. */
  readonly sharePrompt?: boolean;
  /** Most examples and head rows of a micro-batch, where a program's capacities bound them. */
  readonly examplesPerBatch?: number;
  readonly rowsPerBatch?: number;
}

/** Tokens that a tree takes in a micro-batch. */
export function packedTokens(tree: Tree, sharePrompt = true): number {
  const trunk = tree.trunk.length * (sharePrompt ? 1 : tree.branches.length);
  return tree.branches.reduce((n, b) => n + b.ids.length, trunk);
}

/** Head rows of a tree: its trained positions. */
export function packedRows(tree: Tree): number {
  return tree.branches.reduce((n, b) => n + trainedOf(b), 0);
}

const trainedOf = (b: Branch): number => b.trained.reduce((n, [from, to]) => n + to - from, 0);

/**
 * Spreads the trees of one optimiser step over micro-batches: best-fit decreasing by tokens (ties by place), trees whole, in place order within each.
 * Deterministic. Errors: DataError naming the row, its length and the `tokens_per_batch` it needs, where a tree is longer than the budget.
 */
export function packStep(trees: readonly Tree[], options: PackOptions): MicroBatch[] {
  return planStep(trees, options).map((members) => layOut(trees, members, options.sharePrompt ?? true));
}

interface Bin {
  readonly members: number[];
  tokens: number;
  rows: number;
}

/** Places of the trees in each micro-batch, without their arrays: for plans and for `tokens_per_batch` by default. */
export function planStep(trees: readonly Tree[], options: PackOptions): number[][] {
  const { tokensPerBatch, sharePrompt = true, examplesPerBatch = Infinity, rowsPerBatch = Infinity } = options;
  if (!(tokensPerBatch >= 1)) throw new ConfigError(`tokens_per_batch: must be at least 1, got ${tokensPerBatch}`);
  const sizes = trees.map((t) => packedTokens(t, sharePrompt));
  const rows = trees.map(packedRows);
  const bySize = trees.map((_, i) => i).sort((a, b) => sizes[b]! - sizes[a]! || a - b);
  const bins: Bin[] = [];
  for (const i of bySize) {
    const [size, head] = [sizes[i]!, rows[i]!];
    if (size > tokensPerBatch)
      throw new DataError(
        `row ${trees[i]!.row}: an example must fit in tokens_per_batch (${tokensPerBatch}), got ${size} tokens (set tokens_per_batch to ${size} or more, or max_length lower)`,
      );
    if (head > rowsPerBatch)
      throw new DataError(
        `row ${trees[i]!.row}: an example must have at most ${rowsPerBatch} tokens with a loss in a micro-batch, got ${head}`,
      );
    let best: Bin | null = null;
    for (const bin of bins) {
      const fits =
        bin.tokens + size <= tokensPerBatch && bin.rows + head <= rowsPerBatch && bin.members.length < examplesPerBatch;
      if (fits && (best === null || bin.tokens > best.tokens)) best = bin;
    }
    if (best === null) bins.push((best = { members: [], tokens: 0, rows: 0 }));
    best.members.push(i);
    best.tokens += size;
    best.rows += head;
  }
  return bins.map((b) => b.members.sort((x, y) => x - y));
}

/** The arrays of the micro-batch that holds the trees at `members`. */
export function layOut(trees: readonly Tree[], members: readonly number[], sharePrompt = true): MicroBatch {
  const tokens = members.reduce((n, i) => n + packedTokens(trees[i]!, sharePrompt), 0);
  const count = members.reduce((n, i) => n + packedRows(trees[i]!), 0);
  const out = {
    ids: new Int32Array(tokens),
    pos: new Int32Array(tokens),
    end: new Int32Array(tokens),
    rows: new Int32Array(count),
    targets: new Int32Array(count),
    branch: new Int32Array(count),
  };
  const examples: PackedExample[] = [];
  let at = 0;
  let head = 0;
  let branch = 0;
  const put = (ids: Int32Array, from: number, end: number): number => {
    const start = at;
    out.ids.set(ids, start);
    for (let i = 0; i < ids.length; i++) out.pos[start + i] = from + i;
    out.end.fill(end, start, start + ids.length);
    at += ids.length;
    return start;
  };
  for (const i of members) {
    const tree = trees[i]!;
    const { trunk } = tree;
    const [rowStart, branchStart] = [head, branch];
    let trunkAt = sharePrompt ? put(trunk, 0, at + packedTokens(tree, true)) : 0;
    for (const b of tree.branches) {
      if (!sharePrompt) trunkAt = put(trunk, 0, at + trunk.length + b.ids.length);
      const branchAt = put(b.ids, trunk.length, at + b.ids.length) - trunk.length;
      for (const [from, to] of b.trained) {
        for (let t = from; t < to; t++) {
          out.rows[head] = t - 1 < trunk.length ? trunkAt + t - 1 : branchAt + t - 1;
          out.targets[head] = t < trunk.length ? trunk[t]! : b.ids[t - trunk.length]!;
          out.branch[head++] = branch;
        }
      }
      branch++;
    }
    examples.push({ tree: i, row: tree.row, rowStart, rowEnd: head, branchStart, branchEnd: branch });
  }
  return { tokens, ...out, examples, branches: branch };
}

/** A run of examples of a micro-batch whose head rows are computed together. */
export interface RowChunk {
  readonly rowStart: number;
  readonly rowEnd: number;
  readonly exampleStart: number;
  readonly exampleEnd: number;
}

/**
 * Cuts the head rows of a micro-batch into chunks of at most `maxRows` rows and `maxExamples` examples, at borders of examples; an example with more
 * rows than `maxRows` is a DataError. With `align: false` every `maxRows` rows are a chunk, wherever examples end.
 */
export function chunkRows(
  micro: MicroBatch,
  options: { readonly maxRows: number; readonly maxExamples: number; readonly align?: boolean },
): RowChunk[] {
  const { maxRows, maxExamples, align = true } = options;
  if (!(maxRows >= 1 && maxExamples >= 1))
    throw new ConfigError(`chunks: must hold at least one row and one example, got ${maxRows} and ${maxExamples}`);
  const chunks: RowChunk[] = [];
  if (!align) {
    for (let r = 0; r < micro.rows.length; r += maxRows)
      chunks.push({ rowStart: r, rowEnd: Math.min(r + maxRows, micro.rows.length), exampleStart: 0, exampleEnd: micro.examples.length });
    return chunks;
  }
  let open: { rowStart: number; exampleStart: number } | null = null;
  const close = (rowEnd: number, exampleEnd: number): void => {
    if (open) chunks.push({ ...open, rowEnd, exampleEnd });
    open = null;
  };
  micro.examples.forEach((e, i) => {
    const rows = e.rowEnd - e.rowStart;
    if (open && (e.rowEnd - open.rowStart > maxRows || i - open.exampleStart >= maxExamples)) close(e.rowStart, i);
    if (rows > maxRows)
      throw new DataError(
        `row ${e.row}: an example must have at most ${maxRows} tokens with a loss, got ${rows} (the head needs chunks of ${rows} rows, or max_length lower)`,
      );
    open ??= { rowStart: e.rowStart, exampleStart: i };
  });
  const last = micro.examples.at(-1);
  if (last) close(last.rowEnd, micro.examples.length);
  return chunks;
}
