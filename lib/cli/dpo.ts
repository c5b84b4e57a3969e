// `attune dpo`.

import { dpoShape } from "../train/config.ts";
import type { Command } from "./command.ts";
import { RUN_ARGUMENT } from "./run_file.ts";
import { train } from "./train.ts";

export const command: Command = {
  summary: "Align a model with pairs of a preferred and a rejected answer",
  examples: [
    "attune dpo run.yaml",
    "attune dpo --model ./base --dataset pairs.jsonl --output_dir ./runs/dpo",
    "attune dpo run.yaml --learning_rate 1e-6 --resume",
  ],
  shape: dpoShape,
  argument: RUN_ARGUMENT,
  stopsBySignal: true,
  run: (call, io) => train("dpo", call, io),
};
