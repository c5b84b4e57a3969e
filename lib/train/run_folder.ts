// The folder of a run: whose it is, where a run in it goes on, and what it holds when one is done.
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { today } from "../data/dataset.ts";
import { ConfigError } from "../errors.ts";
import { removeDeadTemporaries, writeWhole } from "../io/atomic_folder.ts";
import { newestCheckpoint, type Checkpoint } from "../io/checkpoint.ts";
import { hashText } from "../io/hash.ts";
import { ensureWritableFolder, writing } from "../io/write.ts";
import { defaultDtype } from "../runtime/host.ts";
import { resolveConfig, type RunConfig, type Task } from "./config.ts";
import { readRunFile } from "./config_file.ts";
import { changedKeys, formatConfig } from "./config_record.ts";
import { writeReport } from "./report.ts";

/** The last line of a finished run's metrics.jsonl, under Hugging Face's names. */
export type Summary = Readonly<Record<string, number>>;

export interface RunFolder {
  /** The configuration with what defaults depend on the machine and the day written out. */
  readonly config: RunConfig;
  readonly checkpoint: Checkpoint | null;
  /** The configuration as config.yaml has it. */
  readonly text: string;
  readonly configHash: string;
  /** Files of a run that this one takes the place of. */
  readonly replaced: readonly string[];
  /** The summary of a run that is done. */
  readonly finished: Summary | null;
}

/** Refuse a run that output_dir holds, or find where it goes on. Writes no run: whatever is refused later leaves the folder as it was. */
export async function openRunFolder(task: Task, given: RunConfig, log: (message: string) => void): Promise<RunFolder> {
  const dir = given.outputDir;
  const started = given.resume ? await startedRun(task, dir) : null;
  const config = settled(given, started);
  await ensureWritableFolder(dir);
  const text = formatConfig(config);
  const fresh = { config, checkpoint: null, text, configHash: hashText(text), replaced: [], finished: null };
  const names = await readdir(dir);
  const holdsRun = names.includes("config.yaml") || names.includes("metrics.jsonl") || names.some((n) => n.startsWith("checkpoint-"));
  if (holdsRun && !config.resume && !config.overwriteOutputDir)
    throw new ConfigError(`output_dir: must not hold a run, got ${dir} (--resume goes on with it, --overwrite-output-dir replaces it)`);
  if (started) {
    const changed = changedKeys(task, started, config);
    if (changed.length) throw new ConfigError(`resume: must have these keys as the run began with, got others: ${changed.join(", ")} (see ${join(dir, "config.yaml")})`);
    await removeDeadTemporaries(dir);
    const finished = await summaryOf(join(dir, "metrics.jsonl"));
    if (finished) {
      if (!(await exists(join(dir, "report.html")))) await writeReport(dir); // killed just before it
      log(`${dir} holds a finished run: nothing to do`);
      return { ...fresh, finished };
    }
    const { checkpoint, skipped } = await newestCheckpoint(dir);
    for (const s of skipped) log(`${s.dir} is passed over: ${s.reason}`);
    return { ...fresh, checkpoint };
  }
  const replaced = holdsRun && config.overwriteOutputDir && !config.resume ? names.filter((n) => OF_A_RUN.test(n)) : [];
  return { ...fresh, replaced };
}

const OF_A_RUN = /^(config\.yaml|metrics\.jsonl|samples\.jsonl|report\.html|checkpoint-\d+|.*\.safetensors|config\.json)$/;

/** Take possession of output_dir, once nothing is left that could refuse the run. */
export async function takeRunFolder({ config: { outputDir }, replaced, text }: RunFolder): Promise<void> {
  for (const n of replaced) await writing(outputDir, () => rm(join(outputDir, n), { recursive: true, force: true }));
  if (replaced.length || !(await exists(join(outputDir, "config.yaml")))) await writeWhole(join(outputDir, "config.yaml"), text);
}

/** A resumed run keeps its day. */
function settled(config: RunConfig, started: RunConfig | null): RunConfig {
  const chatTemplateDate = config.chatTemplateDate ?? started?.chatTemplateDate ?? today();
  return { ...config, dtype: config.dtype ?? defaultDtype(config.device), chatTemplateDate } as RunConfig;
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
