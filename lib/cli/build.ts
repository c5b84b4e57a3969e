// `attune build`: the native part, built where the package lies.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { DeviceError } from "../errors.ts";
import { parseShape } from "../train/config_parse.ts";
import { field } from "../train/config_schema.ts";
import type { Command } from "./command.ts";

const shape = {
  cuda: field(z.boolean().default(false), {
    group: "Build",
    description: "With kernels for NVIDIA GPUs; needs CUDA 13's nvcc and cmake, and takes minutes.",
  }),
};

export const command: Command = {
  summary: "Build the native part anew, for NVIDIA GPUs too",
  details: "Of the builds that a package has, the newest is used. `attune doctor` shows which.",
  examples: ["attune build --cuda", "attune build"],
  shape,
  argument: null,
  async run(call, io) {
    const { cuda } = parseShape(shape, call.flags, { spelling: "snake", label: (key) => `--${key}` });
    const script = fileURLToPath(new URL("../../scripts/install.mjs", import.meta.url));
    const child = spawn(process.execPath, [script, ...(cuda ? ["--device", "cuda"] : ["--force"])], {
      stdio: ["ignore", 2, 2],
      signal: io.signal,
    });
    const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
    if (code !== 0) throw new DeviceError("build: must end well, got an error (it stands above)");
    if (io.json) io.value({ device: cuda ? "cuda" : "cpu" });
  },
};
