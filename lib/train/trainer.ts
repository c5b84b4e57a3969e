// A run, from data to metrics, one optimiser step at a time. The parts that differ between kinds of training are a TaskRun.
import { epochOrder, stepExamples, stepsPerEpoch } from "../data/order.ts";
import { packStep } from "../data/pack.ts";
import { prepare, type Prepared } from "../data/dataset.ts";
import { TreeTable } from "../data/tree_table.ts";
import type { Tree } from "../data/types.ts";
import { DataError, NumericError, StateError } from "../errors.ts";
import { learningRateFactor } from "../optim/schedules.ts";
import { warmupSteps, type DpoConfig, type RunConfig, type Task } from "./config.ts";
import { dataOptions } from "./data_options.ts";
import { dpoTask } from "./dpo_task.ts";
import { loadModel, readMasters, readWeights, type LoadedModel } from "../engine/model.ts";
import type { ScoreSizes } from "../engine/programs.ts";
import type { Outputs } from "../engine/scorer.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { compileTraining, cutHead, Engine, type Fed } from "./engine.ts";
import { GRADIENTS } from "./programs.ts";
import { evaluate } from "./evaluation.ts";
import { headsOf, layoutsOf, lossOf, setsOf, shrinking, type Layout, type Layouts } from "./layout.ts";
import { memoryOfRun, refuseIfTooLarge } from "./memory.ts";
import { goOnWith, handOver } from "./products.ts";
import { cacheDir, referenceLogps, type ReferenceOptions } from "./reference.ts";
import { sftTask } from "./sft_task.ts";
import { Sums, type TaskRun } from "./task.ts";

export interface Hooks {
  readonly signal: AbortSignal;
  onStage(stage: { name: string; done: number; total: number | null; unit?: string; text?: string }): void;
  log(message: string): void;
}
/** An optimiser step's metrics under TRL's names: `loss`, `grad_norm`, `learning_rate`, `rewards/*`, ..., `step_seconds`, `peak_bytes`. */
export type StepMetrics = { readonly step: number } & Readonly<Record<string, number>>;
/** Rows in their layout, and what the task makes of them. */
interface RowsOfRun {
  readonly layout: Layout;
  readonly run: TaskRun;
}

/** Micro-batches that are queued at a time: one computes, one stands behind it on the device, one waits to take the first one's place. */
const AHEAD = 3;

/** What one optimiser step is made of. */
interface Batches {
  readonly trees: readonly Tree[];
  readonly divisor: number;
  readonly micros: readonly { readonly fed: Fed; readonly inputs: ReturnType<TaskRun["headInputs"]> }[];
}

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
  /** The last step whose due evaluation was made. */
  evaluated = 0;
  readonly #hooks: Hooks;
  readonly #training: RowsOfRun;
  readonly #evaluation: RowsOfRun | undefined;
  #stepping = false;
  #order: { readonly epoch: number; readonly places: Int32Array } | undefined;
  #ahead: { readonly step: number; readonly batches: Promise<Batches> } | undefined;

  private constructor(task: Task, config: RunConfig, data: Prepared, loaded: LoadedModel, engine: Engine, hooks: Hooks, training: RowsOfRun, evaluation: RowsOfRun | undefined, referenceSeconds: number) {
    this.task = task;
    this.config = config;
    this.data = data;
    this.loaded = loaded;
    this.engine = engine;
    this.#hooks = hooks;
    this.#training = training;
    this.#evaluation = evaluation;
    this.referenceSeconds = referenceSeconds;
    ({ perEpoch: this.stepsPerEpoch, total: this.totalSteps } = stepsOf(data.trees.length, config));
  }

  /** Open the model, prepare the data, compile, and for DPO score the reference. `products`: those of the checkpoint that the run goes on from. */
  static async create(task: Task, config: RunConfig, hooks: Hooks, options: Pick<SessionOptions, "named"> & { readonly products?: string } = {}): Promise<Trainer> {
    const { products, ...named } = options;
    const machine = { device: config.device, dtype: config.dtype, ...(config.threads && { threads: config.threads }), ...named };
    const loaded = await loadModel(config.model, machine);
    try {
      for (const w of loaded.model.config.warnings) hooks.log(w);
      const { data, held } = await prepareSets(task, config, loaded, hooks);
      for (const message of dataNotices(data)) hooks.log(message);
      if (held) for (const message of dataNotices(held)) hooks.log(`eval_dataset: ${message}`);
      const { adamBeta1: beta1, adamBeta2: beta2, adamEpsilon: eps, weightDecay } = config;
      const adam = { beta1, beta2, eps, weightDecay };
      const loss = lossOf(task, config);
      const layouts = layoutsOf(task, config, loaded, data.trees, held?.trees);
      const plans = await compileTraining(loaded, headsOf(layouts), loss, adam);
      await using other = await otherReference(config, machine);
      const memory = await memoryOfRun(loaded, Object.values(plans), scoredSizes(task, layouts), other?.loaded);
      await refuseIfTooLarge(memory, config.memoryLimit, loaded.session, shrinking(task, config, loaded, layouts));
      const start = performance.now();
      if (products !== undefined) await goOnWith(products, [loaded, ...(other ? [other.loaded] : [])].map((l) => l.session), hooks.log);
      const sets: RowsOfRun[] = [];
      for (const [i, layout] of setsOf(layouts).entries()) {
        if (task === "sft") sets.push({ layout, run: sftTask() });
        else {
          const use = i === 0 ? await useOf(layout.trees, config) : undefined;
          const reference = await scoreReference(other?.loaded ?? loaded, layout, [data, held][i]!.hash, use, hooks);
          sets.push({ layout, run: dpoRun(config as DpoConfig, layout.trees, reference) });
        }
      }
      if (other) await handOver(other.loaded, loaded);
      await other?.[Symbol.asyncDispose]();
      const referenceSeconds = task === "dpo" ? (performance.now() - start) / 1000 : 0;
      const engine = await Engine.create(loaded, headsOf(layouts), plans, adam);
      await readWeights(loaded);
      if (loaded.spec.dtype === "bfloat16") await readMasters(loaded);
      return new Trainer(task, config, data, loaded, engine, hooks, sets[0]!, sets[1], referenceSeconds);
    } catch (error) {
      await loaded.session.close();
      throw error;
    }
  }

  get epoch(): number {
    return this.step / this.stepsPerEpoch;
  }

  /** The trees of optimiser step `step` (from 0): exactly batchSize examples of the epoch's order, the last step of an epoch may be short. */
  async treesOf(step: number): Promise<Tree[]> {
    const epoch = Math.floor(step / this.stepsPerEpoch);
    if (this.#order?.epoch !== epoch)
      this.#order = { epoch, places: await epochOrder(this.data.trees.length, { seed: this.config.seed, epoch, shuffle: this.config.shuffle }) };
    return Array.from(stepExamples(this.#order.places, step % this.stepsPerEpoch, this.config.batchSize), (i) => this.data.trees.at(i));
  }

  /** One optimiser step. Throws NumericError, with nothing updated, where the loss or the gradient is not finite; StateError while another step runs. */
  async next(): Promise<StepMetrics> {
    if (this.#stepping) throw new StateError("step: must be asked for when the one before is done, got two at a time");
    this.#stepping = true;
    try {
      return await this.#next();
    } finally {
      this.#stepping = false;
    }
  }

  async #next(): Promise<StepMetrics> {
    const start = performance.now();
    const { config, engine } = this;
    const { run } = this.#training;
    const { trees, divisor, micros } = await (this.#ahead?.step === this.step ? this.#ahead.batches : this.#batches(this.step));
    // In this order, AHEAD of them at a time: the device never waits for JavaScript, nor the event loop for a whole step's copies.
    const queued: Promise<Outputs>[] = [];
    for (const [i, { fed, inputs }] of micros.entries()) {
      if (i >= AHEAD) await queued[i - AHEAD];
      const overwrite = i === 0 ? GRADIENTS : ""; // the gradient of the step before
      const running = engine.training.run(fed, 1 / Math.max(1, divisor), inputs, { profile: engine.profile, overwrite });
      running.catch(() => {}); // the first that fails is the one awaited
      queued.push(running);
    }
    const computed = Promise.all([engine.gradNorm(), ...queued]);
    if (this.step + 1 < this.totalSteps) this.#prepare(this.step + 1); // while the device computes
    const [norm, ...outs] = await computed;
    const sums = new Sums();
    const strays: string[] = [];
    for (const [i, { fed }] of micros.entries()) {
      const before = sums.get("loss");
      run.collect(sums, fed.micro, fed, outs[i]!);
      if (this.step === 0 && this.#startsAtReference) strays.push(...(run.strays?.(fed, outs[i]!) ?? []));
      if (!Number.isFinite(sums.get("loss")) && Number.isFinite(before)) this.#notFinite("the loss", fed.micro.examples.map((e) => e.row));
    }
    if (strays.length) this.#hooks.log(`the policy must start at the reference: |logp - ref logp| <= 1e-6 |logp|, got more for ${few(strays)} (was attune rebuilt since the reference was cached? then empty ${cacheDir()})`);
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
      ...run.metrics(sums, Math.max(1, divisor)),
      grad_norm: norm,
      learning_rate: lr,
      num_tokens: this.numTokens,
      step_seconds: seconds,
      tokens_per_second: tokens / seconds,
      peak_bytes: this.loaded.session.peakBytes,
    } as StepMetrics;
  }

  async #batches(step: number): Promise<Batches> {
    const { run, layout } = this.#training;
    const trees = await this.treesOf(step);
    const micros = packStep(trees, layout.pack).map((micro) => cutHead(micro, layout.head));
    return { trees, divisor: run.divisor(trees), micros: micros.map((fed) => ({ fed, inputs: run.headInputs(fed, layout.head) })) };
  }

  /** What goes wrong here is said by the step that wants it. */
  #prepare(step: number): void {
    const batches = this.#batches(step);
    batches.catch(() => {});
    this.#ahead = { step, batches };
  }

  /** Whether `eval_steps`, or the end of the run, asks for an evaluation that has not been made. */
  get evaluationDue(): boolean {
    const { evalSteps } = this.config;
    const asked = this.step === this.totalSteps || (evalSteps !== null && this.step > 0 && this.step % evalSteps === 0);
    return this.#evaluation !== undefined && asked && this.evaluated !== this.step;
  }

  /** Metrics of the evaluation rows with the weights as they are; undefined where the signal came first. Changes nothing in training. Throws StateError. */
  async evaluate(): Promise<StepMetrics | undefined> {
    if (!this.#evaluation) throw new StateError("evaluate: the run must have an eval_dataset, got none");
    const { layout, run } = this.#evaluation;
    const metrics = await evaluate(this.engine.evaluation!, layout, run, this.#hooks);
    if (!metrics) return undefined;
    if (!Number.isFinite(metrics["eval_loss"])) this.#hooks.log(`step ${this.step}: the loss of the evaluation rows is not finite`);
    return { step: this.step, epoch: this.epoch, ...metrics, eval_num_tokens: this.numTokens } as StepMetrics;
  }

  /** Steps one by one until the end, and nothing else. */
  async *[Symbol.asyncIterator](): AsyncGenerator<StepMetrics> {
    while (this.step < this.totalSteps && !this.#hooks.signal.aborted) yield await this.next();
  }

  #notFinite(what: string, rows: readonly number[]): never {
    throw new NumericError(`step ${this.step + 1}: ${what} must be finite, got NaN or infinity (rows ${few(rows)}; ${this.step === 0 ? "nothing is trained yet: the model overflows on these rows" : "try a smaller learning_rate"})`);
  }

  /** Whether the reference is the policy's own start, in a dtype that can tell. */
  get #startsAtReference(): boolean {
    return this.task === "dpo" && !hasOtherReference(this.config) && this.loaded.spec.dtype === "float32";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.loaded.session.close();
  }
}

const few = (all: readonly unknown[]): string => `${all.slice(0, 8).join(", ")}${all.length > 8 ? ", ..." : ""}`;

/** Optimiser steps of an epoch, and of the run. */
export function stepsOf(examples: number, config: RunConfig): { readonly perEpoch: number; readonly total: number } {
  const perEpoch = stepsPerEpoch(examples, config.batchSize);
  return { perEpoch, total: config.maxSteps > 0 ? config.maxSteps : Math.ceil(config.numTrainEpochs * perEpoch) };
}

/** Tokenise the rows of a run: those it trains on, and those it evaluates on, the first `eval_rows` of them. */
export async function prepareSets(task: Task, config: RunConfig, { model }: LoadedModel, hooks: Hooks): Promise<{ readonly data: Prepared; readonly held: Prepared | undefined }> {
  const data = await prepareData(task, config, model.config.vocabSize, hooks);
  const { evalDataset, evalRows } = config;
  if (evalDataset === null) return { data, held: undefined };
  const held = await prepareData(task, { ...config, dataset: evalDataset } as RunConfig, model.config.vocabSize, hooks, "eval_dataset");
  if (evalRows === null || evalRows >= held.trees.length) return { data, held };
  return { data, held: { ...held, trees: new TreeTable(held.trees.arrays, evalRows), hash: `${held.hash} ${evalRows}` } };
}

async function prepareData(task: Task, config: RunConfig, vocabSize: number, hooks: Hooks, key = "dataset"): Promise<Prepared> {
  const data = await prepare({
    ...dataOptions(task, config),
    vocabSize,
    cache: cacheDir(),
    signal: hooks.signal,
    onProgress: (p) => hooks.onStage({ name: "tokenising", done: p.rows, total: null, unit: "rows" }),
  });
  if (data.trees.length === 0)
    throw new DataError(`${key}: must hold a row to ${key === "dataset" ? "train" : "evaluate"} on, got ${data.report.rows} rows, all left out (see \`attune inspect\`)`);
  return data;
}

function dataNotices(data: Prepared): string[] {
  const { dropped, warnings } = data.report;
  const line = (verb: string, [reason, t]: [string, { count: number; rows: number[] }]): string =>
    `${t.count} row${t.count === 1 ? "" : "s"} ${verb}: ${reason.replaceAll("_", " ")} (rows ${t.rows.join(", ")}${t.count > t.rows.length ? ", ..." : ""})`;
  return [...Object.entries(dropped).map((e) => line("left out", e)), ...Object.entries(warnings).map((e) => line("noted", e))];
}

const hasOtherReference = (config: RunConfig): boolean => "refModel" in config && config.refModel !== null && config.refModel !== config.model;

/** The model of `ref_model`, where that is not the policy's own folder, in a session of its own. */
export async function otherReference(config: RunConfig, machine: Parameters<typeof loadModel>[1]): Promise<({ readonly loaded: LoadedModel } & AsyncDisposable) | undefined> {
  if (!hasOtherReference(config)) return undefined;
  const loaded = await loadModel((config as DpoConfig).refModel!, machine);
  return { loaded, [Symbol.asyncDispose]: () => loaded.session.close() };
}

/** Capacities of the passes that score the reference. */
export const scoredSizes = (task: Task, layouts: Layouts): ScoreSizes[] =>
  task === "dpo" ? setsOf(layouts).map(({ pack }) => ({ tokens: pack.tokensPerBatch, rows: pack.rowsPerBatch })) : [];

/** How many of its training rows a run uses: fewer than all in less than an epoch. */
export const rowsUsed = (examples: number, config: RunConfig): number => Math.min(examples, stepsOf(examples, config).total * config.batchSize);

/** Which they are; undefined where it uses all. */
async function useOf({ length }: TreeTable, config: RunConfig): Promise<ReferenceOptions["use"]> {
  const count = rowsUsed(length, config);
  return count < length ? { order: await epochOrder(length, { seed: config.seed, epoch: 0, shuffle: config.shuffle }), count } : undefined;
}

async function scoreReference(loaded: LoadedModel, { trees, pack }: Layout, dataHash: string, use: ReferenceOptions["use"], hooks: Hooks): Promise<Float64Array> {
  const { logps, wanted, cached } = await referenceLogps(loaded, {
    trees,
    ...(use && { use }),
    dataHash,
    tokensPerBatch: pack.tokensPerBatch,
    sharePrompt: pack.sharePrompt,
    signal: hooks.signal,
    onProgress: (done, total) => hooks.onStage({ name: "reference", done, total, unit: "rows" }),
  });
  if (cached) hooks.log(`reference log-probabilities of ${cached} of ${wanted} rows come from the cache`);
  return logps;
}

function dpoRun(config: DpoConfig, trees: TreeTable, reference: Float64Array): TaskRun {
  const at = (row: number): number => trees.find(row);
  const { beta, labelSmoothing, lossType } = config;
  return dpoTask({ beta, labelSmoothing, lossType }, (row) => trees.at(at(row)), (row) => [reference[2 * at(row)]!, reference[2 * at(row) + 1]!]);
}
