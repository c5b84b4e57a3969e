// What preparing a data set found: counts by reason and by warning, with the first rows of each, and the tokens that begin and end what the model reads.

/** A count and the first rows that make it up. */
export interface Tally {
  count: number;
  /** The first few, 0-based. */
  rows: number[];
}

export interface TokenName {
  readonly id: number;
  readonly text: string;
}

export interface DataReport {
  /** Rows read. */
  rows: number;
  /** Rows that training uses. */
  kept: number;
  /** Rows left out, by reason. */
  dropped: Record<string, Tally>;
  /** Rows with a warning, by kind, kept or not. */
  warnings: Record<string, Tally>;
  /** Tokens of the kept rows, a shared trunk once. */
  tokens: number;
  /** Tokens with a loss in the kept rows. */
  trainedTokens: number;
  /** Longest sequence of the kept rows before and after truncation. */
  longest: number;
  longestKept: number;
  conversational: boolean;
  bos: TokenName | null;
  eos: TokenName | null;
  /** What the model learns to end with: a turn's last special token for conversations, else eos. */
  stop: TokenName | null;
  /** What `strftime_now` printed. */
  chatTemplateDate: string;
}

const SHOWN = 5;

export function tally(into: Record<string, Tally>, key: string, row: number): void {
  const entry = (into[key] ??= { count: 0, rows: [] });
  entry.count++;
  if (entry.rows.length < SHOWN) entry.rows.push(row);
}

const WARNINGS: Readonly<Record<string, string>> = {
  truncated: "were cut at max_length",
  no_trained_tokens_left: "have no token with a loss left after truncation and add nothing",
  boundary_merge: "have a token that merges prompt and completion; it is scored with the completion",
  no_stop_token: "have a turn or text that does not end with the stop token",
  special_token_in_content: "spell a special token inside a message",
  prompt_ignored: "have a prompt text beside conversations that do not hold it; it is ignored",
  prompt_repeated: "repeat the prompt inside chosen",
  same_tokens: "have the same tokens in chosen and rejected",
};

/** Lines for people: what was dropped and what to look at. */
export function reportLines(report: DataReport): string[] {
  const rows = (t: Tally): string =>
    `${t.count} ${t.count === 1 ? "row" : "rows"} (${t.rows.join(", ")}${t.count > t.rows.length ? ", ..." : ""})`;
  return [
    ...Object.entries(report.dropped).map(([reason, t]) => `dropped ${rows(t)}: ${reason}`),
    ...Object.entries(report.warnings).map(([kind, t]) => `${rows(t)} ${WARNINGS[kind] ?? kind}`),
  ];
}
