// `attune profile`: every kernel of a run's step beside its limit.

import { z } from "zod";
import { parseShape } from "../train/config_parse.ts";
import { field } from "../train/config_schema.ts";
import type { Command } from "./command.ts";
import { library } from "./library.ts";
import { anyTaskShape, RUN_ARGUMENT, runOf } from "./run_file.ts";
import { formatRecord } from "./tables.ts";

/** Shapes in the table for people; --json has all. */
const SHOWN = 24;

const own = {
  steps: field(z.int().min(1).default(5), {
    group: "Profile",
    description: "Optimiser steps to measure, after one that warms up.",
  }),
  graph: field(z.boolean().default(true), {
    group: "Profile",
    description: "On cuda; false launches every step call by call, each in an NVTX range of its op and name, for Nsight Systems.",
  }),
};

export const command: Command = {
  summary: "Measure every kernel of a run's step beside the machine's limit",
  examples: ["attune profile run.yaml", "attune profile run.yaml --steps 3 --json"],
  shape: { ...own, ...anyTaskShape },
  argument: RUN_ARGUMENT,
  async run(call, io) {
    const { steps, graph, ...flags } = call.flags;
    const given = Object.fromEntries(Object.entries({ steps, graph }).filter(([, v]) => v !== undefined));
    const options = parseShape(own, given, {
      spelling: "snake",
      label: (key) => `--${key}`,
    });
    const { task, config } = await runOf({ ...call, flags }, io);
    const { profileRun } = await library.profile();
    const profile = await profileRun(task, config, options, {
      signal: io.signal,
      onStage: (stage) => io.progress.update(stage),
      log: (message) => io.note(message),
    });
    io.progress.close();
    if (io.json) io.value(profile);
    else io.text(formatRecord({ ...profile, shapes: profile.shapes.slice(0, SHOWN) }));
  },
};
