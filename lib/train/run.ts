// A run with its folder: config.yaml, metrics.jsonl, checkpoints, the final model. What `attune sft` and `attune dpo` call.
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "../errors.ts";
import { removeDeadTemporaries, writeWhole } from "../io/atomic_folder.ts";
import { newestCheckpoint, pruneCheckpoints, type Checkpoint } from "../io/checkpoint.ts";
import { hashText } from "../io/hash.ts";
import { JsonlWriter, truncateToStep } from "../io/jsonl_writer.ts";
import { ensureWritableFolder } from "../io/write.ts";
import { today } from "../data/dataset.ts";
import { resolveConfig, type RunConfig, type Task } from "./config.ts";
import { readRunFile } from "./config_file.ts";
import { changedKeys, formatConfig } from "./config_record.ts";
import { writeReport } from "./report.ts";
import { restore, saveFinal, saveRunCheckpoint } from "./save.ts";
import { Trainer, type Hooks, type StepMetrics } from "./trainer.ts";
import { loadAddon } from "../runtime/addon.ts";

export interface RunHooks extends Hooks {
  onMetrics(metrics: Readonly<Record<string, unknown>>): void;
}
export type Summary = Readonly<Record<string, number>>;

/** Train to the end (or to the signal), keeping the run folder. Returns the summary, Hugging Face's names. */
export async function runTraining(task: Task, given: RunConfig, hooks: RunHooks): Promise<Summary> {
  const config = await settled(task, given);
  const folder = await openFolder(task, config, hooks);
  if (folder.finished) {
    if (!(await exists(join(config.outputDir, "report.html")))) await writeReport(config.outputDir); // killed just before it
    hooks.log(`${config.outputDir} holds a finished run: nothing to do`);
    return folder.finished;
  }
  await using trainer = await Trainer.create(task, config, hooks);
  const means = new Means();
  if (folder.checkpoint) {
    await restore(trainer, folder.checkpoint.dir, folder.checkpoint.state);
    means.load(folder.checkpoint.state.extra);
    hooks.log(`resumed from step ${trainer.step}`);
  }
  const metricsPath = join(config.outputDir, "metrics.jsonl");
  await truncateToStep(metricsPath, folder.checkpoint?.step ?? -1);
  await using metrics = await JsonlWriter.open(metricsPath);
  const start = performance.now();
  const firstTokens = trainer.numTokens;
  const save = async (): Promise<void> => {
    await metrics.sync();
    await saveRunCheckpoint(trainer, config.outputDir, folder.configHash, means.dump());
    if (config.saveTotalLimit !== null) await pruneCheckpoints(config.outputDir, config.saveTotalLimit);
  };
  const write = async (line: Readonly<Record<string, number>>): Promise<void> => {
    await metrics.append(line);
    hooks.onMetrics(line);
  };
  /** False where the signal came first: a resumed run evaluates then. */
  const evaluated = async (): Promise<boolean> => {
    const line = trainer.evaluationDue && (await trainer.evaluate());
    if (line) await write(line);
    return line !== undefined;
  };
  let saved = trainer.step;
  let going = await evaluated();
  while (going && trainer.step < trainer.totalSteps && !hooks.signal.aborted) {
    const m = await trainer.next();
    means.add(m);
    hooks.onStage({ name: "training", done: m.step, total: trainer.totalSteps, unit: "steps", text: `loss ${m["loss"]!.toFixed(4)}` });
    if (m.step % config.loggingSteps === 0 || m.step === trainer.totalSteps) await write(means.line(m));
    going = await evaluated();
    const due =
      (config.saveStrategy === "steps" && m.step % config.saveSteps === 0) ||
      (config.saveStrategy === "epoch" && m.step % trainer.stepsPerEpoch === 0);
    if (going && due && m.step < trainer.totalSteps) {
      await save();
      saved = m.step;
    }
  }
  if (!going || trainer.step < trainer.totalSteps) {
    if (saved < trainer.step) await save(); // interrupted: go on later with --resume
    return { step: trainer.step };
  }
  await saveFinal(trainer, config.outputDir);
  const seconds = (performance.now() - start) / 1000;
  const summary = {
    step: trainer.step,
    epoch: trainer.epoch,
    train_runtime: seconds,
    train_loss: means.overall(),
    train_steps_per_second: trainer.totalSteps / seconds,
    train_tokens_per_second: (trainer.numTokens - firstTokens) / seconds,
    num_tokens: trainer.numTokens,
    reference_seconds: trainer.referenceSeconds,
    peak_bytes: loadAddon().peakRss(),
  };
  await metrics.append(summary);
  await metrics.sync();
  await writeReport(config.outputDir);
  return summary;
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

/** The configuration with what defaults depend on the machine and the day written out; a resumed run keeps its day. */
async function settled(task: Task, config: RunConfig): Promise<RunConfig> {
  const file = join(config.outputDir, "config.yaml");
  const began = config.resume && (await exists(file)) ? resolveConfig(task, (await readRunFile(file)).values).config.chatTemplateDate : null;
  const chatTemplateDate = config.chatTemplateDate ?? began ?? today();
  return { ...config, dtype: config.dtype ?? "float32", chatTemplateDate } as RunConfig;
}

interface Folder {
  readonly checkpoint: Checkpoint | null;
  readonly configHash: string;
  /** The summary of a run that is done. */
  readonly finished: Summary | null;
}

/** Take possession of output_dir: refuse a run that is there, or find where it goes on. */
async function openFolder(task: Task, config: RunConfig, hooks: Hooks): Promise<Folder> {
  const dir = config.outputDir;
  await ensureWritableFolder(dir);
  const text = formatConfig(config);
  const configHash = hashText(text);
  const file = join(dir, "config.yaml");
  const names = await readdir(dir);
  const holdsRun = names.includes("config.yaml") || names.includes("metrics.jsonl") || names.some((n) => n.startsWith("checkpoint-"));
  if (holdsRun && !config.resume && !config.overwriteOutputDir)
    throw new ConfigError(`output_dir: must not hold a run, got ${dir} (--resume goes on with it, --overwrite-output-dir replaces it)`);
  if (holdsRun && config.overwriteOutputDir && !config.resume)
    for (const n of names) if (/^(config\.yaml|metrics\.jsonl|samples\.jsonl|report\.html|checkpoint-\d+|.*\.safetensors|config\.json)$/.test(n)) await rm(join(dir, n), { recursive: true, force: true });
  if (config.resume && (await exists(file))) {
    const started = resolveConfig(task, (await readRunFile(file)).values).config;
    const changed = changedKeys(task, started, config);
    if (changed.length) throw new ConfigError(`resume: these keys must be as the run began with, got others: ${changed.join(", ")} (see ${file})`);
    await removeDeadTemporaries(dir);
    const finished = await summaryOf(join(dir, "metrics.jsonl"));
    if (finished) return { checkpoint: null, configHash, finished };
    const { checkpoint, skipped } = await newestCheckpoint(dir);
    for (const s of skipped) hooks.log(`${s.dir} is passed over: ${s.reason}`);
    return { checkpoint, configHash, finished: null };
  }
  await mkdir(dir, { recursive: true });
  await writeWhole(file, text);
  return { checkpoint: null, configHash, finished: null };
}

const exists = (path: string): Promise<boolean> => stat(path).then(() => true, () => false);

async function summaryOf(path: string): Promise<Summary | null> {
  const lines = (await readFile(path, "utf8").catch(() => "")).trimEnd().split("\n");
  try {
    const last = JSON.parse(lines.at(-1) ?? "") as Record<string, number>;
    return "train_runtime" in last ? last : null;
  } catch {
    return null;
  }
}
