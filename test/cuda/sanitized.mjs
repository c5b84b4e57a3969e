// attune-check on the emulator under sanitizers, as sm_90 and as sm_80: all cases under AddressSanitizer and UndefinedBehaviorSanitizer, the smallest
// of each op and type under ThreadSanitizer, which hears of every fiber. Part of `npm run test:simt` and of .ci/run.
import { execFileSync, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const run = (command, ...args) => execFileSync(command, args, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
if (spawnSync("cmake", ["--version"]).status !== 0 || process.arch !== "x64") {
  console.log("test/cuda/sanitized: skipped, it needs cmake and x64");
  process.exit(0);
}
run(process.execPath, "node_modules/vitest/vitest.mjs", "run", "test/ops/bundle.test.ts");
for (const [name, sanitize, flags] of [
  ["asan", "ON", []],
  ["tsan", "thread", ["--smallest"]],
]) {
  run("cmake", "-S", ".", "-B", `build-check/${name}`, "-DATTUNE_DEVICE=simt", `-DATTUNE_SANITIZE=${sanitize}`);
  run("cmake", "--build", `build-check/${name}`, "--target", "attune-check", "--parallel", "2");
  for (const arch of ["90", "80"]) {
    const start = performance.now();
    const env = { ...process.env, ATTUNE_SIMT_ARCH: arch, ASAN_OPTIONS: "detect_leaks=0", TSAN_OPTIONS: "exitcode=66" };
    const { status, stdout, stderr } = spawnSync(`build-check/${name}/attune-check`, ["build-check/ops.bundle", ...flags], { cwd: root, env, encoding: "utf8", maxBuffer: 1 << 28 });
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    console.log(`${name}, sm_${arch}: ${status === 0 ? stdout.trim().split("\n").at(-1) : `FAILED (${status})\n${stdout.slice(-2000)}${stderr.slice(-4000)}`}, ${seconds} s`);
    if (status !== 0) process.exitCode = 1;
  }
}
