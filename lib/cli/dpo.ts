// `attune dpo`.

import { dpoShape } from "../train/config.ts";
import type { Command } from "./command.ts";
import { RUN_ARGUMENT } from "./run_file.ts";
import { train } from "./train.ts";

export const command: Command = {
  summary: "Align a model with pairs of a preferred and a rejected answer",
  details:
    'Rows are JSON lines: {"prompt": ..., "chosen": ..., "rejected": ...}, each a text or a list of messages; the prompt may be left out where both answers begin with it.',
  examples: [
    "attune dpo run.yaml",
    "attune dpo --model ./base --dataset pairs.jsonl --output_dir ./runs/dpo",
    "attune dpo run.yaml --resume",
  ],
  shape: dpoShape,
  argument: RUN_ARGUMENT,
  stopsBySignal: true,
  run: (call, io) => train("dpo", call, io),
};
