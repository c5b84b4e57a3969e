// Saving: the model as a Hugging Face folder, and checkpoints that a run resumes from bit for bit.
import { ConfigError } from "../errors.ts";
import { weightReads } from "../io/model_folder.ts";
import { version } from "../version.ts";
import { bufferReads, createBufferFile, type BufferSpec } from "../io/buffer_file.ts";
import { saveCheckpoint, type CheckpointState } from "../io/checkpoint.ts";
import { writeInto } from "../io/atomic_folder.ts";
import { saveModelFiles, staleModelFile } from "../io/save_model.ts";
import { openModel } from "../engine/background.ts";
import { saveProducts } from "./products.ts";
import type { Trainer } from "./trainer.ts";

/** What the optimiser needs to go on: moments and the exact parameters (masters, where the weights are rounded copies). */
function stateBuffers(t: Trainer): BufferSpec[] {
  const exact = t.loaded.spec.dtype === "float32" ? "weights" : "optimizer/master";
  return [exact, "optimizer/m", "optimizer/v"].flatMap((cls) =>
    t.loaded.parameters.map((p) => ({ name: `${cls}/${p.name}`, shape: p.shape, dtype: "float32" as const })),
  );
}

/** Write config, tokenizer and weights into an existing folder. */
export async function writeModel(t: Trainer, dir: string): Promise<void> {
  const { config, loaded, data } = t;
  const writes = await saveModelFiles(dir, {
    base: loaded.model,
    parameters: loaded.parameters,
    dtype: config.saveDtype === "auto" ? loaded.model.checkpointDtype : config.saveDtype,
    stopTokenIds: data.report.stop ? [data.report.stop.id] : [],
    card: { task: t.task, baseModel: config.model, datasets: typeof config.dataset === "string" ? [config.dataset] : [], version: version() },
    bufferPrefix: loaded.spec.dtype === "float32" ? "weights/" : "optimizer/master/",
  });
  await loaded.session.writeFiles(writes);
}

/** The finished model at the root of the run folder. */
export async function saveFinal(t: Trainer, outputDir: string): Promise<void> {
  await writeInto(outputDir, (dir) => writeModel(t, dir), { last: "config.json", stale: staleModelFile });
}

/** output_dir/checkpoint-<step>: a loadable model, the exact state beside it. */
export async function saveRunCheckpoint(t: Trainer, outputDir: string, configHash: string, extra: CheckpointState["extra"]): Promise<void> {
  const used = (t.step % t.stepsPerEpoch) * t.config.batchSize;
  const state: CheckpointState = {
    step: t.step,
    epoch: t.epoch,
    cursor: { epoch: Math.floor(t.step / t.stepsPerEpoch), example: used },
    configHash,
    seeds: { order: t.config.seed },
    extra: { ...extra, numTokens: t.numTokens, evaluated: t.evaluated, rows: t.data.hash },
  };
  await saveCheckpoint(outputDir, state, async (dir) => {
    await writeModel(t, dir);
    await t.loaded.session.writeFiles(await createBufferFile(dir, "optimizer", stateBuffers(t)));
    await saveProducts(t.loaded.session, dir);
  });
}

/** Put a checkpoint's state back into a fresh trainer. Throws ConfigError where the rows are not those that it was made with. */
export async function restore(t: Trainer, dir: string, state: CheckpointState): Promise<void> {
  const { rows } = state.extra;
  if (rows !== undefined && rows !== t.data.hash)
    throw new ConfigError(`resume: must have the rows that the run began with, got others (their tokens differ from those of ${dir})`);
  const { session, spec } = t.loaded;
  const reads = await bufferReads(dir, "optimizer", stateBuffers(t));
  await session.readFiles(reads);
  if (spec.dtype !== "float32") {
    // The weights are their masters, rounded as the optimiser rounds them.
    const rounded = reads.filter((r) => r.buffer.startsWith("optimizer/master/")).map((r) => ({ ...r, buffer: r.buffer.replace("optimizer/master/", "weights/") }));
    await session.readFiles(rounded);
  }
  t.step = state.step;
  t.numTokens = Number(state.extra["numTokens"] ?? 0);
  t.evaluated = Number(state.extra["evaluated"] ?? 0);
}

/** The model that a finished run saved in `dir`, and no step left to do. */
export async function restoreFinished(t: Trainer, dir: string, summary: Readonly<Record<string, number>>): Promise<void> {
  const { session, spec, parameters } = t.loaded;
  const saved = await openModel(dir);
  await session.readFiles(weightReads(saved, parameters));
  if (spec.dtype !== "float32") await session.readFiles(weightReads(saved, parameters, "optimizer/master/"));
  t.step = t.evaluated = t.totalSteps;
  t.numTokens = summary["num_tokens"] ?? 0;
}
