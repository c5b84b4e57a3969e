// What the data room hands to training: token trees. A tree is a trunk that several branches share; SFT rows are one branch without a trunk.

/** Token positions [start, end) of a branch, counted from the start of the trunk. */
export type Span = readonly [start: number, end: number];

export interface Branch {
  /** Tokens after the trunk. */
  readonly ids: Int32Array;
  /** Positions whose token has a loss: position t is a target, predicted from row t - 1. Never position 0. */
  readonly trained: readonly Span[];
}

/** One example: branches share `trunk` (may be empty); they attend to it and not to each other. */
export interface Tree {
  /** Row of the data set (0-based, file order), for messages. */
  readonly row: number;
  readonly trunk: Int32Array;
  /** SFT: one branch. Preference: chosen, then rejected. */
  readonly branches: readonly Branch[];
}

/** What `inspect` says about a row besides its tokens. */
export interface RowReport {
  readonly row: number;
  readonly dropped: string | null;
  readonly warnings: readonly string[];
}

/** Token count of a tree: the trunk once and every branch. */
export function treeTokens(tree: Tree): number {
  return tree.branches.reduce((n, b) => n + b.ids.length, tree.trunk.length);
}

/** Number of trained positions of a branch. */
export function trainedCount(branch: Branch): number {
  return branch.trained.reduce((n, [a, b]) => n + b - a, 0);
}
