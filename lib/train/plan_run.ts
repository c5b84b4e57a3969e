// What `attune plan` shows: the memory of a run before it starts, by kind, and the work of a step.
import { bytes } from "../ir/types.ts";
import type { Graph } from "../ir/graph.ts";
import { typesOf } from "../ir/graph.ts";
import { normProgram, updateProgram } from "../optim/adamw.ts";
import { lower } from "../passes/compile.ts";
import { bufferBytes, isPrivate } from "../program/program.ts";
import type { DpoConfig, RunConfig, Task } from "./config.ts";
import { compileFor, loadModel, planHead } from "./engine.ts";
import { microStep, scoreProgram, type LossSpec } from "./programs.ts";
import { mostRows } from "./reference.ts";
import { prepareData, tokensPerBatch, type Hooks } from "./trainer.ts";

/** Bytes by kind and FLOPs of a full micro-batch at capacity; nothing is allocated and no weight is read. */
export async function planRun(task: Task, config: RunConfig, hooks: Hooks): Promise<Record<string, unknown>> {
  const { trees } = await prepareData(task, config, hooks);
  const tokens = tokensPerBatch(trees, config);
  const loaded = await loadModel(config.model, { device: config.device, dtype: config.dtype ?? "float32", ...(config.threads && { threads: config.threads }) });
  try {
    const { spec, session, parameters } = loaded;
    const dpo = config as DpoConfig;
    const loss: LossSpec = task === "sft" ? { kind: "sft" } : { kind: "dpo", lossType: dpo.lossType, beta: dpo.beta, labelSmoothing: dpo.labelSmoothing };
    const longest = Math.max(...Array.from({ length: trees.length }, (_, i) => trees.trained(i)));
    const head = planHead(spec.config.vocabSize, tokens, mostRows(trees, tokens), Math.min(config.batchSize, trees.length), longest, loss.kind);
    const micro = microStep(spec, head.sizes, loss, head.keepLogits);
    const { adamBeta1: beta1, adamBeta2: beta2, adamEpsilon: eps, weightDecay } = config;
    const graphs = [micro, normProgram(parameters), updateProgram(parameters, spec.dtype, { beta1, beta2, eps, weightDecay })];
    if (task === "dpo") graphs.push(scoreProgram(spec, { tokens, rows: mostRows(trees, tokens) }));
    const plans = graphs.map((g) => compileFor(session, g));
    const shared = new Map(plans.flatMap((p) => [...p.buffers]).filter(([name]) => !isPrivate(name)));
    const own = plans.flatMap((p) => [...p.buffers]).filter(([name]) => isPrivate(name)).reduce((n, [, t]) => n + bytes(t), 0);
    const classes = Object.fromEntries([...bufferBytes(shared)].map(([k, v]) => [`${k}_bytes`, v]));
    const arena = Math.max(...plans.map((p) => p.arenaBytes));
    const total = Object.values(classes).reduce((a, b) => a + b, 0) + own + arena;
    return {
      task,
      device: session.device,
      dtype: spec.dtype,
      parameters: parameters.reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0),
      tokens_per_batch: tokens,
      head_rows: head.sizes.rows,
      head_chunks: head.sizes.chunks,
      instructions: plans[0]!.instructions.length,
      ...classes,
      inputs_outputs_bytes: own,
      arena_bytes: arena,
      arena_live_bytes: Math.max(...plans.map((p) => p.liveBytes)),
      total_bytes: total,
      micro_step_flops: flopsOf(lower(micro)),
    };
  } finally {
    await loaded.session.close();
  }
}

/** Floating-point operations of a graph with every capacity in use; attention counted causal. */
function flopsOf(g: Graph): number {
  return g.nodes.reduce((n, node) => n + node.def.cost(typesOf(node.inputs), node.attrs).flops, 0);
}
