// A run with its folder: config.yaml, metrics.jsonl, checkpoints, the final model. What `attune sft` and `attune dpo` call.
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError, NumericError } from "../errors.ts";
import { removeDeadTemporaries, writeWhole } from "../io/atomic_folder.ts";
import { newestCheckpoint, pruneCheckpoints, type Checkpoint } from "../io/checkpoint.ts";
import { hashText } from "../io/hash.ts";
import { JsonlWriter, truncateToStep } from "../io/jsonl_writer.ts";
import { ensureWritableFolder, writing } from "../io/write.ts";
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
  const started = given.resume ? await startedRun(task, given.outputDir) : null;
  const config = settled(given, started);
  const folder = await openFolder(task, config, started, hooks);
  if (folder.finished) {
    if (!(await exists(join(config.outputDir, "report.html")))) await writeReport(config.outputDir); // killed just before it
    hooks.log(`${config.outputDir} holds a finished run: nothing to do`);
    return folder.finished;
  }
  await using trainer = await Trainer.create(task, config, hooks);
  await begin(config, folder);
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
  /** A step that fails on its numbers has updated nothing: the weights are those of the last good one. */
  const keepLastGood = async (error: unknown): Promise<never> => {
    if (error instanceof NumericError && saved < trainer.step) await save();
    throw error;
  };
  let going = await evaluated();
  while (going && trainer.step < trainer.totalSteps && !hooks.signal.aborted) {
    const m = await trainer.next().catch(keepLastGood);
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
function settled(config: RunConfig, started: RunConfig | null): RunConfig {
  const chatTemplateDate = config.chatTemplateDate ?? started?.chatTemplateDate ?? today();
  return { ...config, dtype: config.dtype ?? "float32", chatTemplateDate } as RunConfig;
}

/** The configuration that the run in `dir` began with; null where none has. */
async function startedRun(task: Task, dir: string): Promise<RunConfig | null> {
  const file = join(dir, "config.yaml");
  if (!(await exists(file))) return null;
  const { values } = await readRunFile(file);
  const other = String(values["task"]);
  if (other !== task) throw new ConfigError(`resume: must go on with a run of ${task}, got one of ${other} in ${dir} (run \`attune ${other}\`, or choose another output_dir)`);
  return resolveConfig(task, values).config;
}

interface Folder {
  readonly checkpoint: Checkpoint | null;
  /** The configuration as config.yaml has it. */
  readonly text: string;
  readonly configHash: string;
  /** Files of a run that this one takes the place of. */
  readonly replaced: readonly string[];
  /** The summary of a run that is done. */
  readonly finished: Summary | null;
}

/** Refuse a run that output_dir holds, or find where it goes on. Writes nothing: whatever is refused later leaves the folder as it was. */
async function openFolder(task: Task, config: RunConfig, started: RunConfig | null, hooks: Hooks): Promise<Folder> {
  const dir = config.outputDir;
  await ensureWritableFolder(dir);
  const text = formatConfig(config);
  const fresh = { checkpoint: null, text, configHash: hashText(text), replaced: [], finished: null };
  const names = await readdir(dir);
  const holdsRun = names.includes("config.yaml") || names.includes("metrics.jsonl") || names.some((n) => n.startsWith("checkpoint-"));
  if (holdsRun && !config.resume && !config.overwriteOutputDir)
    throw new ConfigError(`output_dir: must not hold a run, got ${dir} (--resume goes on with it, --overwrite-output-dir replaces it)`);
  if (started) {
    const changed = changedKeys(task, started, config);
    if (changed.length) throw new ConfigError(`resume: must have these keys as the run began with, got others: ${changed.join(", ")} (see ${join(dir, "config.yaml")})`);
    await removeDeadTemporaries(dir);
    const finished = await summaryOf(join(dir, "metrics.jsonl"));
    if (finished) return { ...fresh, finished };
    const { checkpoint, skipped } = await newestCheckpoint(dir);
    for (const s of skipped) hooks.log(`${s.dir} is passed over: ${s.reason}`);
    return { ...fresh, checkpoint };
  }
  const replaced = holdsRun && config.overwriteOutputDir && !config.resume ? names.filter((n) => OF_A_RUN.test(n)) : [];
  return { ...fresh, replaced };
}

const OF_A_RUN = /^(config\.yaml|metrics\.jsonl|samples\.jsonl|report\.html|checkpoint-\d+|.*\.safetensors|config\.json)$/;

/** Take possession of output_dir, once nothing is left that could refuse the run. */
async function begin({ outputDir }: RunConfig, { replaced, text }: Folder): Promise<void> {
  for (const n of replaced) await writing(outputDir, () => rm(join(outputDir, n), { recursive: true, force: true }));
  if (replaced.length || !(await exists(join(outputDir, "config.yaml")))) await writeWhole(join(outputDir, "config.yaml"), text);
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
