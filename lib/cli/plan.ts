// `attune plan`: what a run needs, before it starts.

import type { Command } from "./command.ts";
import { library } from "./library.ts";
import { anyTaskShape, RUN_ARGUMENT, runOf } from "./run_file.ts";
import { formatRecord } from "./tables.ts";

export const command: Command = {
  summary: "Say what memory and time a run needs, before it starts",
  examples: ["attune plan run.yaml", "attune plan run.yaml --memory_limit 8GB --json"],
  shape: anyTaskShape,
  argument: RUN_ARGUMENT,
  async run(call, io) {
    const { task, config } = await runOf(call, io);
    const { planRun } = await library.plan();
    const plan = await planRun(task, config, {
      signal: io.signal,
      onStage: (stage) => io.progress.update(stage),
      log: (message) => io.note(message),
    });
    io.progress.close();
    if (io.json) io.value(plan);
    else io.text(formatRecord(plan));
  },
};
