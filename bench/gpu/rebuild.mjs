// The addon and the executables of a pack built anew by what the box has, where those in the pack do not load (an older libc, say):
//   node bench/gpu/rebuild.mjs cuda|simt      needs cmake, g++ and for cuda nvcc; minutes
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./attune.mjs";
import { programs } from "./programs.mjs";

/** Null where this node loads the addon, else why not. */
export function refusal(addon) {
  const r = spawnSync(process.execPath, ["-e", "process.dlopen({ exports: {} }, process.argv[1])", addon], { encoding: "utf8" });
  return r.status === 0 ? null : (r.stderr.split("\n").find((l) => l.includes("Error:")) ?? `signal ${r.signal}`);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const device = process.argv[2];
  const at = path.join(root, `build-${device}`);
  for (const f of ["Release/attune.node", ...programs]) fs.rmSync(path.join(at, f), { force: true });
  const env = { ...process.env, PATH: `${path.dirname(process.execPath)}:${process.env.PATH}:/usr/local/cuda/bin` };
  const cmake = (...args) => execFileSync("cmake", args, { cwd: root, env, stdio: ["ignore", 2, 2] });
  cmake("-S", ".", "-B", at, `-DATTUNE_DEVICE=${device}`, `-DCMAKE_JS_INC=${path.join(root, "include/node")}`);
  cmake("--build", at, "--parallel", String(os.availableParallelism()), "--target", "attune", ...programs);
  const still = refusal(path.join(at, "Release/attune.node"));
  if (still) throw new Error(still);
  console.log("the addon loads");
}
