// Whole runs on the emulator, in a folder of their own: what the tests of this folder share.
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { initModel } from "#lib/io/init.js";
import { attune, type Ran } from "../cli/attune.ts";
import { bundle } from "../ops/bundle.ts";
import { root } from "../runtime/tools.ts";
import { addon } from "./build.ts";

export const steps = Number(process.env["ATTUNE_SIMT_STEPS"] ?? 2);
export const dir = mkdtempSync(join(tmpdir(), "attune-simt-"));
const recipe = join(root, "examples/quickstart");
export const env = { ...process.env, ATTUNE_ADDON: addon, XDG_CACHE_HOME: join(dir, "cache") };

async function model(headSize: number, heads: number, layers: number): Promise<void> {
  const config = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8")) as Record<string, unknown>;
  const sizes = { hidden_size: 64, intermediate_size: 96, num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: heads / 2, head_dim: headSize };
  const configPath = join(dir, `config-${headSize}.json`);
  writeFileSync(configPath, JSON.stringify({ ...config, ...sizes }));
  await initModel({ configPath, tokenizerDir: join(recipe, "model"), outputDir: join(dir, `model-${headSize}`), seed: 1, version: "test" });
}

export interface Way {
  readonly task?: "sft" | "dpo";
  readonly headSize?: number;
  readonly env?: NodeJS.ProcessEnv;
  readonly [key: string]: unknown;
}
/** The run file of `way`. */
export function runFile(out: string, { task = "sft", headSize = 64, env: _env, ...settings }: Way): string {
  const file = join(dir, `${out}.json`);
  const base = { model: join(dir, `model-${headSize}`), dataset: join(dir, `${task}.jsonl`), output_dir: join(dir, out), max_steps: steps };
  const pace = { batch_size: 4, tokens_per_batch: task === "dpo" ? 160 : 96, max_length: 64, logging_steps: 1, learning_rate: 2e-3, seed: 3, device: "simt", dtype: "float32" };
  writeFileSync(file, JSON.stringify({ ...base, ...pace, ...settings }));
  return file;
}
export const run = (out: string, way: Way): Promise<Ran> => attune([way.task ?? "sft", runFile(out, way)], { env: { ...env, ...way.env } });

/** What `attune plan` or `attune profile` says of such a run. */
export async function command<T>(name: "plan" | "profile", way: Way, ...flags: string[]): Promise<T> {
  const { code, stdout, stderr } = await attune([name, runFile(`${name}d`, way), "--json", ...flags], { env: { ...env, ...way.env } });
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as T;
}

export interface Done {
  readonly metrics: Record<string, number>[];
  readonly sha: string;
  readonly weights: Float64Array;
  /** Names of the kernels that ran, sorted; none on cpu. */
  readonly kernels: readonly string[];
}
/** What a finished run left. */
export function read(out: string, stderr = ""): Done {
  const lines = readFileSync(join(dir, out, "metrics.jsonl"), "utf8").trim().split("\n");
  const file = readFileSync(join(dir, out, "model.safetensors"));
  const metrics = lines.map((l) => JSON.parse(l) as Record<string, number>).filter((m) => m["grad_norm"] !== undefined);
  return { metrics, sha: createHash("sha256").update(file).digest("hex"), weights: weightsOf(file), kernels: [...new Set(stderr.match(/(?<=^simt: kernel )\w+/gm))].sort() };
}
export async function done(out: string, way: Way): Promise<Done> {
  const ran = await run(out, { ...way, env: { ATTUNE_SIMT_KERNELS: "1", ...way.env } });
  expect(ran.code, ran.stderr.replaceAll(/^simt: kernel .+\n/gm, "")).toBe(0);
  return read(out, ran.stderr);
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

/** Models, rows and the ops' cases. */
export async function prepare(): Promise<void> {
  mkdirSync(join(dir, "cache"));
  await model(64, 4, 2);
  await model(128, 2, 1);
  await model(32, 4, 1);
  for (const name of ["sft", "dpo"]) {
    const rows = readFileSync(join(recipe, `data/${name}.jsonl`), "utf8").split("\n").slice(0, 16);
    writeFileSync(join(dir, `${name}.jsonl`), rows.join("\n"));
  }
  writeFileSync(join(dir, "ops.bundle"), bundle());
}
export const clean = (): void => rmSync(dir, { recursive: true, force: true });

/** A run's losses, gradient norms and weights are those of another, relatively. */
export function alike(want: Done, got: Done, tolerance: number): void {
  expect(got.metrics.length).toBe(want.metrics.length);
  got.metrics.forEach((m, i) => {
    for (const key of ["loss", "grad_norm"]) expect(Math.abs(m[key]! / want.metrics[i]![key]! - 1), `${key} of step ${i + 1}`).toBeLessThan(tolerance);
  });
  expect(apart(want.weights, got.weights)).toBeLessThan(tolerance);
}
