// `attune init`: a model with random weights.

import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { DataError } from "../errors.ts";
import { parseShape } from "../train/config_parse.ts";
import { refuse } from "./flags.ts";
import type { Command } from "./command.ts";
import { initShape } from "./shapes.ts";
import { formatNumber, printable } from "./text.ts";
import { version } from "../version.ts";

export const command: Command = {
  summary: "Make a model with random weights from a config and a tokenizer",
  examples: ["attune init --config config.json --tokenizer ./tokenizer --output_dir ./base"],
  shape: initShape,
  argument: { name: "[config.json]", description: "The same as --config." },
  async run(call, io) {
    const flags = call.argument === undefined ? call.flags : { config: call.argument, ...call.flags };
    const options = parseShape(initShape, flags, { spelling: "snake", label: (key) => `--${key}` });
    const isFolder = existsSync(options.config) && statSync(options.config).isDirectory();
    const configPath = isFolder ? join(options.config, "config.json") : options.config;
    const beside = dirname(configPath);
    const tokenizer = options.tokenizer ?? (existsSync(join(beside, "tokenizer.json")) ? beside : null);
    if (existsSync(join(options.output_dir, "config.json")) && !options.overwrite_output_dir) {
      refuse([
        `--output_dir: must hold no model yet, got ${options.output_dir} (give --overwrite_output_dir to replace it)`,
      ]);
    }
    if (!existsSync(configPath)) {
      throw new DataError(
        `${configPath}: must be a model's config.json, got no such file (name another with --config)`,
      );
    }
    const [{ initModel }, { ensureWritableFolder }] = await Promise.all([
      import("../io/init.ts"),
      import("../io/write.ts"),
    ]);
    await ensureWritableFolder(options.output_dir, "--output_dir");
    const parameters = await initModel({
      configPath,
      tokenizerDir: tokenizer,
      outputDir: options.output_dir,
      seed: options.seed,
      ...(options.dtype === null ? {} : { dtype: options.dtype }),
      version: version(),
      signal: io.signal,
      onProgress: (done, total) => io.progress.update({ name: "init", done, total, unit: "weights" }),
    });
    io.progress.close();
    if (io.json) io.value({ output_dir: options.output_dir, parameters, seed: options.seed });
    else io.text(`${printable(options.output_dir)}: ${formatNumber(parameters)} parameters`);
  },
};
