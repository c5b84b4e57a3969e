// Commands that read a run file: the file, flags over it, the task, and the checked configuration.

import { z } from "zod";
import { DataError } from "../errors.ts";
import { closest } from "../train/config_hints.ts";
import { show } from "../train/config_parse.ts";
import { dpoShape, resolveConfig, sftShape } from "../train/config.ts";
import type { RunConfig, Task } from "../train/config.ts";
import { field, metaOf } from "../train/config_schema.ts";
import type { Shape } from "../train/config_schema.ts";
import { mergeFlags, readRunFile } from "../train/config_file.ts";
import { refuse } from "./flags.ts";
import type { Call, Io } from "./command.ts";

export const RUN_ARGUMENT = {
  name: "[run.yaml]",
  description:
    "Keys and values as listed below. A flag takes the place of the file's value; without a file, flags are enough.",
};

/** The keys of both tasks: what plan, inspect and profile take. */
export const anyTaskShape: Shape = {
  ...dpoShape,
  ...sftShape,
  task: field(z.enum(["sft", "dpo"]).optional(), {
    ...metaOf(sftShape.task),
    defaultText: "dpo where the rows have `chosen`, else sft",
  }),
  learning_rate: field(z.number().min(0).optional(), {
    ...metaOf(sftShape.learning_rate),
    defaultText: "2e-5 for sft, 1e-6 for dpo",
  }),
};

/**
 * The run that a command line means. Without `task` it is the file's, else told by the first row.
 * @throws ConfigError; DataError where the rows decide and cannot be read.
 */
export async function runOf(call: Call, io: Io, task?: Task): Promise<{ task: Task; config: RunConfig }> {
  const file = call.argument === undefined ? null : await readRunFile(call.argument);
  const { raw, label } = mergeFlags(file, call.flags);
  const given = raw["task"];
  if (given !== undefined && given !== "sft" && given !== "dpo") {
    const meant = typeof given === "string" ? closest(given, ["sft", "dpo"]) : undefined;
    const mend = meant === undefined ? "" : ` (did you mean ${meant}?)`;
    refuse([`${label("task")}: must be one of sft, dpo, got ${show(given)}${mend}`]);
  }
  const named = given as Task | undefined;
  if (task && named && named !== task) {
    refuse([`${label("task")}: must be ${task} for \`attune ${task}\`, got ${named} (run \`attune ${named}\`)`]);
  }
  const chosen = task ?? named ?? (await taskOfRows(raw["dataset"]));
  const { config, notices } = resolveConfig(chosen, raw, { label });
  for (const notice of notices) io.note(`attune: note: ${notice}`);
  return { task: chosen, config };
}

/** dpo where the first row has "chosen", else sft. A row that is no JSON is left to the command, which names it. */
async function taskOfRows(dataset: unknown): Promise<Task> {
  if (typeof dataset !== "string" || dataset === "") return "sft";
  const { readRows } = await import("../data/rows.ts");
  try {
    for await (const row of readRows(dataset)) return row.value.has("chosen") ? "dpo" : "sft";
  } catch (error) {
    const code = error instanceof DataError ? (error.cause as NodeJS.ErrnoException | undefined)?.code : undefined;
    if (!(error instanceof DataError) || typeof code === "string") throw error;
  }
  return "sft";
}
