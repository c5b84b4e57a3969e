// What a command is: its words in help, its flags (a zod shape) and one call into the library.

import type { Progress } from "../train/progress.ts";
import type { Shape } from "../train/config_schema.ts";

export interface Command {
  readonly summary: string;
  /** Longer text of `--help`, under the summary. */
  readonly details?: string;
  /** Shown first in `--help`; each a whole command line. */
  readonly examples: readonly string[];
  readonly shape: Shape;
  /** The one argument that is not a flag, where there is one. */
  readonly argument: { readonly name: string; readonly description: string } | null;
  /** Set where the command itself ends its work on the first signal; the others end at once. */
  readonly stopsBySignal?: true;
  run(call: Call, io: Io): Promise<void>;
}

/** A command line, taken apart. */
export interface Call {
  readonly argument: string | undefined;
  /** Flags as given, with the JSON types that their keys accept; not checked yet. */
  readonly flags: Readonly<Record<string, unknown>>;
}

/** Where a command writes. stdout carries results (with `--json` one JSON value a line), stderr everything else. */
export interface Io {
  readonly json: boolean;
  /** Aborted by SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  readonly progress: Progress;
  /** Writes one JSON value as a line of stdout. */
  value(value: unknown): void;
  /** Writes lines for people to stdout as they are: the caller has made them printable. */
  text(text: string): void;
  /** As `text`, without a line break after it. */
  write(text: string): void;
  /** Writes a line to stderr. */
  note(line: string): void;
}
