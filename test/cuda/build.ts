// The build on the emulator, build-simt: the addon with the device `simt`, and attune-check. Made once, about 100 seconds; then only what changed.
import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import { root } from "../runtime/tools.ts";

export const addon = join(root, "build-simt/Release/attune.node");
export const check = join(root, "build-simt/attune-check");
export const large = join(root, "build-simt/attune-large");
export const standInCheck = join(root, "build-simt/attune-stand-in");
export const standIn = join(root, "build-simt/Release/cublaslt_stand_in.so");

const runs = (command: string): boolean => spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;

/** Why the emulator cannot be built here, or null. */
export const unbuildable: string | null =
  process.arch !== "x64" || process.platform !== "linux"
    ? "the emulator is for Linux on x64"
    : ["cmake", "flock"].filter((command) => !runs(command)).map((command) => `${command} was not found`)[0] ?? null;

export function build(): void {
  // Files of tests run side by side: one builds, the others wait, and then find nothing to do.
  const run = (...command: string[]): unknown => execFileSync("flock", ["CMakeLists.txt", ...command], { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
  run(process.execPath, "scripts/install.mjs", "--device", "simt");
  run("cmake", "--build", "build-simt", "--target", "attune-check", "attune-large", "attune-stand-in", "cublaslt_stand_in", "--parallel", "2");
}
