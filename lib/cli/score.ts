// `attune score`: the log-probability of each token of each row.

import { parseShape } from "../train/config_parse.ts";
import type { Command } from "./command.ts";
import { library } from "./library.ts";
import { scoreShape } from "./shapes.ts";

export const command: Command = {
  summary: "Print the log-probability that a model gives to each token of each row",
  details:
    'One JSON line a row, in the file\'s order: {"logps": [...], "logp": sum}. Of {"prompt", "completion"} rows only the completion is scored.',
  examples: ["attune score --model ./model --data rows.jsonl"],
  shape: scoreShape,
  argument: { name: "[model]", description: "The same as --model." },
  async run(call, io) {
    const flags = call.argument === undefined ? call.flags : { model: call.argument, ...call.flags };
    const options = parseShape(scoreShape, flags, { spelling: "snake", label: (key) => `--${key}` });
    const { scoreRows } = await library.score();
    const rows = scoreRows(
      {
        model: options.model,
        data: options.data,
        skipInvalid: options.skip_invalid,
        tokensPerBatch: options.tokens_per_batch,
        device: options.device,
        dtype: options.dtype ?? "float32",
        threads: options.threads,
      },
      {
        signal: io.signal,
        onStage: (stage) => io.progress.update(stage),
      },
    );
    for await (const { logps, logp } of rows) io.value({ logps: Array.from(logps), logp });
  },
};
