// The conformance walk, and whole SFT and DPO steps and runs, on a build with AddressSanitizer and UndefinedBehaviorSanitizer,
// at every level that this CPU has. A kernel that touches what its instruction does not name dies. By hand: npm run test:asan
import { execFileSync, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { cpuInfo } from "#lib/runtime/host.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const library = (name) => execFileSync("g++", [`-print-file-name=${name}`], { encoding: "utf8" }).trim();

function run(what, level, args) {
  const env = {
    ...process.env,
    ATTUNE_ADDON: `${root}build-asan/Release/attune.node`,
    ATTUNE_CPU: level,
    ASAN_OPTIONS: "detect_leaks=0", // Node and V8 leave theirs to the system
    LD_PRELOAD: `${library("libasan.so")} ${library("libubsan.so")}`,
  };
  const start = performance.now();
  const { status, signal } = spawnSync(process.execPath, args, { cwd: root, env, stdio: "inherit" });
  console.log(`${level}: ${what}: ${status === 0 ? "clean" : `FAILED (${signal ?? status})`}, ${((performance.now() - start) / 1000).toFixed(0)} s`);
  if (status !== 0) process.exitCode = 1;
}

execFileSync(process.execPath, ["scripts/install.mjs", "--sanitize"], { cwd: root, stdio: "inherit" });
const vitest = ["node_modules/vitest/vitest.mjs", "run", "--testTimeout=600000", "--reporter=dot"];
const { levels } = cpuInfo();
for (const level of levels) {
  run("conformance", level, [...vitest, "test/ops/conformance.test.ts"]);
  run("one SFT and one DPO step", level, [...vitest, "test/train/whole_step.test.ts", "-t", "fp32 within"]);
}
run("SFT and DPO runs", levels.at(-1), [...vitest, "test/train/run.test.ts", "-t", "stopped after three steps"]);
