// `attune doctor` and `attune build`, in every build that is there.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { root } from "../runtime/tools.ts";
import { attune } from "./attune.ts";
import { TEXTS, tinyModel, writeRows } from "./tiny_model.ts";

const cpuBuild = join(root, "build/Release/attune.node");
const cudaBuild = join(root, "build-cuda/Release/attune.node");

describe("attune doctor", () => {
  it("says what there is and ends with 0", async () => {
    const { code, stdout, stderr } = await attune(["doctor"], { env: { ATTUNE_ADDON: cpuBuild } });
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^attune +\S+, Node v\d+.*$/m);
    expect(stdout).toMatch(/^addon +.*attune\.node, by (g\+\+|clang\+\+) [\d.]+.*, for cpu$/m);
    expect(stdout).toMatch(/^cuda +this build has no CUDA backend; driver .*; nvcc .*, cmake .*\n +-> /m);
    expect(stdout).toMatch(/^auto +runs go to cpu$/m);
  });

  it("gives the same as one JSON value", async () => {
    const { code, stdout } = await attune(["doctor", "--json"], { env: { ATTUNE_ADDON: cpuBuild } });
    expect(code).toBe(0);
    const found = JSON.parse(stdout) as Record<string, unknown>;
    expect(found).toMatchObject({ addon: cpuBuild, devices: ["cpu", "null"], auto: "cpu", gpus: null });
  });

  it("still ends with 0 where the addon does not load", async () => {
    const { code, stdout } = await attune(["doctor"], { env: { ATTUNE_ADDON: "/nosuch.node" } });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^addon +native addon: \/nosuch\.node must load/m);
  });
});

it("attune build --cuda without its tools says which is missing", async () => {
  const { code, stderr } = await attune(["build", "--cuda"], { env: { PATH: "/nosuch", CUDACXX: "/nosuch" } });
  expect(code).toBe(5);
  expect(stderr).toMatch(/^attune: this build needs cmake 3\.19 or newer: it was not found/m);
});

describe.skipIf(!existsSync(cudaBuild))("the CUDA build", () => {
  const objdump = (flag: string): string => spawnSync("objdump", [flag, cudaBuild], { encoding: "utf8", maxBuffer: 1 << 28 }).stdout ?? "";

  it("needs no libcuda, no libstdc++, and no glibc newer than 2.34", () => {
    const needed = [...objdump("-p").matchAll(/NEEDED +(\S+)/g)].map((m) => m[1]!);
    expect(needed).toContain("libc.so.6");
    for (const library of needed) expect(library).not.toMatch(/^lib(cuda|stdc\+\+|cublas|cudart)/);
    for (const [, minor] of objdump("-T").matchAll(/GLIBC_2\.(\d+)/g)) expect(Number(minor)).toBeLessThanOrEqual(34);
  });

  it.skipIf(existsSync("/proc/driver/nvidia"))("trains on the CPU where there is no driver, and says why not on a GPU", async () => {
    const { dir, env } = await tinyModel();
    await writeRows(join(dir, "texts.jsonl"), TEXTS);
    const run = ["sft", "--model", "model", "--dataset", "texts.jsonl", "--max_steps", "2", "--output_dir"];
    const more = { cwd: dir, env: { ...env, ATTUNE_ADDON: cudaBuild } };
    expect(await attune([...run, "out"], more)).toMatchObject({ code: 0 });
    const { code, stderr } = await attune([...run, "on-gpu", "--device", "cuda"], more);
    expect(code).toBe(5);
    expect(stderr).toMatch(/^attune: error: device cuda: no NVIDIA driver that CUDA 13 can use \(580 or newer\): /m);
    const { stdout } = await attune(["doctor"], more);
    expect(stdout).toMatch(/^gpu +none to use: no NVIDIA driver/m);
  });
});
