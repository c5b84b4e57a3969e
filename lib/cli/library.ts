// The one table of what the commands call in the other rooms: loaded when a command runs, so that `--help` is fast.

import type { RunConfig, Task } from "../train/config.ts";
import type { Stage } from "../train/progress.ts";
import type { JsonObject } from "../data/json.ts";
import type { Span } from "../data/types.ts";

/** What long work tells its caller. */
export interface Hooks {
  readonly signal: AbortSignal;
  /** One call a change; the receiver decides how often it shows something. */
  onStage(stage: Stage): void;
  /** A sentence for people: a warning, a file that was written. */
  log(message: string): void;
}

/** A line of metrics.jsonl, or the summary of a run. */
export type Metrics = Readonly<Record<string, unknown>>;

export interface RunHooks extends Hooks {
  onMetrics(metrics: Metrics): void;
}

export interface Machine {
  readonly model: string;
  readonly device: "auto" | "cpu" | "cuda";
  readonly dtype: "float32" | "bfloat16" | null;
  readonly threads: number | null;
}

/** A text to go on from, or a conversation to answer (messages as the data room has them). */
export type Prompt = string | readonly JsonObject[];

export interface Sampling {
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
  readonly signal?: AbortSignal;
}

export interface Completion {
  readonly text: string;
  /** Tokens generated, the stop token not counted. */
  readonly tokens: number;
  readonly finishReason: "stop" | "length";
}

export interface Generator extends AsyncDisposable {
  /** Completions in the order of the prompts, each as soon as it and those before it are done. */
  generate(prompts: Iterable<Prompt> | AsyncIterable<Prompt>, options: Sampling): AsyncIterable<Completion>;
  /** Pieces of the answer as they come; the last has `done`. */
  chat(prompt: Prompt, options: Sampling): AsyncIterable<{ readonly text: string; readonly done?: Completion }>;
}

export interface Score {
  readonly row: number;
  readonly logps: ArrayLike<number>;
  readonly logp: number;
}

/** The tokens of an example or of one branch; `pieces` are they as text, for eyes, and not part of the JSON. */
export interface InspectedTokens {
  readonly input_ids: ArrayLike<number>;
  readonly trained: readonly Span[];
  readonly pieces?: readonly string[];
}

/** What `inspect` says of a row. SFT rows have tokens of their own, preference rows a trunk's length and two branches. */
export interface Inspected extends Partial<InspectedTokens> {
  readonly row: number;
  readonly trunk?: number;
  readonly chosen?: InspectedTokens;
  readonly rejected?: InspectedTokens;
  readonly dropped: string | null;
  readonly warnings: readonly string[];
}

interface Modules {
  run: { runTraining(task: Task, config: RunConfig, hooks: RunHooks): Promise<Metrics> };
  plan: { planRun(task: Task, config: RunConfig, hooks: Hooks): Promise<Metrics> };
  profile: {
    profileRun(task: Task, config: RunConfig, options: { readonly steps: number }, hooks: Hooks): Promise<Metrics>;
  };
  inspect: { inspectRun(task: Task, config: RunConfig, hooks: Hooks): AsyncIterable<Inspected> };
  generate: {
    openGenerator(
      options: Machine & { readonly chatTemplatePath: string | null; readonly chatTemplateDate: string | null },
      hooks: Hooks,
    ): Promise<Generator>;
  };
  score: {
    scoreRows(
      options: Machine & {
        readonly data: string;
        readonly skipInvalid: boolean;
        readonly tokensPerBatch: number | null;
      },
      hooks: Hooks,
    ): AsyncIterable<Score>;
  };
}

const PATHS: Readonly<Record<keyof Modules, string>> = {
  run: "../train/run.js",
  plan: "../train/plan_run.js",
  profile: "../train/profile_run.js",
  inspect: "../train/inspect_run.js",
  generate: "../generate/generate.js",
  score: "../evaluate/score.js",
};

/** Loads what a command calls. */
export async function library<K extends keyof Modules>(name: K): Promise<Modules[K]> {
  return (await import(PATHS[name])) as Modules[K];
}
