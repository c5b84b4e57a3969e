// What `attune profile` shows: where a run's time goes, by op and by shape, measured over real optimiser steps, beside the device's limit.
import type { Peak } from "../runtime/addon.ts";
import { deviceOf } from "../runtime/host.ts";
import type { RunConfig, Task } from "./config.ts";
import type { Timing } from "./engine.ts";
import { Trainer, type Hooks } from "./trainer.ts";

interface Row {
  readonly op: string;
  /** Operands and flags; what takes the op's time with every capacity in use. */
  readonly shape: string;
  /** Milliseconds of a step, and calls in it. */
  readonly ms: number;
  readonly calls: number;
  /** Null for attention, whose operations depend on the data's mask. */
  readonly tflops_per_second: number | null;
  readonly gb_per_second: number;
  /** What the op's operations or bytes would take at the device's peak, over what it took; null where either is not known. */
  readonly roofline: number | null;
}

export interface Profile {
  readonly [key: string]: unknown;
  readonly shapes: readonly Row[];
}

function rowsOf(timings: readonly Timing[], steps: number, peak: Peak): Row[] {
  const groups = new Map<string, Timing[]>();
  for (const t of timings) {
    const key = `${t.op} ${t.shape} ${t.dtype}`;
    groups.set(key, [...(groups.get(key) ?? []), t]);
  }
  const rows = [...groups.values()].map((all): Row => {
    const [first] = all as [Timing];
    const sum = (of: (t: Timing) => number): number => all.reduce((n, t) => n + of(t), 0);
    const seconds = sum((t) => t.nanoseconds) / 1e9;
    const [flops, bytes] = [first.flops === null ? null : sum((t) => t.flops! * t.runs), sum((t) => t.bytes * t.runs)];
    const floor = Math.max((flops ?? 0) / peak[first.dtype === "bfloat16" ? "bfloat16" : "float32"], bytes / peak.copy);
    return {
      op: first.op,
      shape: `${first.shape}, ${first.dtype}`,
      ms: (seconds * 1000) / steps,
      calls: sum((t) => t.runs) / steps,
      tflops_per_second: flops === null ? null : flops / seconds / 1e12,
      gb_per_second: bytes / seconds / 1e9,
      roofline: peak.copy > 0 && flops !== null ? floor / seconds : null,
    };
  });
  return rows.sort((a, b) => b.ms - a.ms);
}

/**
 * Milliseconds of each op over `steps` optimiser steps (after one that is not counted), largest first: summed by op, then by shape with the rates that
 * they reach. `other_ms` is the rest of the real step. Rates count every capacity as in use: on a CPU, micro-batches that are not full reach less than
 * is shown. On a GPU each op is timed in a graph of repeats, in steps that follow the real ones by turns. Without `graph`, there, every run of a program
 * is launched call by call, each in an NVTX range of its op and name and timed as it comes.
 */
export async function profileRun(task: Task, config: RunConfig, options: { readonly steps: number; readonly graph: boolean }, hooks: Hooks): Promise<Profile> {
  const apart = options.graph && !["cpu", "null"].includes(deviceOf(config.device));
  const maxSteps = 1 + options.steps * (apart ? 2 : 1);
  await using trainer = await Trainer.create(task, { ...config, maxSteps, evalDataset: null } as RunConfig, hooks, { named: !options.graph });
  await trainer.next();
  let wall = 0;
  for (let i = 0; i < options.steps; i++) {
    trainer.engine.profile = !apart;
    const start = performance.now();
    await trainer.next();
    wall += performance.now() - start;
    if (apart) {
      trainer.engine.profile = "repeats";
      await trainer.next();
    }
    hooks.onStage({ name: "profiling", done: i + 1, total: options.steps, unit: "steps" });
  }
  const peak = await trainer.loaded.session.peak();
  const shapes = rowsOf(await trainer.engine.timings(), options.steps, peak);
  const byOp = new Map<string, { ms: number; calls: number }>();
  for (const { op, ms, calls } of shapes) {
    const row = byOp.get(op) ?? { ms: 0, calls: 0 };
    byOp.set(op, { ms: row.ms + ms, calls: row.calls + calls });
  }
  const ops = [...byOp].map(([op, r]) => ({ op, ms: r.ms, share: (r.ms * options.steps) / wall, calls: r.calls })).sort((a, b) => b.ms - a.ms);
  const counted = ops.reduce((n, r) => n + r.ms, 0);
  return { task, steps: options.steps, step_ms: wall / options.steps, ops_ms: counted, other_ms: wall / options.steps - counted, ops, shapes };
}
