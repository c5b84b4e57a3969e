// What `attune plan` shows: the memory of a run before it starts, by kind, and the work of a step.
import type { Plan } from "../passes/plan.ts";
import { costOf } from "../program/encode.ts";
import type { RunConfig, Task } from "./config.ts";
import { compileFor, compileTraining, loadModel } from "./engine.ts";
import { memoryOf } from "./memory.ts";
import { scoreProgram } from "./programs.ts";
import { mostRows } from "./reference.ts";
import { headOf, lossOf, prepareData, tokensPerBatch, type Hooks } from "./trainer.ts";

/** Bytes by kind and FLOPs of a full micro-batch at capacity; nothing is allocated and no weight is read. */
export async function planRun(task: Task, config: RunConfig, hooks: Hooks): Promise<Record<string, unknown>> {
  const { trees } = await prepareData(task, config, hooks);
  const tokens = tokensPerBatch(trees, config);
  const loaded = await loadModel(config.model, { device: config.device, dtype: config.dtype ?? "float32", ...(config.threads && { threads: config.threads }) });
  try {
    const { spec, session, parameters } = loaded;
    const loss = lossOf(task, config);
    const head = headOf(loaded, trees, tokens, config, loss.kind);
    const { adamBeta1: beta1, adamBeta2: beta2, adamEpsilon: eps, weightDecay } = config;
    const plans: Plan[] = Object.values(compileTraining(loaded, head, loss, { beta1, beta2, eps, weightDecay }));
    if (task === "dpo") plans.push(compileFor(session, scoreProgram(spec, { tokens, rows: mostRows(trees, tokens) })));
    const memory = memoryOf(plans);
    return {
      task,
      device: session.device,
      dtype: spec.dtype,
      parameters: parameters.reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0),
      tokens_per_batch: tokens,
      head_rows: head.sizes.rows,
      head_chunks: head.sizes.chunks,
      instructions: plans[0]!.instructions.length,
      ...memory,
      micro_step_flops: flopsOf(plans[0]!),
    };
  } finally {
    await loaded.session.close();
  }
}

/** Floating-point operations of a program with every capacity in use; attention counted causal. */
function flopsOf(p: Plan): number {
  return p.instructions.reduce((n, c) => n + costOf(c).flops, 0);
}
