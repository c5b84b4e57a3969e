// A run, and all that belongs to its steps: lines of metrics.jsonl, evaluations, checkpoints, the final model. The commands take it to
// its end, the library a step at a time; without a folder it trains and evaluates, and writes nothing.
import { join } from "node:path";
import { NumericError } from "../errors.ts";
import { pruneCheckpoints } from "../io/checkpoint.ts";
import { JsonlWriter, truncateToStep } from "../io/jsonl_writer.ts";
import type { RunConfig, Task } from "./config.ts";
import { savedProducts } from "./products.ts";
import { writeReport } from "./report.ts";
import { openRunFolder, takeRunFolder, type RunFolder, type Summary } from "./run_folder.ts";
import { restore, restoreFinished, saveFinal, saveRunCheckpoint } from "./save.ts";
import { Trainer, type Hooks, type StepMetrics } from "./trainer.ts";

export interface RunHooks extends Hooks {
  /** What was written to metrics.jsonl, but for the summary. */
  onMetrics(metrics: Readonly<Record<string, unknown>>): void;
}

/** Train to the end (or to the signal), keeping the run folder. Returns the summary, Hugging Face's names. */
export async function runTraining(task: Task, config: RunConfig, hooks: RunHooks): Promise<Summary> {
  const folder = await openRunFolder(task, config, hooks.log);
  if (folder.finished) return folder.finished;
  await using run = await Run.start(task, folder.config, folder, hooks);
  for await (const _ of run);
  return run.summary ?? { step: run.trainer.step };
}

export class Run {
  readonly trainer: Trainer;
  readonly #hooks: RunHooks;
  readonly #folder: RunFolder | null;
  readonly #metrics: JsonlWriter | null;
  readonly #means: Means;
  readonly #began = performance.now();
  readonly #firstTokens: number;
  #saved: number;
  #summary: Summary | null;

  private constructor(trainer: Trainer, hooks: RunHooks, folder: RunFolder | null, metrics: JsonlWriter | null, means: Means) {
    this.trainer = trainer;
    this.#hooks = hooks;
    this.#folder = folder;
    this.#metrics = metrics;
    this.#means = means;
    this.#saved = trainer.step;
    this.#firstTokens = trainer.numTokens;
    this.#summary = folder?.finished ?? null;
  }

  /** Prepares the trainer, where `folder` says that the run stands. A finished run has the model that it saved, and no step left. */
  static async start(task: Task, config: RunConfig, folder: RunFolder | null, hooks: RunHooks): Promise<Run> {
    const products = folder?.checkpoint ? await savedProducts(folder.checkpoint.dir) : undefined;
    const trainer = await Trainer.create(task, config, hooks, { ...(products !== undefined && { products }) });
    try {
      const means = new Means();
      if (!folder) return new Run(trainer, hooks, null, null, means);
      if (folder.finished) {
        await restoreFinished(trainer, config.outputDir, folder.finished);
        return new Run(trainer, hooks, folder, null, means);
      }
      await takeRunFolder(folder);
      if (folder.checkpoint) {
        await restore(trainer, folder.checkpoint.dir, folder.checkpoint.state);
        means.load(folder.checkpoint.state.extra);
        hooks.log(`resumed from step ${trainer.step}`);
      }
      const path = join(config.outputDir, "metrics.jsonl");
      await truncateToStep(path, folder.checkpoint?.step ?? -1);
      return new Run(trainer, hooks, folder, await JsonlWriter.open(path), means);
    } catch (error) {
      await trainer[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The last line of metrics.jsonl, once the run is done. */
  get summary(): Summary | null {
    return this.#summary;
  }

  /**
   * Steps one by one until the end or the signal, `eval_*` metrics among those of a step that evaluates. What belongs to a step is done
   * before it is yielded, the final model with the last: so `break` loses nothing, and iterating again goes on.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<StepMetrics> {
    const { trainer } = this;
    const { signal } = this.#hooks;
    let going = (await this.#evaluate()) !== undefined; // of a run stopped before it
    while (going && trainer.step < trainer.totalSteps && !signal.aborted) {
      const m = await trainer.next().catch((error: unknown) => this.#keepLastGood(error));
      await this.#log(m);
      const evaluation = await this.#evaluate();
      going = evaluation !== undefined;
      if (going && trainer.step === trainer.totalSteps) await this.#finish();
      else if (signal.aborted || this.#saveDue) await this.#save();
      yield { ...m, ...evaluation };
    }
    if (going && trainer.step === trainer.totalSteps) await this.#finish();
    else if (signal.aborted) await this.#save();
  }

  async #log(m: StepMetrics): Promise<void> {
    const { totalSteps, config } = this.trainer;
    this.#means.add(m);
    this.#hooks.onStage({ name: "training", done: m.step, total: totalSteps, unit: "steps", text: `loss ${m["loss"]!.toFixed(4)}` });
    if (m.step % config.loggingSteps === 0 || m.step === totalSteps) await this.#write(this.#means.line(m));
  }

  async #write(line: Readonly<Record<string, number>>): Promise<void> {
    await this.#metrics?.append(line);
    this.#hooks.onMetrics(line);
  }

  /** The evaluation that is due, else nothing; undefined where the signal came first: a resumed run evaluates then. */
  async #evaluate(): Promise<Record<string, number> | undefined> {
    const { trainer } = this;
    if (!trainer.evaluationDue) return {};
    const line = await trainer.evaluate();
    if (!line) return undefined;
    trainer.evaluated = trainer.step;
    await this.#write(line);
    return line;
  }

  get #saveDue(): boolean {
    const { step, stepsPerEpoch, config } = this.trainer;
    return (config.saveStrategy === "steps" && step % config.saveSteps === 0) || (config.saveStrategy === "epoch" && step % stepsPerEpoch === 0);
  }

  /** A checkpoint of this step, unless it has one: go on later with resume. */
  async #save(): Promise<void> {
    const { trainer } = this;
    if (!this.#folder || this.#saved === trainer.step) return;
    const { outputDir, saveTotalLimit } = trainer.config;
    await this.#metrics?.sync();
    await saveRunCheckpoint(trainer, outputDir, this.#folder.configHash, this.#means.dump());
    if (saveTotalLimit !== null) await pruneCheckpoints(outputDir, saveTotalLimit);
    this.#saved = trainer.step;
  }

  /** A step that fails on its numbers has updated nothing: the weights are those of the last good one. */
  async #keepLastGood(error: unknown): Promise<never> {
    if (error instanceof NumericError) await this.#save();
    throw error;
  }

  async #finish(): Promise<void> {
    if (this.#summary || !this.#folder || !this.#metrics) return;
    const { trainer } = this;
    const { outputDir } = trainer.config;
    await saveFinal(trainer, outputDir);
    const seconds = (performance.now() - this.#began) / 1000;
    const summary = {
      step: trainer.step,
      epoch: trainer.epoch,
      train_runtime: seconds,
      train_loss: this.#means.overall(),
      train_steps_per_second: trainer.totalSteps / seconds,
      train_tokens_per_second: (trainer.numTokens - this.#firstTokens) / seconds,
      num_tokens: trainer.numTokens,
      reference_seconds: trainer.referenceSeconds,
      peak_bytes: trainer.loaded.session.peakBytes,
    };
    await this.#metrics.append(summary);
    await this.#metrics.sync();
    await writeReport(outputDir);
    this.#summary = summary;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.trainer[Symbol.asyncDispose]();
    await this.#metrics?.close();
  }
}

/** Means of the logged metrics since the last line, as transformers logs them; they travel in checkpoints. */
class Means {
  #steps = 0;
  #sums: Record<string, number> = {};
  #lossSum = 0;
  #allSteps = 0;

  add(m: StepMetrics): void {
    this.#steps++;
    this.#allSteps++;
    this.#lossSum += m["loss"]!;
    for (const [k, v] of Object.entries(m)) this.#sums[k] = (this.#sums[k] ?? 0) + v;
  }
  line(m: StepMetrics): Record<string, number> {
    const last = new Set(["step", "epoch", "learning_rate", "grad_norm", "num_tokens", "peak_bytes"]);
    const line = Object.fromEntries(Object.keys(m).map((k) => [k, last.has(k) ? m[k]! : this.#sums[k]! / this.#steps]));
    this.#steps = 0;
    this.#sums = {};
    return line;
  }
  overall(): number {
    return this.#lossSum / Math.max(1, this.#allSteps);
  }
  dump(): { means: { steps: number; sums: Record<string, number>; lossSum: number; allSteps: number } } {
    return { means: { steps: this.#steps, sums: { ...this.#sums }, lossSum: this.#lossSum, allSteps: this.#allSteps } };
  }
  load(extra: Readonly<Record<string, unknown>>): void {
    const old = extra["means"] as ReturnType<Means["dump"]>["means"] | undefined;
    if (!old) return;
    [this.#steps, this.#sums, this.#lossSum, this.#allSteps] = [old.steps, { ...old.sums }, old.lossSum, old.allSteps];
  }
}
