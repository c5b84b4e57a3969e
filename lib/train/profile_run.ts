// What `attune profile` shows: where a run's time goes, op by op, measured over real optimiser steps.
import type { RunConfig, Task } from "./config.ts";
import { Trainer, type Hooks } from "./trainer.ts";

/** Milliseconds and share of each op over `steps` optimiser steps (after one that is not counted), largest first. */
export async function profileRun(task: Task, config: RunConfig, options: { readonly steps: number }, hooks: Hooks): Promise<Record<string, unknown>> {
  await using trainer = await Trainer.create(task, { ...config, maxSteps: options.steps + 1, evalDataset: null } as RunConfig, hooks);
  await trainer.next();
  trainer.engine.profile = true;
  const start = performance.now();
  for (let i = 0; i < options.steps; i++) {
    await trainer.next();
    hooks.onStage({ name: "profiling", done: i + 1, total: options.steps, unit: "steps" });
  }
  const wall = performance.now() - start;
  const byOp = new Map<string, { ms: number; calls: number }>();
  for (const { op, nanoseconds } of await trainer.engine.timings()) {
    const row = byOp.get(op) ?? { ms: 0, calls: 0 };
    byOp.set(op, { ms: row.ms + nanoseconds / 1e6, calls: row.calls + 1 });
  }
  const ops = [...byOp]
    .map(([op, r]) => ({ op, ms: r.ms / options.steps, share: r.ms / wall, instructions: r.calls }))
    .sort((a, b) => b.ms - a.ms);
  const counted = ops.reduce((n, r) => n + r.ms, 0);
  return { task, steps: options.steps, step_ms: wall / options.steps, ops_ms: counted, other_ms: wall / options.steps - counted, ops };
}
