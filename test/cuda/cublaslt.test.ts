// Products by cuBLASLt's stand-in on the emulator (native/simt/stand_in): what it is, whole runs with it, where the library is looked for, and
// what was chosen once and stays.
import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { attune } from "../cli/attune.ts";
import { root } from "../runtime/tools.ts";
import { build, check, standIn, standInCheck, unbuildable } from "./build.ts";
import { alike, clean, dir, done, env, prepare, read, run, type Done, type Way } from "./runs.ts";

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

  describe("a run resumed", () => {
    const pace = { max_steps: 4, save_steps: 2 };
    /** A run, cut back to its first checkpoint and resumed in another way: what it had left when it was whole, and what it said then. */
    async function resumed(out: string, first: Way, then: Way): Promise<{ readonly whole: Done; readonly said: string }> {
      const whole = await done(out, { ...first, ...pace });
      for (const file of ["model.safetensors", "metrics.jsonl", "report.html"]) rmSync(join(dir, out, file));
      const { code, stderr: said } = await run(out, { ...then, ...pace, resume: true });
      expect(code, said).toBe(0);
      expect(said).toContain("resumed from step 2");
      return { whole, said };
    }
    const elsewhere = (name: string): NodeJS.ProcessEnv => lt({ ATTUNE_STAND_IN_FIRST: "1", XDG_CACHE_HOME: join(dir, name) });

    test.each([
      ["sft", {}],
      ["dpo", {}],
      ["dpo", { ref_model: join(dir, "model-32") }],
    ] as const)("elsewhere, where the library prefers another algorithm and the caches are empty, has the bits of the run never stopped: %s, %o", async (task, more) => {
      const name = `moved-${task}-${Object.keys(more).length}`;
      const way = { task, ...more };
      const { whole, said } = await resumed(name, { ...way, env: lt({ XDG_CACHE_HOME: join(dir, `${name}-home`) }) }, { ...way, env: elsewhere(`${name}-a`) });
      expect(said).not.toContain("its bits may differ");
      expect(read(name).sha).toBe(whole.sha);
      const other = await done(`${name}-other`, { ...way, ...pace, env: elsewhere(`${name}-b`) });
      expect(other.sha).not.toBe(whole.sha); // bits do tell which algorithm it was
    }, 300_000);

    test.each([
      ["a newer library", lt(), lt({ ATTUNE_STAND_IN_VERSION: "130200" }), "cuBLASLt 130100", "cuBLASLt 130200"],
      ["no library", lt(), { ATTUNE_CUBLASLT: "off" }, "cuBLASLt 130100", "no cuBLASLt"],
      ["a library where there was none", { ATTUNE_CUBLASLT: "off" }, lt(), "no cuBLASLt", "cuBLASLt 130100"],
    ])("with %s says that its bits may differ", async (name, first, then, before, now) => {
      const { said } = await resumed(name.replaceAll(" ", "-"), { env: first }, { env: then });
      const line = `resume: the run's matrices were multiplied by simt, an emulator, ${before}, and are now by simt, an emulator, ${now}: from now on its bits may differ`;
      expect(said).toContain(line);
    });

    test("on the CPU, or from there, says so too; on the same device nothing is said", async () => {
      for (const [from, to, says] of [
        ["simt", "cpu", "by simt, an emulator, no cuBLASLt, and are now by the CPU: "],
        ["cpu", "simt", "by the CPU, and are now by simt, an emulator, no cuBLASLt: "],
        ["cpu", "cpu", null],
        ["simt", "simt", null],
      ] as const) {
        const { said } = await resumed(`${from}-then-${to}`, { device: from }, { device: to });
        if (says) expect(said).toContain(says);
        else expect(said).not.toContain("multiplied by");
      }
    });
  });

  describe("what was chosen for a product", () => {
    interface Told {
      readonly adopted: readonly boolean[];
      readonly before: string;
      readonly after: string;
    }
    const child = async (cache: string, more: NodeJS.ProcessEnv, ...adopted: string[]): Promise<Told> => {
      const { stdout } = await exec(process.execPath, [join(root, "test/cuda/choices_child.mjs"), ...adopted], { env: { ...env, ...lt(more), XDG_CACHE_HOME: join(dir, cache) } });
      return JSON.parse(stdout) as Told;
    };
    const maker = "simt, an emulator, cuBLASLt 130100\n";
    const algorithm = (choices: string): string => /617474756e65 0{15}(\d)/.exec(choices)![1]!;
    const by = (choices: string, other: string): string => choices.replace(/(617474756e65 0{15})\d/, `$1${other}`);

    test("is timed once, kept in the cache folder for this device and version, and obeyed from there", async () => {
      mkdirSync(join(dir, "chosen"));
      const { before, after } = await child("chosen", {});
      expect(before).toBe(maker);
      expect(after.startsWith(maker)).toBe(true);
      const file = join(dir, "chosen/attune/cublaslt/simt,-an-emulator-130100");
      expect(readFileSync(file, "utf8")).toBe(after.slice(maker.length));
      for (const other of ["0", "1", "2"]) {
        writeFileSync(file, by(after.slice(maker.length), other));
        expect(algorithm((await child("chosen", { ATTUNE_STAND_IN_FIRST: `${(Number(other) + 1) % 3}` })).after)).toBe(other);
      }
      expect(algorithm((await child("chosen", { ATTUNE_CUBLASLT_TUNE: "off", ATTUNE_STAND_IN_FIRST: "0" })).after)).toBe("0"); // and not the file's 2
      writeFileSync(file, "400 400 400 torn\n");
      expect((await child("chosen", {})).after.startsWith(maker)).toBe(true);
      expect(readdirSync(join(dir, "chosen/attune/cublaslt"))).toHaveLength(1);
      await child("chosen", { ATTUNE_STAND_IN_VERSION: "130200" });
      expect(readdirSync(join(dir, "chosen/attune/cublaslt"))).toHaveLength(2);
    });

    test("can be adopted before the file is asked, whole or not at all", async () => {
      const first = await child("adopted", { ATTUNE_CUBLASLT_TUNE: "off", ATTUNE_STAND_IN_FIRST: "1" });
      const choices = by(first.after, "2");
      const line = choices.slice(maker.length);
      const newer = choices.replace("130100", "130200");
      const refused = ["", "nonsense", newer, `${choices}400 400\n`, choices.slice(0, -1), `another GPU, cuBLASLt 130100\n${line}`];
      const told = await child("adopted", { ATTUNE_STAND_IN_FIRST: "0" }, choices, ...refused);
      expect(told.adopted).toEqual([true, ...refused.map(() => false)]);
      expect([told.before, told.after]).toEqual([choices, choices]);
    });
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
