// native/cuda on the emulator: every op's cases, whole SFT and DPO runs beside `cpu`, and what happens when the device fails.
// `npm run test:simt` takes 10 steps instead of 2.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { initModel } from "#lib/io/init.js";
import { attune, type Ran } from "../cli/attune.ts";
import { bundle } from "../ops/bundle.ts";
import { root } from "../runtime/tools.ts";
import { addon, build, check, unbuildable } from "./build.ts";

const steps = Number(process.env["ATTUNE_SIMT_STEPS"] ?? 2);
const dir = mkdtempSync(join(tmpdir(), "attune-simt-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const recipe = join(root, "examples/quickstart");
const env = { ...process.env, ATTUNE_ADDON: addon, XDG_CACHE_HOME: join(dir, "cache") };
if (unbuildable !== null) console.warn(`test/cuda: skipped, ${unbuildable}`);

async function model(headSize: number, heads: number, layers: number): Promise<void> {
  const config = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8")) as Record<string, unknown>;
  const sizes = { hidden_size: 64, intermediate_size: 96, num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: heads / 2, head_dim: headSize };
  const configPath = join(dir, `config-${headSize}.json`);
  writeFileSync(configPath, JSON.stringify({ ...config, ...sizes }));
  await initModel({ configPath, tokenizerDir: join(recipe, "model"), outputDir: join(dir, `model-${headSize}`), seed: 1, version: "test" });
}

interface Way {
  readonly task?: "sft" | "dpo";
  readonly headSize?: number;
  readonly env?: NodeJS.ProcessEnv;
  readonly [key: string]: unknown;
}
function run(out: string, { task = "sft", headSize = 64, env: more, ...flags }: Way): Promise<Ran> {
  const file = join(dir, `${out}.json`);
  const base = { model: join(dir, `model-${headSize}`), dataset: join(dir, `${task}.jsonl`), output_dir: join(dir, out), max_steps: steps };
  const pace = { batch_size: 4, tokens_per_batch: 96, max_length: 64, logging_steps: 1, learning_rate: 2e-3, seed: 3, device: "simt", dtype: "float32" };
  writeFileSync(file, JSON.stringify({ ...base, ...pace, ...flags }));
  return attune([task, file], { env: { ...env, ...more } });
}
async function done(out: string, way: Way): Promise<{ metrics: Record<string, number>[]; sha: string; weights: Float64Array }> {
  const ran = await run(out, way);
  expect(ran.code, ran.stderr).toBe(0);
  const lines = readFileSync(join(dir, out, "metrics.jsonl"), "utf8").trim().split("\n");
  const file = readFileSync(join(dir, out, "model.safetensors"));
  const metrics = lines.map((l) => JSON.parse(l) as Record<string, number>).filter((m) => m["grad_norm"] !== undefined);
  return { metrics, sha: createHash("sha256").update(file).digest("hex"), weights: weightsOf(file) };
}

/** All elements of a file of float32 or bfloat16, in its order. */
function weightsOf(file: Buffer): Float64Array {
  const head = Number(file.readBigUInt64LE(0));
  const bf16 = file.toString("utf8", 8, 8 + head).includes('"BF16"');
  const data = file.subarray(8 + head);
  const width = bf16 ? 2 : 4;
  return Float64Array.from({ length: data.length / width }, (_, i) => {
    if (!bf16) return data.readFloatLE(4 * i);
    return new Float32Array(Uint32Array.of(data.readUInt16LE(2 * i) << 16).buffer)[0]!;
  });
}
function apart(a: Float64Array, b: Float64Array): number {
  let difference = 0;
  let whole = 0;
  a.forEach((x, i) => ((difference += (x - b[i]!) ** 2), (whole += x * x)));
  return Math.sqrt(difference / whole);
}

describe.skipIf(unbuildable !== null)("native/cuda on the emulator", () => {
  beforeAll(async () => {
    build();
    mkdirSync(join(dir, "cache"));
    await model(64, 4, 2);
    await model(128, 2, 1);
    for (const name of ["sft", "dpo"]) {
      const rows = readFileSync(join(recipe, `data/${name}.jsonl`), "utf8").split("\n").slice(0, 16);
      writeFileSync(join(dir, `${name}.jsonl`), rows.join("\n"));
    }
    writeFileSync(join(dir, "ops.bundle"), bundle());
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
      for (const simt of [graph, older]) {
        expect(simt.metrics.length).toBe(steps);
        simt.metrics.forEach((m, i) => {
          for (const key of ["loss", "grad_norm"]) expect(Math.abs(m[key]! / cpu.metrics[i]![key]! - 1), `${key} of step ${i + 1}`).toBeLessThan(tolerance);
        });
        expect(apart(cpu.weights, simt.weights)).toBeLessThan(tolerance);
      }
    }, 900_000);
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
