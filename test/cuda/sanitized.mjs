// attune-check on the emulator under AddressSanitizer and UndefinedBehaviorSanitizer, as sm_90 and as sm_80.
// Part of `npm run test:simt`; the build, in build-check/asan, takes minutes the first time.
import { execFileSync, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const run = (command, ...args) => execFileSync(command, args, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
run(process.execPath, "node_modules/vitest/vitest.mjs", "run", "test/ops/bundle.test.ts");
run("cmake", "-S", ".", "-B", "build-check/asan", "-DATTUNE_DEVICE=simt", "-DATTUNE_SANITIZE=ON");
run("cmake", "--build", "build-check/asan", "--target", "attune-check", "--parallel", "2");
for (const arch of ["90", "80"]) {
  const start = performance.now();
  const env = { ...process.env, ATTUNE_SIMT_ARCH: arch, ASAN_OPTIONS: "detect_leaks=0" };
  const { status, stdout, stderr } = spawnSync("build-check/asan/attune-check", ["build-check/ops.bundle"], { cwd: root, env, encoding: "utf8" });
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(`sm_${arch}: ${status === 0 ? stdout.trim().split("\n").at(-1) : `FAILED (${status})\n${stdout.slice(-2000)}${stderr.slice(-4000)}`}, ${seconds} s`);
  if (status !== 0) process.exitCode = 1;
}
