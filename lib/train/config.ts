// The configuration of a run: types of the library, schemas of the commands, and the one function that checks values,
// fills in defaults and settles what belongs together.

import { z } from "zod";
import { ConfigError } from "../errors.ts";
import { dpoExtra, runShape, sftExtra, trainingShape } from "./config_fields.ts";
import { parseShape } from "./config_parse.ts";
import type { Source } from "./config_parse.ts";
import { camel, snake } from "./config_schema.ts";
import type { CamelKeys, Task } from "./config_schema.ts";

export type { Task } from "./config_schema.ts";

export const sftShape = { ...runShape("sft"), ...sftExtra, ...trainingShape(2e-5) };
export const dpoShape = { ...runShape("dpo"), ...dpoExtra, ...trainingShape(1e-6) };

/** The files that `attune sft` and `attune dpo` read. */
export const sftSchema = z.strictObject(sftShape);
export const dpoSchema = z.strictObject(dpoShape);

export function shapeOf(task: Task): typeof sftShape | typeof dpoShape {
  return task === "sft" ? sftShape : dpoShape;
}

/** Rows: a file, or rows as objects in TRL's formats. */
export type RowsSource = string | Iterable<unknown> | AsyncIterable<unknown>;

/** Where messages of a run go; pino and console both fit. */
export interface Logger {
  info(message: string): void;
  warn(message: string): void;
}

/** What the library takes besides the keys of a file. */
export interface RunExtras {
  /** Aborting stops the run after the step in flight, with a checkpoint where there is an outputDir. */
  readonly signal?: AbortSignal | undefined;
  readonly logger?: Logger | undefined;
}

type Raw<S extends z.ZodType> = CamelKeys<z.input<S>>;
type Full<S extends z.ZodType> = CamelKeys<z.output<S>>;
/** Keys that are settled into another one: they never reach a run. */
type Settled =
  "perDeviceTrainBatchSize" | "gradientAccumulationSteps" | "warmupRatio" | "packing" | "precomputeRefLogProbs";
type Rows = "dataset" | "evalDataset";

type Options<S extends z.ZodType> = Readonly<
  Omit<Raw<S>, Rows> & { dataset: RowsSource; evalDataset?: RowsSource | null | undefined }
> &
  RunExtras;
type Config<S extends z.ZodType> = Readonly<
  Omit<Full<S>, Rows | Settled | "batchSize"> & {
    dataset: RowsSource;
    evalDataset: RowsSource | null;
    batchSize: number;
  }
>;

/** What `SFTTrainer.create` takes. */
export type SftOptions = Options<typeof sftSchema>;
/** What `DPOTrainer.create` takes. */
export type DpoOptions = Options<typeof dpoSchema>;
/** A checked SFT run with every default filled in. */
export type SftConfig = Config<typeof sftSchema>;
/** A checked DPO run with every default filled in. */
export type DpoConfig = Config<typeof dpoSchema>;
export type RunConfig<T extends Task = Task> = T extends "sft" ? SftConfig : DpoConfig;

/** A checked configuration and what its author should be told about it. */
export interface Resolved<T extends Task> {
  readonly config: RunConfig<T>;
  readonly notices: readonly string[];
}

/**
 * Checks the keys of a file or of flags (snake_case) and fills in defaults.
 * @throws ConfigError with every problem, one a line.
 */
export function resolveConfig<T extends Task>(
  task: T,
  raw: Readonly<Record<string, unknown>>,
  source?: Partial<Source>,
): Resolved<T> {
  const full: Source = { spelling: "snake", elsewhere: (key) => otherTask(task, key), ...source };
  const values = parseShape(shapeOf(task), raw, full) as Record<string, unknown>;
  return settle(task, values, raw, full);
}

/**
 * Checks the options of the library (camelCase; rows may be objects) and fills in defaults. `keepsFolder`: outputDir was given.
 * @throws ConfigError with every problem, one a line.
 */
export function resolveOptions<T extends Task>(
  task: T,
  options: T extends "sft" ? SftOptions : DpoOptions,
): Resolved<T> & RunExtras & { readonly keepsFolder: boolean } {
  const { signal, logger, ...rest } = options as SftOptions;
  const rows: { dataset?: unknown; evalDataset?: unknown } = {};
  const raw: Record<string, unknown> = { ...rest };
  for (const key of ["dataset", "evalDataset"] as const) {
    if (!isRows(raw[key])) continue;
    rows[key] = raw[key];
    raw[key] = "rows given as objects";
  }
  const source: Source = { spelling: "camel", elsewhere: (key) => otherTask(task, key) };
  const values = parseShape(shapeOf(task), raw, source) as Record<string, unknown>;
  const given = Object.fromEntries(Object.entries(raw).map(([key, value]) => [snake(key), value]));
  const { config, notices } = settle(task, values, given, source);
  const keepsFolder = raw["outputDir"] !== undefined;
  const idle = keepsFolder ? [] : OF_A_FOLDER.filter((key) => raw[key] !== undefined);
  if (idle.length > 0)
    throw new ConfigError(idle.map((key) => `${key}: must come with outputDir, got none (name the folder that the run keeps)`).join("\n"));
  return { config: { ...config, ...rows } as RunConfig<T>, notices, signal, logger, keepsFolder };
}

/** Options that say how a run keeps its folder; without one there is nothing that they could mean. */
const OF_A_FOLDER = ["overwriteOutputDir", "resume", "loggingSteps", "saveStrategy", "saveSteps", "saveTotalLimit"];

function isRows(value: unknown): boolean {
  return typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value);
}

function otherTask(task: Task, key: string): string | undefined {
  const other = task === "sft" ? dpoShape : sftShape;
  if (!Object.hasOwn(other, key) || Object.hasOwn(shapeOf(task), key)) return undefined;
  return `it belongs to ${task === "sft" ? "dpo" : "sft"}: leave it out`;
}

/** Settles the keys that say one thing in two ways, and checks what holds between keys. */
function settle<T extends Task>(
  task: T,
  values: Record<string, unknown>,
  raw: Readonly<Record<string, unknown>>,
  source: Source,
): Resolved<T> {
  const name = (key: string): string => (source.spelling === "camel" ? camel(key) : key);
  const at = (key: string): string => (source.label ?? name)(key);
  const problems: string[] = [];
  const notices: string[] = [];
  const v = values as z.output<typeof dpoSchema>;
  const { per_device_train_batch_size: device, gradient_accumulation_steps: steps, warmup_ratio: ratio, ...rest } = v;

  const product = (device ?? 8) * (steps ?? 1);
  if (v.batch_size !== undefined && (device !== undefined || steps !== undefined) && v.batch_size !== product) {
    const keys = `${name("per_device_train_batch_size")} ${device ?? 8} x ${name("gradient_accumulation_steps")} ${steps ?? 1}`;
    problems.push(`${at("batch_size")}: must equal ${keys} = ${product}, got ${v.batch_size} (give one or the other)`);
  }
  if (ratio !== undefined && v.warmup_steps > 0) {
    problems.push(
      `${at("warmup_ratio")}: must be alone, got ${name("warmup_steps")} ${v.warmup_steps} too (give one or the other)`,
    );
  }
  if (v.warmup_steps >= 1 && !Number.isInteger(v.warmup_steps)) {
    problems.push(
      `${at("warmup_steps")}: must be a whole number of steps, or a share of the run below 1, got ${v.warmup_steps}`,
    );
  }
  for (const key of ["eval_steps", "eval_rows"] as const) {
    if (v[key] !== null && v.eval_dataset === null) {
      problems.push(
        `${at(key)}: must come with ${name("eval_dataset")}, got none (name a file of rows to evaluate on)`,
      );
    }
  }
  if (task === "dpo" && v.label_smoothing > 0 && v.loss_type !== "sigmoid") {
    problems.push(
      `${at("label_smoothing")}: must be 0 with ${name("loss_type")} ${v.loss_type}, got ${v.label_smoothing}`,
    );
  }
  if (problems.length > 0) throw new ConfigError(problems.join("\n"));

  if (raw["packing"] !== undefined)
    notices.push(`${at("packing")}: has no effect: micro-batches are always packed and rows never see each other`);
  if (raw["precompute_ref_log_probs"] === false) {
    notices.push(
      `${at("precompute_ref_log_probs")}: has no effect: the reference is scored once before training, which gives the same loss`,
    );
  }
  const settled: Record<string, unknown> = {
    ...rest,
    batch_size: v.batch_size ?? product,
    warmup_steps: ratio ?? v.warmup_steps,
  };
  delete settled["packing"];
  delete settled["precompute_ref_log_probs"];
  // A ratio of 1 is the whole run; as a number of steps it would be one step.
  if (ratio === 1) settled["warmup_steps"] = 1 - Number.EPSILON;
  const config = Object.fromEntries(Object.entries(settled).map(([key, value]) => [camel(key), value]));
  return { config: config as unknown as RunConfig<T>, notices };
}

/** Warm-up of a run in optimiser steps, rounded up as transformers does. */
export function warmupSteps(config: { readonly warmupSteps: number }, totalSteps: number): number {
  return config.warmupSteps < 1 ? Math.ceil(config.warmupSteps * totalSteps) : config.warmupSteps;
}
