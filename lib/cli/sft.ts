// `attune sft`.

import { sftShape } from "../train/config.ts";
import type { Command } from "./command.ts";
import { RUN_ARGUMENT } from "./run_file.ts";
import { train } from "./train.ts";

export const command: Command = {
  summary: "Fine-tune a model on texts, prompt-completion pairs or conversations",
  examples: [
    "attune sft run.yaml",
    "attune sft --model ./base --dataset answers.jsonl --output_dir ./runs/sft",
    "attune sft run.yaml --learning_rate 1e-6 --resume",
  ],
  shape: sftShape,
  argument: RUN_ARGUMENT,
  stopsBySignal: true,
  run: (call, io) => train("sft", call, io),
};
