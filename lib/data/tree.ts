// From token ids and spans of characters to a tree: where the loss is, and what the branches share.

import type { Encoded } from "./tokenizer.ts";
import type { Span, Tree } from "./types.ts";

/** One sequence of a row: its ids, the positions with a loss, and where its ids leave the prompt's. */
export interface Sequence {
  ids: Int32Array;
  /** Loss before truncation. */
  trained: Span[];
  firstScored: number;
}

export const EMPTY = new Int32Array(0);

/** Adds a warning once. */
export function note(warnings: string[], warning: string): void {
  if (!warnings.includes(warning)) warnings.push(warning);
}

/** Number of leading ids that two lists share. */
export function agreement(prompt: readonly number[], ids: Int32Array): number {
  const n = Math.min(prompt.length, ids.length);
  let i = 0;
  while (i < n && prompt[i] === ids[i]) i++;
  return i;
}

/** Spans within [from, to), empty ones left out. */
export function clip(spans: readonly Span[], from: number, to: number): Span[] {
  return spans.map(([a, b]): Span => [Math.max(a, from), Math.min(b, to)]).filter(([a, b]) => a < b);
}

/** Characters -> tokens as transformers does it: from the token that holds the first character to the one that holds the last. Sorted, merged. */
export function tokenSpans(encoded: Encoded, spans: readonly (readonly [number, number])[], length: number): Span[] {
  const out: [number, number][] = [];
  const add = (first: number, last: number): void => {
    const previous = out.at(-1);
    if (previous && first <= previous[1]) previous[1] = Math.max(previous[1], last + 1);
    else out.push([first, Math.min(last + 1, length)]);
  };
  for (const [from, to] of [...spans].sort(([a], [b]) => a - b)) {
    if (from === to) {
      // An empty block inside one token: transformers takes that token in, and masks are held to transformers'.
      const inside = from > 0 ? encoded.tokenAt(from) : null;
      if (inside !== null && inside === encoded.tokenAt(from - 1)) add(inside, inside);
      continue;
    }
    let first: number | null = null;
    let last: number | null = null;
    for (let c = from; c < to && first === null; c++) first = encoded.tokenAt(c);
    for (let c = to - 1; c >= from && last === null; c--) last = encoded.tokenAt(c);
    if (first === null || last === null) continue;
    add(first, last);
  }
  return out;
}

/** The trunk is what all branches share below the first scored token of each; SFT rows are one branch. */
export function makeTree(sequences: readonly Sequence[], task: "sft" | "dpo", warnings: string[]): Omit<Tree, "row"> {
  if (task === "sft") return { trunk: EMPTY, branches: [{ ids: sequences[0]!.ids, trained: sequences[0]!.trained }] };
  const [a, b] = sequences as [Sequence, Sequence];
  const limit = Math.min(...sequences.map((s) => Math.min(s.firstScored, s.ids.length)));
  let shared = 0;
  while (shared < limit && a.ids[shared] === b.ids[shared]) shared++;
  if (a.ids.length === b.ids.length && a.ids.every((id, i) => id === b.ids[i])) note(warnings, "same_tokens");
  return {
    trunk: a.ids.subarray(0, shared),
    branches: sequences.map((s) => ({ ids: s.ids.subarray(shared), trained: s.trained })),
  };
}
