// `attune sft` and `attune dpo`: a run from a file and flags, metrics on stdout, progress and messages on stderr.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Task } from "../train/config.ts";
import type { Call, Io } from "./command.ts";
import { library } from "./library.ts";
import { runOf } from "./run_file.ts";
import { formatRecord } from "./tables.ts";
import { formatNumber, printable } from "./text.ts";

export async function train(task: Task, call: Call, io: Io): Promise<void> {
  const { config } = await runOf(call, io, task);
  const { runTraining } = await library.run();
  const summary = await runTraining(task, config, {
    signal: io.signal,
    onStage: (stage) => io.progress.update(stage),
    log: (message) => io.note(message),
    onMetrics: (metrics) => (io.json ? io.value(metrics) : io.text(metricsLine(metrics))),
  });
  io.progress.close();
  if (io.json) return io.value(summary);
  io.text(formatRecord(summary));
  if (io.signal.aborted) return io.text(`stopped; go on with --resume`);
  const dir = printable(config.outputDir);
  const report = join(config.outputDir, "report.html");
  if (existsSync(report)) io.text(`report  ${printable(report)}`);
  io.text(`model   ${dir}\ntry it  attune chat ${dir}`);
}

const FIRST = [
  "step",
  "epoch",
  "loss",
  "eval_loss",
  "rewards/accuracies",
  "rewards/margins",
  "eval_rewards/accuracies",
  "eval_mean_token_accuracy",
  "grad_norm",
  "learning_rate",
  "tokens_per_second",
];

/** The figures of one line of metrics that people watch, in one order. */
function metricsLine(metrics: Readonly<Record<string, unknown>>): string {
  const parts = FIRST.flatMap((key) => {
    const value = metrics[key];
    return typeof value === "number" ? [`${key} ${formatNumber(value)}`] : [];
  });
  return parts.join("  ");
}
