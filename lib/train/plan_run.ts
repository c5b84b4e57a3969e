// What `attune plan` shows: the memory of a run before it starts, by kind, and the work of a step.
import type { RunConfig, Task } from "./config.ts";
import { loadModel } from "../engine/model.ts";
import { scoreFlops } from "../engine/scorer.ts";
import { flops } from "./compile.ts";
import { compileTraining } from "./engine.ts";
import { memoryLimit, type Memory } from "../engine/memory.ts";
import { memoryOfRun, refusal } from "./memory.ts";
import { headsOf, layoutsOf, lossOf, setsOf, shrinking, type Layout } from "./layout.ts";
import { otherReference, prepareSets, rowsUsed, scoredSizes, stepsOf, type Hooks } from "./trainer.ts";
import { flopsPerExample, measuredRate } from "./work.ts";

/** A run's shape, memory and work. Nothing of the model is allocated and no weight is read. */
export interface RunPlan extends Memory {
  readonly task: Task;
  readonly device: string;
  readonly threads: number;
  readonly dtype: string;
  readonly parameters: number;
  readonly examples: number;
  readonly steps: number;
  /** Rows of an evaluation, and how many evaluations there are. */
  readonly evaluation_examples: number;
  readonly evaluations: number;
  readonly tokens_per_batch: number;
  readonly head_rows: number;
  readonly head_chunks: number;
  /** What the run may take (`memory_limit`, else the machine), what is left of that, and whether the run fits. */
  readonly limit_bytes: number;
  readonly free_bytes: number;
  readonly fits: boolean;
  /** Why it does not fit and what would; null where it does. */
  readonly refusal: string | null;
  /** Largest sum of bytes alive at once in the arena: no placing can go below it. */
  readonly activations_live_bytes: number;
  /** What was chosen to be computed twice rather than kept. */
  readonly recomputed: readonly string[];
  readonly flops_per_step: number;
  readonly reference_flops: number;
  readonly evaluation_flops: number;
  readonly flops_per_second: number;
  readonly flops_per_second_source: string;
  /** Time of a step, and of the run with its reference pass and evaluations, at that rate and with nothing else to do. */
  readonly floor_step_seconds: number;
  readonly floor_run_seconds: number;
}

export async function planRun(task: Task, config: RunConfig, hooks: Hooks): Promise<RunPlan> {
  const machine = { device: config.device, dtype: config.dtype, ...(config.threads && { threads: config.threads }) };
  const loaded = await loadModel(config.model, machine);
  try {
    const { spec, session, parameters } = loaded;
    const { data, held } = await prepareSets(task, config, loaded, hooks);
    await using other = await otherReference(config, machine);
    const loss = lossOf(task, config);
    const layouts = layoutsOf(task, config, loaded, data.trees, held?.trees);
    const { trees, head, pack } = layouts.training;
    const { adamBeta1: beta1, adamBeta2: beta2, adamEpsilon: eps, weightDecay } = config;
    const adam = { beta1, beta2, eps, weightDecay };
    const plans = await compileTraining(loaded, headsOf(layouts), loss, adam);
    const scored = scoredSizes(task, layouts);
    const memory = await memoryOfRun(loaded, Object.values(plans), scored, other?.loaded);
    const limit = memoryLimit(config.memoryLimit, session);
    const ofStep = (name: "microStep" | "evaluationStep", of: Layout): Promise<number> =>
      flopsPerExample(of.trees, of.pack.sharePrompt, "rows.0", (counts) => flops(counts, name, spec, of.head.sizes, loss, of.head.kept));
    const step =
      (await ofStep("microStep", layouts.training)) * Math.min(config.batchSize, trees.length) +
      (await flops([{}], "normProgram", spec.parameters))[0]! +
      (await flops([{}], "updateProgram", spec.parameters, spec.dtype, adam))[0]!;
    const evaluation = layouts.evaluation ? (await ofStep("evaluationStep", layouts.evaluation)) * layouts.evaluation.trees.length : 0;
    let reference = 0;
    for (const [i, sizes] of scored.entries()) {
      const of = setsOf(layouts)[i]!;
      const used = i === 0 ? rowsUsed(trees.length, config) : of.trees.length;
      reference += (await flopsPerExample(of.trees, of.pack.sharePrompt, "rows", (counts) => scoreFlops(other?.loaded ?? loaded, sizes, counts))) * used;
    }
    const { flops_per_second, measured_by } = await measuredRate(loaded);
    const { total } = stepsOf(trees.length, config);
    const evaluations = Math.ceil(total / (config.evalSteps ?? total));
    return {
      task,
      device: session.device,
      threads: session.threads,
      dtype: spec.dtype,
      parameters: parameters.reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0),
      examples: trees.length,
      steps: total,
      evaluation_examples: held?.trees.length ?? 0,
      evaluations: held ? evaluations : 0,
      tokens_per_batch: pack.tokensPerBatch,
      head_rows: head.sizes.rows,
      head_chunks: head.sizes.chunks,
      ...memory,
      limit_bytes: limit,
      free_bytes: limit - memory.total_bytes,
      fits: memory.total_bytes <= limit,
      refusal: await refusal(memory, config.memoryLimit, session, shrinking(task, config, loaded, layouts)),
      activations_live_bytes: plans.micro.liveBytes,
      recomputed: head.kept === "nothing" ? ["logits"] : [],
      flops_per_step: step,
      reference_flops: reference,
      evaluation_flops: evaluation,
      flops_per_second,
      flops_per_second_source: measured_by,
      floor_step_seconds: step / flops_per_second,
      floor_run_seconds: (total * step + reference + evaluations * evaluation) / flops_per_second,
    };
  } finally {
    await loaded.session.close();
  }
}
