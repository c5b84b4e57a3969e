// attune's side: train the first steps of one epoch and print one JSON line of seconds, tokens, losses and peak memory.
//   node bench/peer/our_run.mjs FIXTURE --task dpo --dtype float32 --steps 16 --batch 4 --max-length 512 --learning-rate 1e-5
// `reference_seconds` is DPO's whole reference pass, `epoch_steps` the optimiser steps of the epoch that it serves.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { cpuInfo, peakRss } from "#lib/runtime/host.js";
import { resolveOptions } from "#lib/train/config.js";
import { Trainer } from "#lib/train/trainer.js";

const text = { type: "string" };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { task: text, dtype: text, steps: text, batch: text, "max-length": text, "learning-rate": text, "no-trees": { type: "boolean" } },
});
const [fixture] = positionals;
const { task } = values;
process.env.XDG_CACHE_HOME = mkdtempSync(join(tmpdir(), "attune-bench-")); // nothing comes from an earlier run's cache
process.on("exit", () => rmSync(process.env.XDG_CACHE_HOME, { recursive: true }));

const { config } = resolveOptions(task, {
  model: fixture,
  dataset: join(fixture, `${task}.jsonl`),
  dtype: values.dtype,
  numTrainEpochs: 1,
  batchSize: Number(values.batch),
  maxLength: Number(values["max-length"]),
  learningRate: Number(values["learning-rate"]),
  lrSchedulerType: "constant",
  shuffle: false,
  ...(task === "sft" ? { assistantOnlyLoss: true } : { beta: 0.1, promptTrees: !values["no-trees"] }),
});
const hooks = { signal: new AbortController().signal, onStage: () => {}, log: () => {} };
const trainer = await Trainer.create(task, config, hooks);
const step_seconds = [];
const losses = [];
let start = performance.now();
for await (const metrics of trainer) {
  step_seconds.push((performance.now() - start) / 1000);
  losses.push(metrics.loss);
  if (step_seconds.length === Number(values.steps)) break;
  start = performance.now();
}
const { referenceSeconds: reference_seconds, stepsPerEpoch: epoch_steps, numTokens: tokens } = trainer;
const { threads, level } = cpuInfo();
const peak_bytes = peakRss();
console.log(JSON.stringify({ step_seconds, tokens, losses, peak_bytes, threads, level, reference_seconds, epoch_steps }));
await trainer[Symbol.asyncDispose]();
