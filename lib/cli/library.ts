// The one table of what the commands call in the other rooms: loaded when a command runs, so that `--help` is fast.

import type { RunConfig, Task } from "../train/config.ts";
import type { Stage } from "../train/progress.ts";

/** What long work tells its caller. */
export interface Hooks {
  readonly signal: AbortSignal;
  /** One call a change; the receiver decides how often it shows something. */
  onStage(stage: Stage): void;
  /** A sentence for people: a warning, a file that was written. */
  log(message: string): void;
}

export type Metrics = Readonly<Record<string, unknown>>;

/** Rooms that are built. */
export const library = {
  run: () => import("../train/run.ts"),
  inspect: () => import("../train/inspect_run.ts"),
  generate: () => import("../generate/generate.ts"),
  score: () => import("../evaluate/score.ts"),
  plan: () =>
    planned<{ planRun(task: Task, config: RunConfig, hooks: Hooks): Promise<Metrics> }>("../train/plan_run.js"),
  profile: () =>
    planned<{
      profileRun(task: Task, config: RunConfig, options: { readonly steps: number }, hooks: Hooks): Promise<Metrics>;
    }>("../train/profile_run.js"),
};

/** A module by its path: for those whose types do not stand yet. */
async function planned<T>(path: string): Promise<T> {
  return (await import(path)) as T;
}
