// `attune sft`.

import { sftShape } from "../train/config.ts";
import type { Command } from "./command.ts";
import { RUN_ARGUMENT } from "./run_file.ts";
import { train } from "./train.ts";

export const command: Command = {
  summary: "Fine-tune a model on texts, prompt-completion pairs or conversations",
  details:
    'Rows are JSON lines: {"text": ...}, {"prompt": ..., "completion": ...} or {"messages": [{"role": "user", "content": ...}, ...]}.',
  examples: [
    "attune sft run.yaml",
    "attune sft --model ./base --dataset answers.jsonl --output_dir ./runs/sft",
    "attune sft run.yaml --resume",
  ],
  shape: sftShape,
  argument: RUN_ARGUMENT,
  stopsBySignal: true,
  run: (call, io) => train("sft", call, io),
};
