// What the GPU command runs on, built where it is missing or older than its sources: a device's addon and executables, and the ops' samples.
//   node bench/gpu/prepare.mjs [--device cuda|simt]   (other flags are the command's, and pass)
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { root } from "./attune.mjs";
import { programs } from "./programs.mjs";

export function prepare(device) {
  const sh = (command, ...args) => execFileSync(command, args, { cwd: root, stdio: ["ignore", 2, 2] });
  sh(process.execPath, "scripts/install.mjs", "--device", device);
  sh("cmake", "--build", `build-${device}`, "--parallel", "--target", ...programs);
  const time = (file) => fs.statSync(path.join(root, file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (time("build-check/ops.bundle") < time("dist/index.js")) sh(process.execPath, "node_modules/vitest/vitest.mjs", "run", "test/ops/bundle.test.ts");
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) prepare(parseArgs({ options: { device: { type: "string" } }, strict: false }).values.device ?? "cuda");
