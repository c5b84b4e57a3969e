// What the machine refuses: devices, memory, folders, a full disk; and Ctrl-C. An older run in the way stays as it is.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { attune, MAIN } from "./attune.ts";
import { contents, DPO, put, refused, SFT, type Case } from "./bad_input.ts";
import { TEXTS, tinyModel, writeRows } from "./tiny_model.ts";

const is = (what: string, code: number, args: readonly string[], says: string | RegExp, more: Partial<Case> = {}): Case => ({ what, code, args, says, ...more });
const NO_CUDA = 'device: must be auto or cpu in this build, got "cuda" (it has no CUDA backend; `attune build --cuda` builds one)';
const CPU_BUILD = { env: { ATTUNE_ADDON: fileURLToPath(new URL("../../build/Release/attune.node", import.meta.url)) } };
const SCORE = ["score", "model", "--data", "texts.jsonl"];

refused("devices and memory", [
  is("a device that does not exist", 2, [...SFT, "--device", "tpu"], '--device: must be one of auto, cpu, cuda, simt, got "tpu" (did you mean cpu?)'),
  is("cuda where there is none, to train", 5, [...SFT, "--device", "cuda"], NO_CUDA, CPU_BUILD),
  is("cuda where there is none, to score", 5, [...SCORE, "--device", "cuda"], NO_CUDA, CPU_BUILD),
  is("cuda where there is none, to plan", 5, ["plan", "dpo.yaml", "--device", "cuda"], NO_CUDA, CPU_BUILD),
  is("a level that no CPU has", 5, SFT, 'ATTUNE_CPU: must be baseline, avx2, avx512 or avx512_bf16, got "avx99"', { env: { ATTUNE_CPU: "avx99" } }),
  is("an addon that is not there", 5, SFT, /^native addon: .*nosuch\.node must load, got an error: Cannot find module/, { env: { ATTUNE_ADDON: "/nosuch.node" } }),
  is("an addon of another build", 5, SFT, /^native addon: must be built for op table \d+, got \d+ \(`npm run build` builds it anew\)$/, { env: { ATTUNE_ADDON: fileURLToPath(new URL("../fixtures/other_build.cjs", import.meta.url)) } }),
  is("too little memory, for sft", 4, [...SFT, "--memory_limit", "100kB"], /^memory: the run must fit in 100 kB \(memory_limit\), got one that needs [\d.]+ MB: .* \(.*more memory is needed\)$/),
  is("too little memory, for dpo", 4, [...DPO, "--memory_limit", "100kB"], /^memory: the run must fit in 100 kB \(memory_limit\), got one that needs /),
  is("too little memory, to plan", 4, ["plan", "sft.yaml", "--memory_limit", "100kB"], /^memory: the run must fit in 100 kB \(memory_limit\), got one that needs /),
  is("an answer without end", 2, ["generate", "model", "--prompt", "a", "--max_new_tokens", "3000000000"], "--max_new_tokens: must be a whole number >= 1 and <= 1048576, got 3000000000"),
]);

const OLD = ["--output_dir", "old"];
const learns = ["--lr_scheduler_type", "constant", "--learning_rate", "1e30", "--max_grad_norm", "0"];

refused(
  "folders",
  [
    is("a file", 2, [...SFT, "--output_dir", "texts.jsonl"], "output_dir: must be a folder that can be written, got texts.jsonl: it is a file (choose another)"),
    is("a path through a file", 2, [...SFT, "--output_dir", "texts.jsonl/out"], "output_dir: must be a folder that can be written, got texts.jsonl/out: a part of the path is a file (choose another)"),
    is("a file system that takes none", 2, [...SFT, "--output_dir", "/proc/out"], "output_dir: must be a folder that can be written, got /proc/out: no folder can be made there (choose another)"),
    is("no name", 2, [...SFT, "--output_dir", ""], '--output_dir: must be a text that is not empty, got ""'),
    is("one that holds a run", 2, [...SFT, ...OLD], "output_dir: must not hold a run, got old (--resume goes on with it, --overwrite-output-dir replaces it)"),
    is("one that would be replaced, by a run that cannot start", 3, [...SFT, ...OLD, "--overwrite_output_dir", "--dataset", "nosuch.jsonl"], /^nosuch\.jsonl: must be a data file/),
    is("a run that began otherwise", 2, [...SFT, ...OLD, "--resume", "--learning_rate", "0.5"], "resume: must have these keys as the run began with, got others: learning_rate (see old/config.yaml)"),
    is("a run of the other task", 2, [...DPO, ...OLD, "--resume"], /^resume: must go on with a run of dpo, got one of sft in old /),
    is("a run whose configuration is damaged", 2, [...SFT, ...OLD, "--resume"], /^old\/config\.yaml:\d: must be YAML, got/, { plant: put("old/config.yaml", "task: [sft\n") }),
    is("a path through a file, for a new model", 2, ["init", "config.json", "--output_dir", "texts.jsonl/m"], "--output_dir: must be a folder that can be written, got texts.jsonl/m: a part of the path is a file (choose another)"),
    is("one that holds a model", 2, ["init", "config.json", "--output_dir", "model"], "--output_dir: must hold no model yet, got model (give --overwrite_output_dir to replace it)"),
    is("numbers that overflow: the last good step is kept", 6, [...SFT, ...learns], /^step 2: the .* must be finite, got NaN or infinity \(rows \d+, .*; try a smaller learning_rate\)$/, { leaves: /^out\/(config\.yaml|metrics\.jsonl|checkpoint-1\/)/ }),
  ],
  async (dir) => {
    const old = await attune([...SFT, ...OLD], { cwd: dir, env: { XDG_CACHE_HOME: join(dir, "cache") } });
    if (old.code !== 0) throw new Error(old.stderr);
  },
);

describe("a run that is under way", () => {
  let dir: string;
  let env: NodeJS.ProcessEnv;
  beforeAll(async () => {
    ({ dir, env } = await tinyModel());
    env = { ...process.env, ...env };
    await writeRows(join(dir, "texts.jsonl"), TEXTS);
    await writeRows(join(dir, "long.jsonl"), Array.from({ length: 3000 }, (_, i) => ({ text: `${i} ${"word ".repeat(30)}` })));
  }, 30_000);
  const run = (...flags: string[]) => [MAIN, "sft", "--model", "model", "--threads", "1", "--json", ...flags];

  it("keeps its last checkpoint when the disk is full (7), and goes on when it no longer is", async () => {
    const steps = (out: string) => run("--dataset", "texts.jsonl", "--output_dir", out, "--batch_size", "4", "--logging_steps", "1", "--max_steps", "12", "--save_steps", "6");
    const node = (args: string[], shell = "") => spawnSync("bash", ["-c", `${shell} exec "$@"`, "bash", process.execPath, ...args], { cwd: dir, env, encoding: "utf8" });
    const first = spawn(process.execPath, steps("part"), { cwd: dir, env, stdio: ["ignore", "pipe", "ignore"] });
    first.stdout.once("data", () => first.kill("SIGINT"));
    first.stdout.resume();
    await new Promise((resolve) => first.on("close", resolve));
    const before = contents(join(dir, "part"));
    // The model's 37 kB fit, the optimiser's 106 kB do not.
    const full = node([...steps("part"), "--resume"], "ulimit -f 64;");
    expect(full.stderr.split("\n").at(-2)).toMatch(/^attune: error: .*optimizer\.safetensors: must be writable, got an error: the file is too large for this file system$/);
    expect([full.status, full.stderr.includes("    at ")]).toEqual([7, false]);
    for (const [name, bytes] of before) if (name.startsWith("checkpoint-")) expect(contents(join(dir, "part")).get(name)?.equals(bytes), name).toBe(true);
    expect(readdirSync(join(dir, "part")).filter((name) => name.includes(".tmp-"))).toEqual([]);
    expect(node([...steps("part"), "--resume"]).status).toBe(0);
    expect(node(steps("whole")).status).toBe(0);
    const weights = (out: string) => contents(join(dir, out)).get("model.safetensors")!;
    expect(weights("part").equals(weights("whole"))).toBe(true);
  }, 60_000);

  it("ends with 7 where stdout is a full disk", () => {
    const score = spawnSync("bash", ["-c", 'exec "$@" > /dev/full', "bash", process.execPath, MAIN, "score", "model", "--data", "texts.jsonl"], { cwd: dir, env, encoding: "utf8" });
    expect(score.stderr).toMatch(/^attune: error: stdout: must be writable, got ENOSPC.*\n$/);
    expect(score.status).toBe(7);
  });

  it("ends at once at the second Ctrl-C, with 130 and without a checkpoint", async () => {
    const child = spawn(process.execPath, run("--dataset", "long.jsonl", "--output_dir", "twice", "--batch_size", "3000"), { cwd: dir, env });
    let [out, said] = ["", ""];
    child.stdout.on("data", (text) => (out += String(text)));
    child.stderr.on("data", (text) => {
      if (!said.includes("ends at once") && (said += String(text)).includes("ends at once")) child.kill("SIGINT");
    });
    const closed = new Promise((resolve) => child.on("close", resolve));
    while (!existsSync(join(dir, "twice/config.yaml"))) await sleep(20);
    child.kill("SIGINT");
    expect(await closed).toBe(130);
    expect(said).toMatch(/stopping after this step, with a checkpoint; Ctrl-C again ends at once\n$/);
    expect(out).toBe("");
    expect(readdirSync(join(dir, "twice")).filter((name) => name.startsWith("checkpoint-"))).toEqual([]);
  }, 60_000);
});
