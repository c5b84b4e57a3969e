// The trainers of the library: the commands' runs, one step at a time, in camelCase.
import { setTimeout } from "node:timers/promises";
import { resolveOptions, type DpoOptions, type RunConfig, type SftOptions, type Task } from "./config.ts";
import { ensureWritableFolder } from "../io/write.ts";
import { saveFinal } from "./save.ts";
import { Trainer, type StepMetrics } from "./trainer.ts";

async function open<T extends Task>(task: T, options: T extends "sft" ? SftOptions : DpoOptions): Promise<Trainer> {
  const { config, notices, signal, logger } = resolveOptions(task, options);
  for (const n of notices) logger?.info(n);
  await setTimeout(1); // checking the options has taken its turn of the event loop
  return Trainer.create(task, config as RunConfig, {
    signal: signal ?? new AbortController().signal,
    onStage: () => undefined,
    log: (message) => logger?.info(message),
  });
}

class LibraryTrainer {
  readonly #trainer: Trainer;
  protected constructor(trainer: Trainer) {
    this.#trainer = trainer;
  }

  /** Optimiser steps done, and in all. */
  get step(): number {
    return this.#trainer.step;
  }
  get totalSteps(): number {
    return this.#trainer.totalSteps;
  }

  /** Train a step at a time: `break` stops after the step in flight, iterating again goes on. Throws NumericError, DeviceError. */
  [Symbol.asyncIterator](): AsyncGenerator<StepMetrics> {
    return this.#trainer[Symbol.asyncIterator]();
  }

  /** Train to the end; resolves to the last step's metrics, undefined where there was nothing left to do. */
  async train(): Promise<StepMetrics | undefined> {
    let last: StepMetrics | undefined;
    for await (const metrics of this) last = metrics;
    return last;
  }

  /** Write the model into `dir` as a Hugging Face folder. Throws WriteError. */
  async save(dir: string): Promise<void> {
    await ensureWritableFolder(dir);
    await saveFinal(this.#trainer, dir);
  }

  /** Free the session: memory and thread. `await using` does it by itself. */
  close(): Promise<void> {
    return this.#trainer[Symbol.asyncDispose]();
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Supervised fine-tuning of a model folder on rows. */
export class SFTTrainer extends LibraryTrainer {
  /** Prepares the data, loads the model and compiles. Throws ConfigError, DataError, OutOfMemoryError, DeviceError. */
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
