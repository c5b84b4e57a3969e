// `attune inspect`: one record per row, in file order, whatever is wrong with it.

import type { EncodedRow } from "./encode.ts";
import type { Branch, Span, Tree } from "./types.ts";

/** Tokens of one sequence, trunk included, and where its loss is. */
export interface InspectSequence {
  readonly input_ids: readonly number[];
  readonly trained: readonly Span[];
}

/** A line of `attune inspect --json`. */
export type InspectRecord =
  | ({ readonly row: number } & InspectSequence & {
        readonly dropped: string | null;
        readonly warnings: readonly string[];
      })
  | {
      readonly row: number;
      readonly trunk: number;
      readonly chosen: InspectSequence;
      readonly rejected: InspectSequence;
      readonly dropped: string | null;
      readonly warnings: readonly string[];
    };

function sequence(tree: Tree, branch: Branch): InspectSequence {
  return { input_ids: [...tree.trunk, ...branch.ids], trained: branch.trained };
}

/** The record of an encoded row. */
export function inspectRecord(e: EncodedRow): InspectRecord {
  const { row, tree, dropped, warnings } = e;
  const [a, b] = tree.branches;
  if (!b) return { row, ...sequence(tree, a!), dropped, warnings };
  return { row, trunk: tree.trunk.length, chosen: sequence(tree, a!), rejected: sequence(tree, b), dropped, warnings };
}
