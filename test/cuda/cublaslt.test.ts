// Products by cuBLASLt's stand-in on the emulator (native/simt/stand_in): what it is, whole runs with it, where the library is looked for, and
// what was chosen once and stays.
import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { attune } from "../cli/attune.ts";
import { build, check, standIn, standInCheck, unbuildable } from "./build.ts";
import { alike, clean, dir, done, env, prepare, read, run, type Way } from "./runs.ts";

afterAll(clean);
const lt = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({ ATTUNE_CUBLASLT: standIn, ...more });
const exec = promisify(execFile);

describe.skipIf(unbuildable !== null)("products by cuBLASLt's stand-in", () => {
  beforeAll(async () => {
    build();
    await prepare();
  }, 600_000);

  test("it does what the manual says, and refuses what the library refuses", async () => {
    const { stdout } = await exec(standInCheck, [], { env: { ...process.env, ...lt() } }); // rejects, with what it printed, unless all are ok
    expect(stdout).toMatch(/^0 failed$/m);
    expect(stdout.match(/^ok +refused: /gm)!.length).toBeGreaterThan(20);
  });

  test.each([0, 1, 2])("every product's cases, by its algorithm %i", async (first) => {
    const { stdout } = await exec(check, [join(dir, "ops.bundle"), "--only", "gemm"], { env: { ...process.env, ...lt({ ATTUNE_STAND_IN_FIRST: `${first}` }) } });
    expect(stdout).toContain(`products by cuBLASLt 13.1.0 (${standIn})`);
    expect(stdout).toMatch(/[1-9]\d* cases passed, 0 failed/);
  });

  test.each([
    ["sft", "float32", 1e-4],
    ["dpo", "float32", 1e-4],
    ["sft", "bfloat16", 1e-2],
    ["dpo", "bfloat16", 1e-2],
  ] as const)("%s in %s is what cpu gives, from a graph as from a list; another order of the sums has other bits", async (task, dtype, tolerance) => {
    const way: Way = { task, dtype, env: lt() };
    const name = `${task}-${dtype}`;
    const cpu = await done(`${name}-cpu`, { ...way, device: "cpu" });
    const graph = await done(`${name}-graph`, way);
    alike(cpu, graph, tolerance);
    expect((await done(`${name}-list`, { ...way, env: lt({ ATTUNE_CUDA_BLOCKING: "1" }) })).sha).toBe(graph.sha);
    const other = await done(`${name}-other`, { ...way, env: lt({ ATTUNE_STAND_IN_FIRST: "1" }) });
    alike(cpu, other, tolerance);
    expect(other.sha).not.toBe(graph.sha);
  }, 300_000);

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

  describe("the library is looked for", () => {
    const place = (folder: string): string => {
      const to = join(dir, folder);
      mkdirSync(to, { recursive: true });
      copyFileSync(standIn, join(to, "libcublasLt.so.13"));
      return `cuBLASLt 13.1.0 (${to}/libcublasLt.so.13)`;
    };
    // A real library on this machine is no stand-in: the emulator passes it over, so every search goes on to the end.
    const none = { ATTUNE_CUBLASLT: "", CUDA_HOME: "", VIRTUAL_ENV: "", CONDA_PREFIX: "", LD_LIBRARY_PATH: "", HOME: join(dir, "home") };
    const told = async (more: NodeJS.ProcessEnv): Promise<string> => (await attune(["doctor"], { env: { ...env, ...none, ...more } })).stdout;

    test("where the loader looks, in the toolkit, in Python's packages, in this order", async () => {
      const python = place("venv/lib/python3.11/site-packages/nvidia/cu13/lib");
      const toolkit = place("toolkit/lib64");
      const loader = place("loader");
      const all = { VIRTUAL_ENV: join(dir, "venv") };
      expect(await told(all)).toContain(python);
      expect(await told({ ...all, CUDA_HOME: join(dir, "nothing") })).toContain(python);
      expect(await told({ ...all, CUDA_HOME: join(dir, "toolkit") })).toContain(toolkit);
      expect(await told({ ...all, CUDA_HOME: join(dir, "toolkit"), LD_LIBRARY_PATH: join(dir, "loader") })).toContain("cuBLASLt 13.1.0 (libcublasLt.so.13)");
      expect(await told({ ...all, ATTUNE_CUBLASLT: join(dir, "loader/libcublasLt.so.13") })).toContain(loader);
    });

    test("in the packages of conda, of a Python on PATH, and of Debian's", async () => {
      const conda = place("conda/lib/python3.13/site-packages/nvidia/cublas/lib");
      expect(await told({ CONDA_PREFIX: join(dir, "conda") })).toContain(conda);
      place("usr/lib/python3/dist-packages/nvidia/cublas/lib");
      mkdirSync(join(dir, "usr/bin"));
      expect(await told({ PATH: `${join(dir, "usr/bin")}:${process.env["PATH"]}` })).toContain("usr/bin/../lib/python3/dist-packages/nvidia/cublas/lib/libcublasLt.so.13)");
    });

    test("and where there is none, or another file than ours, doctor says so", async () => {
      expect(await told({ ATTUNE_CUBLASLT: join(dir, "nothing.so") })).toMatch(/cublaslt +none: ATTUNE_CUBLASLT can't be opened: .*nothing\.so/);
      expect(await told({ ATTUNE_CUBLASLT: "libm.so.6" })).toMatch(/cublaslt +none: ATTUNE_CUBLASLT can't be opened: libm\.so\.6 is no stand-in/);
      writeFileSync(join(dir, "text.so"), "not a library");
      expect(await told({ ATTUNE_CUBLASLT: join(dir, "text.so") })).toMatch(/can't be opened: .*text\.so: file too short/);
      expect(await told({ ATTUNE_CUBLASLT: "off" })).toMatch(/cublaslt +none: ATTUNE_CUBLASLT is off/);
    });
  });
});
