// A run, from data to metrics, one optimiser step at a time. The parts that differ between kinds of training are a TaskRun.
import { epochOrder } from "../data/order.ts";
import { packStep, type PackOptions } from "../data/pack.ts";
import { prepare, type Prepared } from "../data/dataset.ts";
import type { TreeTable } from "../data/tree_table.ts";
import type { Tree } from "../data/types.ts";
import { ConfigError, DataError, NumericError } from "../errors.ts";
import { learningRateFactor } from "../optim/schedules.ts";
import { loadAddon } from "../runtime/addon.ts";
import { warmupSteps, type DpoConfig, type RunConfig, type Task } from "./config.ts";
import { dataOptions } from "./data_options.ts";
import { dpoTask } from "./dpo_task.ts";
import { compileMicro, compileTraining, cutHead, Engine, loadModel, planHead, readMasters, readWeights, type HeadPlan, type LoadedModel } from "./engine.ts";
import { memoryOfRun, refuseIfTooLarge, type Shrinking } from "./memory.ts";
import type { LossSpec } from "./programs.ts";
import { cacheDir, mostRows, referenceLogps } from "./reference.ts";
import { sftTask } from "./sft_task.ts";
import { Sums, type TaskRun } from "./task.ts";

export interface Hooks {
  readonly signal: AbortSignal;
  onStage(stage: { name: string; done: number; total: number | null; unit?: string; text?: string }): void;
  log(message: string): void;
}
export type StepMetrics = { readonly step: number } & Readonly<Record<string, number>>;

/** Micro-batches of about this many tokens cost no speed and keep activations small. */
const USUAL_TOKENS = 640;

export class Trainer {
  readonly task: Task;
  readonly config: RunConfig;
  readonly data: Prepared;
  readonly loaded: LoadedModel;
  readonly engine: Engine;
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly referenceSeconds: number;
  /** Optimiser steps done. */
  step = 0;
  /** Tokens seen, counted as TRL counts them: a shared prompt once for each completion. */
  numTokens = 0;
  readonly #run: TaskRun;
  readonly #hooks: Hooks;
  readonly #pack: PackOptions;
  #order: { readonly epoch: number; readonly places: Int32Array } | undefined;

  private constructor(task: Task, config: RunConfig, data: Prepared, loaded: LoadedModel, engine: Engine, run: TaskRun, hooks: Hooks, pack: PackOptions, referenceSeconds: number) {
    this.task = task;
    this.config = config;
    this.data = data;
    this.loaded = loaded;
    this.engine = engine;
    this.#run = run;
    this.#hooks = hooks;
    this.#pack = pack;
    this.referenceSeconds = referenceSeconds;
    ({ perEpoch: this.stepsPerEpoch, total: this.totalSteps } = stepsOf(data.trees.length, config));
  }

  /** Prepare the data, open the model, compile, and for DPO score the reference. */
  static async create(task: Task, config: RunConfig, hooks: Hooks): Promise<Trainer> {
    if (config.evalDataset !== null)
      throw new ConfigError("eval_dataset: must be left out, since a run does not evaluate yet (`attune score` measures a model on rows)");
    const data = await prepareData(task, config, hooks);
    for (const message of dataNotices(data)) hooks.log(message);
    const { trees } = data;
    const tokens = tokensPerBatch(trees, config);
    const dtype = config.dtype ?? "float32";
    const machine = { device: config.device, dtype, ...(config.threads && { threads: config.threads }) };
    const loaded = await loadModel(config.model, machine);
    try {
      for (const w of loaded.model.config.warnings) hooks.log(w);
      const { adamBeta1: beta1, adamBeta2: beta2, adamEpsilon: eps, weightDecay } = config;
      const adam = { beta1, beta2, eps, weightDecay };
      const loss = lossOf(task, config);
      const head = headOf(loaded, trees, tokens, config, loss.kind);
      const plans = await compileTraining(loaded, head, loss, adam);
      const scored = task === "dpo" ? [{ tokens, rows: mostRows(trees, tokens) }] : [];
      await using other = await otherReference(config, machine);
      await refuseIfTooLarge(await memoryOfRun(loaded, Object.values(plans), scored, other?.loaded), config.memoryLimit, shrinking(task, config, loaded, trees, tokens));
      const start = performance.now();
      const reference = task === "dpo" ? await scoreReference(config as DpoConfig, other?.loaded ?? loaded, data, tokens, hooks) : undefined;
      await other?.[Symbol.asyncDispose]();
      const referenceSeconds = reference ? (performance.now() - start) / 1000 : 0;
      const run = reference ? dpoRun(config as DpoConfig, trees, reference) : sftTask();
      const pack: PackOptions = { tokensPerBatch: tokens, rowsPerBatch: mostRows(trees, tokens), sharePrompt: sharesPrompt(config) };
      const engine = await Engine.create(loaded, head, plans, adam);
      await readWeights(loaded);
      if (dtype === "bfloat16") await readMasters(loaded);
      return new Trainer(task, config, data, loaded, engine, run, hooks, pack, referenceSeconds);
    } catch (error) {
      await loaded.session.close();
      throw error;
    }
  }

  get epoch(): number {
    return this.step / this.stepsPerEpoch;
  }

  /** The trees of optimiser step `step` (from 0): exactly batchSize examples of the epoch's order, the last step of an epoch may be short. */
  treesOf(step: number): Tree[] {
    const epoch = Math.floor(step / this.stepsPerEpoch);
    if (this.#order?.epoch !== epoch)
      this.#order = { epoch, places: epochOrder(this.data.trees.length, { seed: this.config.seed, epoch, shuffle: this.config.shuffle }) };
    const from = (step % this.stepsPerEpoch) * this.config.batchSize;
    return Array.from(this.#order.places.subarray(from, from + this.config.batchSize), (i) => this.data.trees.at(i));
  }

  /** One optimiser step. Throws NumericError, with nothing updated, where the loss or the gradient is not finite. */
  async next(): Promise<StepMetrics> {
    const start = performance.now();
    const { config, engine } = this;
    const trees = this.treesOf(this.step);
    const divisor = this.#run.divisor(trees);
    const sums = new Sums();
    for (const micro of packStep(trees, this.#pack)) {
      const fed = cutHead(micro, engine.head);
      const out = await engine.micro(fed, 1 / Math.max(1, divisor), this.#run.headInputs(fed, engine.head));
      const before = sums.get("loss");
      this.#run.collect(sums, micro, fed, out);
      if (!Number.isFinite(sums.get("loss")) && Number.isFinite(before)) this.#notFinite("the loss", micro.examples.map((e) => e.row));
    }
    const norm = await engine.gradNorm();
    if (!Number.isFinite(norm)) this.#notFinite("the gradient's norm", trees.map((t) => t.row));
    const warmup = warmupSteps(config, this.totalSteps);
    const lr = config.learningRate * learningRateFactor(config.lrSchedulerType, this.step, { warmupSteps: warmup, totalSteps: this.totalSteps });
    await engine.update(this.step + 1, lr, norm, config.maxGradNorm);
    this.step++;
    const tokens = trees.reduce((n, t) => n + t.trunk.length * t.branches.length + t.branches.reduce((m, b) => m + b.ids.length, 0), 0);
    this.numTokens += tokens;
    const seconds = (performance.now() - start) / 1000;
    return {
      step: this.step,
      epoch: this.epoch,
      ...this.#run.metrics(sums, Math.max(1, divisor)),
      grad_norm: norm,
      learning_rate: lr,
      num_tokens: this.numTokens,
      step_seconds: seconds,
      tokens_per_second: tokens / seconds,
      peak_bytes: loadAddon().peakRss(),
    } as StepMetrics;
  }

  /** Steps one by one until the end; `break` leaves the trainer usable, and iterating again goes on. */
  async *[Symbol.asyncIterator](): AsyncGenerator<StepMetrics> {
    while (this.step < this.totalSteps) {
      if (this.#hooks.signal.aborted) return;
      yield await this.next();
    }
  }

  #notFinite(what: string, rows: readonly number[]): never {
    const named = rows.slice(0, 8).join(", ");
    throw new NumericError(`step ${this.step + 1}: ${what} must be finite, got NaN or infinity (rows ${named}${rows.length > 8 ? ", ..." : ""}; try a smaller learning_rate)`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.loaded.session.close();
  }
}

/** Optimiser steps of an epoch, and of the run. */
export function stepsOf(examples: number, config: RunConfig): { readonly perEpoch: number; readonly total: number } {
  const perEpoch = Math.ceil(examples / config.batchSize);
  return { perEpoch, total: config.maxSteps > 0 ? config.maxSteps : Math.ceil(config.numTrainEpochs * perEpoch) };
}

/** Tokenise the rows of a run. */
export async function prepareData(task: Task, config: RunConfig, hooks: Hooks): Promise<Prepared> {
  const data = await prepare({
    ...dataOptions(task, config),
    cache: cacheDir(),
    signal: hooks.signal,
    onProgress: (p) => hooks.onStage({ name: "tokenising", done: p.rows, total: null, unit: "rows" }),
  });
  if (data.trees.length === 0) throw new DataError(`dataset: must hold a row to train on, got ${data.report.rows} rows, all left out (see \`attune inspect\`)`);
  return data;
}

function dataNotices(data: Prepared): string[] {
  const { dropped, warnings } = data.report;
  const line = (verb: string, [reason, t]: [string, { count: number; rows: number[] }]): string =>
    `${t.count} row${t.count === 1 ? "" : "s"} ${verb}: ${reason.replaceAll("_", " ")} (rows ${t.rows.join(", ")}${t.count > t.rows.length ? ", ..." : ""})`;
  return [...Object.entries(dropped).map((e) => line("left out", e)), ...Object.entries(warnings).map((e) => line("noted", e))];
}

/** Whether the branches of an example share its prompt: `prompt_trees`, which SFT has no use for. */
export const sharesPrompt = (config: RunConfig): boolean => !("promptTrees" in config) || config.promptTrees;

/** The loss that a configuration names. */
export function lossOf(task: Task, config: RunConfig): LossSpec {
  if (task === "sft") return { kind: "sft" };
  const { lossType, beta, labelSmoothing } = config as DpoConfig;
  return { kind: "dpo", lossType, beta, labelSmoothing };
}

/** How the head of this run is cut. */
export function headOf(loaded: LoadedModel, trees: TreeTable, tokens: number, config: RunConfig, loss: "sft" | "dpo"): HeadPlan {
  let longest = 1;
  for (let i = 0; i < trees.length; i++) longest = Math.max(longest, trees.trained(i));
  return planHead(loaded.model.config.vocabSize, tokens, mostRows(trees, tokens), Math.min(config.batchSize, trees.length), longest, loss);
}

/** How the activations of this run would shrink. */
export function shrinking(task: Task, config: RunConfig, loaded: LoadedModel, trees: TreeTable, tokens: number): Shrinking {
  const loss = lossOf(task, config);
  const activations = async (t: number): Promise<number> => (await compileMicro(loaded, headOf(loaded, trees, t, config, loss.kind), loss)).arenaBytes;
  return { tokens, longest: longestTree(trees, config).tokens, activations };
}

/** The most tokens that an example takes, and its row. */
export function longestTree(trees: TreeTable, config: RunConfig): { readonly tokens: number; readonly row: number } {
  const shared = sharesPrompt(config);
  let longest = { tokens: 1, row: 0 };
  for (let i = 0; i < trees.length; i++) if (trees.tokens(i, shared) > longest.tokens) longest = { tokens: trees.tokens(i, shared), row: trees.row(i) };
  return longest;
}

/** The given budget, or one that holds every example and packs small ones. */
export function tokensPerBatch(trees: TreeTable, config: RunConfig): number {
  const { tokens: longest, row } = longestTree(trees, config);
  if (config.tokensPerBatch !== null) {
    if (longest > config.tokensPerBatch)
      throw new ConfigError(`tokens_per_batch: must hold every example, got ${config.tokensPerBatch} and row ${row} of ${longest} tokens (set tokens_per_batch to ${longest} or more, or max_length lower)`);
    return config.tokensPerBatch;
  }
  const whole = Math.min(config.batchSize, trees.length) * longest;
  return Math.max(longest, Math.min(USUAL_TOKENS, whole));
}

/** The model of `ref_model`, where that is not the policy's own folder, in a session of its own. */
export async function otherReference(config: RunConfig, machine: Parameters<typeof loadModel>[1]): Promise<({ readonly loaded: LoadedModel } & AsyncDisposable) | undefined> {
  const dir = "refModel" in config ? config.refModel : null;
  if (dir === null || dir === config.model) return undefined;
  const loaded = await loadModel(dir, machine);
  return { loaded, [Symbol.asyncDispose]: () => loaded.session.close() };
}

async function scoreReference(config: DpoConfig, loaded: LoadedModel, data: Prepared, tokens: number, hooks: Hooks): Promise<Float64Array> {
  const { logps, cached } = await referenceLogps(loaded, {
    trees: data.trees,
    dataHash: data.hash,
    tokensPerBatch: tokens,
    sharePrompt: sharesPrompt(config),
    signal: hooks.signal,
    onProgress: (done, total) => hooks.onStage({ name: "reference", done, total, unit: "rows" }),
  });
  if (cached) hooks.log(`reference log-probabilities of ${cached} of ${data.trees.length} rows come from the cache`);
  return logps;
}

function dpoRun(config: DpoConfig, trees: TreeTable, reference: Float64Array): TaskRun {
  const place = new Map<number, number>();
  for (let i = 0; i < trees.length; i++) place.set(trees.row(i), i);
  const at = (row: number): number => place.get(row)!;
  const { beta, labelSmoothing, lossType } = config;
  return dpoTask({ beta, labelSmoothing, lossType }, (row) => trees.at(at(row)), (row) => [reference[2 * at(row)]!, reference[2 * at(row) + 1]!]);
}
