// The trainers of the library: the commands' runs, one step at a time, in camelCase.
import { setTimeout } from "node:timers/promises";
import { generatorOf, type Completion, type Generator, type Prompt, type Sampling } from "../generate/generate.ts";
import { ensureWritableFolder } from "../io/write.ts";
import { resolveOptions, type DpoOptions, type RunConfig, type SftOptions, type Task } from "./config.ts";
import { Run } from "./run.ts";
import { openRunFolder, type Summary } from "./run_folder.ts";
import { saveFinal } from "./save.ts";
import type { StepMetrics } from "./trainer.ts";

interface Opened {
  readonly run: Run;
  readonly signal: AbortSignal;
}

async function open<T extends Task>(task: T, options: T extends "sft" ? SftOptions : DpoOptions): Promise<Opened> {
  const { config, notices, signal = new AbortController().signal, logger, keepsFolder } = resolveOptions(task, options);
  const log = (message: string): void => logger?.info(message);
  notices.forEach(log);
  await setTimeout(1); // checking the options has taken its turn of the event loop
  const folder = keepsFolder ? await openRunFolder(task, config as RunConfig, log) : null;
  const hooks = { signal, log, onStage: () => undefined, onMetrics: () => undefined };
  return { run: await Run.start(task, folder?.config ?? (config as RunConfig), folder, hooks), signal };
}

class LibraryTrainer {
  readonly #run: Run;
  readonly #signal: AbortSignal;
  #generator: Promise<Generator> | undefined;
  protected constructor({ run, signal }: Opened) {
    this.#run = run;
    this.#signal = signal;
  }

  /** Optimiser steps done, and in all. */
  get step(): number {
    return this.#run.trainer.step;
  }
  get totalSteps(): number {
    return this.#run.trainer.totalSteps;
  }
  /** The last line of metrics.jsonl (Hugging Face's names: train_runtime in seconds, train_loss, ...), once a run with an outputDir is done; else null. */
  get summary(): Summary | null {
    return this.#run.summary;
  }

  /**
   * Train a step at a time: each step's metrics under TRL's names, `eval_*` among them where it evaluates. `break` stops after the step
   * in flight, iterating again goes on. With outputDir, the step's line of metrics.jsonl, its checkpoint and, after the last step, the
   * final model are written before it is yielded. Throws NumericError, DeviceError, WriteError; StateError where two ask for steps at once.
   */
  [Symbol.asyncIterator](): AsyncGenerator<StepMetrics> {
    return this.#run[Symbol.asyncIterator]();
  }

  /** Train to the end or the signal; resolves to the last step's metrics, undefined where there was nothing left to do. Throws as iterating does. */
  async train(): Promise<StepMetrics | undefined> {
    let last: StepMetrics | undefined;
    for await (const metrics of this) last = metrics;
    return last;
  }

  /** Metrics (`eval_loss`, ...) of evalDataset with the weights as they are; training goes on as if it had not been called. Throws StateError without an evalDataset; the signal's reason. */
  async evaluate(): Promise<StepMetrics> {
    const metrics = await this.#run.trainer.evaluate();
    if (!metrics) throw this.#signal.reason;
    return metrics;
  }

  /**
   * Completions of texts or conversations, in their order, with the weights as they are; between steps, so that all tokens come from the
   * same ones. Training goes on as if it had not been called, and its memory stays with the trainer. Throws DataError; the signal's reason.
   */
  async *generate(prompts: Iterable<Prompt> | AsyncIterable<Prompt>, options: Sampling = {}): AsyncGenerator<Completion> {
    const { loaded, config } = this.#run.trainer;
    this.#generator ??= generatorOf(loaded, config);
    yield* (await this.#generator).generate(prompts, options);
  }

  /** Write the model into `dir` as a Hugging Face folder. Throws WriteError. */
  async save(dir: string): Promise<void> {
    await ensureWritableFolder(dir);
    await saveFinal(this.#run.trainer, dir);
  }

  /** Free the session: memory and thread. `await using` does it by itself. */
  async close(): Promise<void> {
    const generator = await this.#generator?.catch(() => undefined);
    await generator?.[Symbol.asyncDispose]();
    await this.#run[Symbol.asyncDispose]();
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Supervised fine-tuning of a model folder on rows. */
export class SFTTrainer extends LibraryTrainer {
  /**
   * Prepares the data, loads the model and compiles. `dataset` and `evalDataset`: a file, or an (async) iterable of rows, read once.
   * With `outputDir` the run keeps that folder as `attune sft` does. Throws ConfigError, DataError, OutOfMemoryError, DeviceError, WriteError.
   */
  static async create(options: SftOptions): Promise<SFTTrainer> {
    return new SFTTrainer(await open("sft", options));
  }
}

/** Direct preference optimisation of a model folder on pairs. */
export class DPOTrainer extends LibraryTrainer {
  /** As SFTTrainer.create, and scores the reference. */
  static async create(options: DpoOptions): Promise<DPOTrainer> {
    return new DPOTrainer(await open("dpo", options));
  }
}
