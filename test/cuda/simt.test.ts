// native/cuda on the emulator: every op's cases, whole SFT and DPO runs beside `cpu`, products by a stand-in for cuBLASLt, and what happens when
// the device fails. `npm run test:simt` takes 10 steps instead of 2.
import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { attune, type Ran } from "../cli/attune.ts";
import { root } from "../runtime/tools.ts";
import { build, check, standIn, unbuildable } from "./build.ts";
import { alike, clean, command, dir, done, env, prepare, read, run, runFile, steps, type Way } from "./runs.ts";

afterAll(clean);
if (unbuildable !== null) console.warn(`test/cuda: skipped, ${unbuildable}`);

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
    const { stdout } = await promisify(execFile)(check, [join(dir, "ops.bundle")], {
      env: { ...process.env, ATTUNE_SIMT_ARCH: arch, ATTUNE_SIMT_TIMING: timing },
    });
    expect(stdout).toMatch(/[1-9]\d* cases passed, 0 failed/);
  });

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
    }, 900_000);
  });

  test("those runs accumulate micro-batches, and DPO's prompts are shared", async () => {
    interface Profile {
      readonly ops: readonly { readonly op: string; readonly calls: number }[];
    }
    for (const task of ["sft", "dpo"] as const) {
      const { ops } = await command<Profile>("profile", { task, device: "cpu" }, "--steps", "1");
      expect(ops.find((r) => r.op === "rope_table")!.calls, task).toBeGreaterThanOrEqual(2); // once a micro-batch
    }
    const flops = async (share: boolean): Promise<number> => (await command<{ flops_per_step: number }>("plan", { task: "dpo", device: "cpu", prompt_trees: share, tokens_per_batch: 128 })).flops_per_step;
    expect(await flops(true)).toBeLessThan(0.95 * (await flops(false)));
  }, 60_000);

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
  }, 60_000);

  describe("products by cuBLASLt's stand-in", () => {
    const lt = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({ ATTUNE_CUBLASLT: standIn, ...more });

    test.each([0, 1, 2])("every product's cases, by its algorithm %i", async (first) => {
      const { stdout } = await promisify(execFile)(check, [join(dir, "ops.bundle"), "--only", "gemm"], { env: { ...process.env, ...lt({ ATTUNE_STAND_IN_FIRST: `${first}` }) } });
      expect(stdout).toMatch(/[1-9]\d* cases passed, 0 failed/);
    });

    test.each([
      ["sft", "float32", 1e-4],
      ["dpo", "bfloat16", 1e-2],
    ] as const)("%s in %s is what cpu gives, from a graph as from a list; another order of the sums has other bits", async (task, dtype, tolerance) => {
      const way: Way = { task, dtype, env: lt() };
      const cpu = await done(`lt-${task}-cpu`, { ...way, device: "cpu" });
      const graph = await done(`lt-${task}-graph`, way);
      alike(cpu, graph, tolerance);
      expect((await done(`lt-${task}-list`, { ...way, env: lt({ ATTUNE_CUDA_BLOCKING: "1" }) })).sha).toBe(graph.sha);
      const other = await done(`lt-${task}-other`, { ...way, env: lt({ ATTUNE_STAND_IN_FIRST: "1" }) });
      alike(cpu, other, tolerance);
      expect(other.sha).not.toBe(graph.sha);
    });

    test("a resumed run multiplies as its checkpoint says, and says so where it cannot", async () => {
      const way: Way = { max_steps: 4, save_steps: 2 };
      const whole = await done("lt-whole", { ...way, env: lt() });
      for (const [out, more, says] of [
        ["lt-moved", { ATTUNE_STAND_IN_FIRST: "1", XDG_CACHE_HOME: join(dir, "elsewhere") }, false],
        ["lt-newer", { ATTUNE_STAND_IN_VERSION: "130200" }, true],
      ] as const) {
        const stopped = await run(out, { ...way, env: lt({ ATTUNE_SIMT_FAIL: "lost:600" }) });
        expect(stopped.code).toBe(5);
        const { code, stderr } = await run(out, { ...way, resume: true, env: lt(more) });
        expect(code, stderr).toBe(0);
        expect(stderr.includes("from now on its bits may differ from those of the run never stopped")).toBe(says);
        if (!says) expect(read(out).sha).toBe(whole.sha);
      }
    });

    test("is looked for in Python's packages too", async () => {
      const lib = join(dir, "venv/lib/python3.11/site-packages/nvidia/cu13/lib");
      mkdirSync(lib, { recursive: true });
      mkdirSync(join(dir, "venv/bin"));
      copyFileSync(standIn, join(lib, "libcublasLt.so.13"));
      const told = async (more: NodeJS.ProcessEnv): Promise<string> => (await attune(["doctor"], { env: { ...env, CUDA_HOME: join(dir, "none"), ...more } })).stdout;
      expect(await told({ VIRTUAL_ENV: join(dir, "venv") })).toContain(`cuBLASLt 13.1.0 (${lib}/libcublasLt.so.13)`);
      expect(await told({ PATH: `${join(dir, "venv/bin")}:${process.env["PATH"]}` })).toContain("nvidia/cu13/lib/libcublasLt.so.13)");
      expect(await told({ ATTUNE_CUBLASLT: join(dir, "nothing.so") })).toMatch(/cublaslt +none: ATTUNE_CUBLASLT can't be opened: .*nothing\.so/);
    });
  });

  describe("a device that fails", () => {
    const failing = (out: string, fail: string, more: Way = {}): Promise<Ran> =>
      run(out, { max_steps: 4, save_steps: 1, ...more, env: { ATTUNE_SIMT_FAIL: fail, ...more.env } });

    test.each([1, 2, 9, 60])("out of memory at allocation %i: exit 4, and how much is free", async (n) => {
      const { code, stderr } = await failing(`memory-${n}`, `malloc:${n}`);
      expect(code).toBe(4);
      expect(stderr).toMatch(/the simt device has no room for \d+ bytes; memory: simt says cudaErrorMemoryAllocation, out of memory; \d+ of its \d+ MiB are free/);
    });

    test("a launch that is refused, in a list and in a capture: exit 5, with op, instruction, kernel and CUDA's words", async () => {
      for (const n of [7, 150, 250]) {
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
