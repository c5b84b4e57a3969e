// native/cuda on the emulator: every op's cases, whole SFT and DPO runs beside `cpu`, and what happens when the device fails
// (products by cuBLASLt: cublaslt.test.ts). `npm run test:simt` takes 10 steps instead of 2.
import { execFile } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { attune, type Ran } from "../cli/attune.ts";
import { root } from "../runtime/tools.ts";
import { build, check, large, unbuildable } from "./build.ts";
import { alike, clean, command, dir, done, env, prepare, run, runFile, steps, type Done, type Way } from "./runs.ts";

afterAll(clean);
if (unbuildable !== null) console.warn(`test/cuda: skipped, ${unbuildable}`);

/** Kernels whose dynamic shared memory is more than any figure in KiB in the header of the file that launches them. */
function overBudget(stderr: string): string[] {
  const most = new Map<string, number>();
  for (const [, name, bytes] of stderr.matchAll(/^simt: kernel (\w+) (\d+)$/gm)) most.set(name!, Math.max(most.get(name!) ?? 0, Number(bytes)));
  expect(most.size).toBeGreaterThan(40);
  const folder = join(root, "native/cuda");
  const texts = readdirSync(folder).filter((f) => f.endsWith(".cu")).map((f) => readFileSync(join(folder, f), "utf8"));
  const budget = (name: string): number => {
    const header = /^(?:\/\/.*\n)*/.exec(texts.find((t) => t.includes(`"${name}"`)) ?? "")![0];
    return Math.max(0, ...[...header.matchAll(/(\d+) KiB/g)].map((m) => Number(m[1])));
  };
  return [...most].filter(([name, bytes]) => bytes > 1024 * budget(name)).map(([name, bytes]) => `${name}: ${(bytes / 1024).toFixed(1)} KiB, its header says ${budget(name)}`);
}

describe.skipIf(unbuildable !== null)("native/cuda on the emulator", () => {
  beforeAll(async () => {
    build();
    await prepare();
  }, 600_000);

  test.each([
    ["90", "early"],
    ["90", "late"],
    ["80", "early"],
    ["80", "late"],
  ])("every op gives what float64 gives, as sm_%s with %s copies", async (arch, timing) => {
    const { stdout, stderr } = await promisify(execFile)(check, [join(dir, "ops.bundle")], {
      env: { ...process.env, ATTUNE_SIMT_ARCH: arch, ATTUNE_SIMT_TIMING: timing, ATTUNE_SIMT_KERNELS: "1" },
      maxBuffer: 1 << 28,
    });
    expect(stdout).toMatch(/[1-9]\d* cases passed, 0 failed/);
    expect(overBudget(stderr)).toEqual([]);
  });

  // As sm_80 attention has kernels of its own; the other ops have not.
  test.each([
    ["90", [], 8],
    ["80", ["0", "attention"], 1],
  ] as const)("tensors of more than 2^31 elements and 4 GiB, of which the first and last blocks alone are computed: their last rows are right, as sm_%s", async (arch, words, cases) => {
    const sparse = { ATTUNE_SIMT_ARCH: arch, ATTUNE_SIMT_SPARSE: "64", ATTUNE_SIMT_SMS: String(2 ** 22), ATTUNE_SIMT_MEMORY: String(2 ** 40), ATTUNE_CUBLASLT: "off" };
    const { stdout } = await promisify(execFile)(large, words, { env: { ...process.env, ...sparse } });
    expect(stdout).toMatch(new RegExp(`^${cases} cases passed, 0 failed$`, "m"));
    expect(stdout).not.toContain("skip");
  }, 300_000);

  describe.each([
    ["sft", 64, "float32", 1e-4],
    ["dpo", 128, "float32", 1e-4],
    ["sft", 128, "bfloat16", 1e-2],
    ["dpo", 64, "bfloat16", 1e-2],
  ] as const)("%s with heads of %i in %s", (task, headSize, dtype, tolerance) => {
    const name = `${task}-${dtype}`;
    test("is what cpu gives, and twice the same, from a graph as from a list", async () => {
      const way: Way = { task, headSize, dtype };
      const cpu = await done(`${name}-cpu`, { ...way, device: "cpu" });
      const graph = await done(`${name}-graph`, way);
      const list = await done(`${name}-list`, { ...way, env: { ATTUNE_CUDA_BLOCKING: "1" } });
      expect(list.sha).toBe(graph.sha);
      const older = await done(`${name}-80`, { ...way, env: { ATTUNE_SIMT_ARCH: "80" } });
      expect(cpu.metrics.length).toBe(steps);
      for (const simt of [graph, older]) alike(cpu, simt, tolerance);
      const attentions = (ran: Done): string[] => [...new Set(ran.kernels.flatMap((k) => /^attention_(?:forward|dq|dkdv).*_(\w+)$/.exec(k)?.[1] ?? []))];
      expect(attentions(graph)).toEqual([dtype === "float32" ? "plain" : "wgmma"]);
      expect(attentions(older)).toEqual([dtype === "float32" ? "plain" : "mma"]);
      const ran = [["as sm_90:", ...graph.kernels], ["as sm_80:", ...older.kernels]].map((k) => `${k.join("\n  ")}\n`);
      await expect(ran.join("")).toMatchFileSnapshot(`snapshots/${name}_kernels.txt`);
    }, 900_000);
  });

  test("those runs accumulate exactly 2 micro-batches, and DPO's prompts are shared", async () => {
    const micros = async (way: Way): Promise<number> => {
      const { ops } = await command<{ ops: readonly { readonly op: string; readonly calls: number }[] }>("profile", way, "--steps", "1", "--no-graph");
      return ops.find((r) => r.op === "rope_table")!.calls; // once a micro-batch
    };
    expect(await micros({ task: "sft" })).toBe(2);
    expect(await micros({ task: "dpo" })).toBe(2);
    expect(await micros({ task: "dpo", prompt_trees: false })).toBe(3);
  }, 120_000);

  test("bench --once launches an op's kernel once: to refuse a second launch changes nothing, to refuse the first fails", async () => {
    const once = (n: number): Promise<number> =>
      promisify(execFile)(process.execPath, [join(root, "bench/op.mjs"), "swiglu", "--once", "--device", "simt", "--tokens", "8"], { env: { ...env, ATTUNE_SIMT_FAIL: `launch:${n}` } }).then(
        () => 0,
        (error: { code: number }) => error.code,
      );
    expect(await once(2)).toBe(0);
    expect(await once(1)).not.toBe(0);
  });

  test("profile --no-graph names each call to a profiler; without it nothing is named", async () => {
    const ranges = async (...flags: string[]): Promise<string[]> => {
      const { code, stderr } = await attune(["profile", runFile("ranges", { tokens_per_batch: 400 }), "--steps", "1", ...flags], { env: { ...env, ATTUNE_SIMT_RANGES: "1" } });
      expect(code, stderr).toBe(0);
      return stderr.split("\n").filter((l) => l.startsWith("simt: range "));
    };
    expect(await ranges()).toEqual([]);
    const named = await ranges("--no-graph");
    expect(named).toContain("simt: range attention layers.1/attention");
    expect(named.filter((l) => l.startsWith("simt: range rope_table"))).toHaveLength(2); // one micro-batch of each of two steps
  }, 120_000);

  test("the device's memory is a run's limit: plan says so, and what does not fit is refused before it begins", async () => {
    const small = { tokens_per_batch: 8192, env: { ATTUNE_SIMT_MEMORY: String(2 ** 24) } };
    const large = await command<Record<string, number>>("plan", { memory_limit: "1TiB" });
    expect(large).toMatchObject({ limit_bytes: 16 * 2 ** 30, fits: true, packed_weights_bytes: 0 });
    const refused = "memory: the run must fit in 16.8 MB (the memory of device simt), got one that needs ";
    const plan = await attune(["plan", runFile("small", small), "--json"], { env: { ...env, ...small.env } });
    expect([plan.code, plan.stderr]).toEqual([4, expect.stringContaining(refused)]);
    expect(JSON.parse(plan.stdout)).toMatchObject({ limit_bytes: 2 ** 24, fits: false });
    const { code, stderr } = await run("small", small);
    expect([code, stderr]).toEqual([4, expect.stringContaining(refused)]);
    const given = await run("given", { memory_limit: "1MiB" });
    expect(given.stderr).toContain("the run must fit in 1.05 MB (memory_limit)");
    const peak = (await done("planned", {})).metrics.at(-1)!["peak_bytes"]!;
    expect(large["total_bytes"]! - peak).toBeLessThan(2); // the empty scratch of no threads is counted as a byte
  });

  describe("a device that fails", () => {
    const failing = (out: string, fail: string, more: Way = {}): Promise<Ran> =>
      run(out, { max_steps: 4, save_steps: 1, ...more, env: { ATTUNE_SIMT_FAIL: fail, ...more.env } });

    test.each([1, 2, 9, 14])("out of memory at allocation %i: exit 4, and how much is free", async (n) => {
      const { code, stderr } = await failing(`memory-${n}`, `malloc:${n}`);
      expect(code).toBe(4);
      expect(stderr).toMatch(/the simt device has no room for \d+ bytes; memory: simt says cudaErrorMemoryAllocation, out of memory; \d+ of its \d+ MiB are free/);
    });

    test("a launch that is refused, in a list and in a capture: exit 5, with op, instruction, kernel and CUDA's words", async () => {
      for (const n of [7, 130, 180]) {
        const { code, stderr } = await failing(`launch-${n}`, `launch:${n}`);
        expect(code, stderr).toBe(5);
        expect(stderr).not.toContain("lost");
        expect(stderr).toMatch(/attune: error: \w+ \([\w./]+\): \w+: cudaErrorLaunchOutOfResources, too many resources requested for launch/);
      }
    });

    test("a device lost in mid-run: exit 5, no hang, the last checkpoint is whole and goes on to the same bits", async () => {
      const whole = await done("whole", { max_steps: 4, save_steps: 1 });
      const { code, stderr } = await failing("lost", "lost:600");
      expect(code).toBe(5);
      expect(stderr).toMatch(/cudaErrorLaunchFailure, unspecified launch failure; the device is lost to this process \(ATTUNE_CUDA_BLOCKING=1 names the kernel\)/);
      expect(existsSync(join(dir, "lost/model.safetensors"))).toBe(false);
      const resumed = await done("lost", { max_steps: 4, save_steps: 1, resume: true });
      expect(resumed.metrics.length).toBe(4);
      expect(resumed.sha).toBe(whole.sha);
    });

    test("a session whose device was lost says so at every later call, and closes", async () => {
      const { stdout } = await promisify(execFile)(process.execPath, [join(root, "test/cuda/lost_child.mjs")], { env: { ...env, ATTUNE_SIMT_FAIL: "lost:2" } });
      const [first, lost, ...later] = JSON.parse(stdout) as string[];
      expect([first, later.pop()]).toEqual(["good", "good"]);
      expect(lost).toMatch(/^DeviceError: run: simt says cudaErrorLaunchFailure/);
      expect(later.length).toBe(3);
      for (const said of later) expect(said).toMatch(/^DeviceError: session: its device was lost and what it held is gone; start a new process/);
    });

    test("ATTUNE_CUDA_BLOCKING=1 names the kernel that lost it", async () => {
      const { code, stderr } = await failing("named", "lost:7", { env: { ATTUNE_CUDA_BLOCKING: "1" } });
      expect(code).toBe(5);
      expect(stderr).toMatch(/attune: error: \w+ \([\w./]+\): \w+: cudaErrorLaunchFailure, .*; the device is lost to this process/);
    });
  });
});
