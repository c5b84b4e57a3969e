// `attune plan`: what a run needs, before it starts.

import { OutOfMemoryError } from "../errors.ts";
import type { RunPlan } from "../train/plan_run.ts";
import type { Command } from "./command.ts";
import { library } from "./library.ts";
import { anyTaskShape, RUN_ARGUMENT, runOf } from "./run_file.ts";
import { formatRecord } from "./tables.ts";

export const command: Command = {
  summary: "Say what memory and time a run needs, before it starts",
  details: "Memory is exact for everything that attune allocates; Node itself takes about 100 MB more. A run that does not fit ends with exit code 4.",
  examples: ["attune plan run.yaml", "attune plan run.yaml --memory_limit 8GB --json"],
  shape: anyTaskShape,
  argument: RUN_ARGUMENT,
  async run(call, io) {
    const { task, config } = await runOf(call, io);
    const { planRun } = await library.plan();
    const plan = await planRun(task, config, {
      signal: io.signal,
      onStage: (stage) => io.progress.update(stage),
      log: (message) => io.note(message),
    });
    io.progress.close();
    if (io.json) io.value(plan);
    else io.text(formatRecord(page(plan)));
    if (plan.refusal) throw new OutOfMemoryError(plan.refusal);
  },
};

/** The plan as a page for people. */
function page(p: RunPlan): Record<string, unknown> {
  return {
    run: {
      task: p.task,
      model: `${p.parameters.toLocaleString("en-US")} parameters in ${p.dtype}`,
      on: `${p.device}, ${p.threads} threads`,
      examples: p.examples,
      ...(p.evaluations > 0 && { "evaluation examples": p.evaluation_examples }),
      "optimiser steps": p.steps,
      "micro-batch": `up to ${p.tokens_per_batch} tokens; the head takes ${p.head_rows} rows at a time`,
    },
    memory: {
      weights_bytes: p.weights_bytes,
      packed_weights_bytes: p.packed_weights_bytes,
      gradients_bytes: p.gradients_bytes,
      optimizer_bytes: p.optimizer_bytes,
      activations_bytes: p.activations_bytes,
      inputs_and_outputs_bytes: p.inputs_outputs_bytes,
      thread_scratch_bytes: p.thread_scratch_bytes,
      total_bytes: p.total_bytes,
      limit_bytes: p.limit_bytes,
      free_bytes: p.free_bytes,
      "computed twice to save memory": p.recomputed.join(", ") || "nothing",
    },
    work: {
      "each step": `${(p.flops_per_step / 1e9).toPrecision(4)} GFLOP`,
      ...(p.reference_flops > 0 && { "reference pass": `${(p.reference_flops / 1e9).toPrecision(4)} GFLOP, once` }),
      ...(p.evaluations > 0 && { "each evaluation": `${(p.evaluation_flops / 1e9).toPrecision(4)} GFLOP, ${p.evaluations} in all` }),
      "this machine": `${(p.flops_per_second / 1e9).toPrecision(3)} GFLOP/s (${p.flops_per_second_source})`,
      least_step_seconds: p.floor_step_seconds,
      least_run_seconds: p.floor_run_seconds,
    },
  };
}
