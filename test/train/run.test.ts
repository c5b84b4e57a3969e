// Runs as a user has them: a random model, SFT, then DPO from it; stopped and resumed; refused where a run would be lost.
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { initModel } from "#lib/io/init.js";
import { resolveConfig, type RunConfig, type Task } from "#lib/train/config.js";
import { planRun, type RunPlan } from "#lib/train/plan_run.js";
import { runTraining } from "#lib/train/run.js";
import { Trainer } from "#lib/train/trainer.js";
import { scoreRows } from "#lib/evaluate/score.js";

const recipe = new URL("../../examples/quickstart/", import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), "attune-run-"));
const model = join(dir, "model");
beforeAll(async () => {
  process.env["XDG_CACHE_HOME"] = join(dir, "cache");
  const config = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 2 }));
  await initModel({ configPath: join(dir, "config.json"), tokenizerDir: join(recipe, "model"), outputDir: model, seed: 1, version: "test" });
  for (const name of ["sft", "dpo"]) {
    const rows = readFileSync(join(recipe, `data/${name}.jsonl`), "utf8").split("\n").slice(0, 24);
    writeFileSync(join(dir, `${name}.jsonl`), rows.join("\n"));
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const hooks = { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined };
const quiet = { onStage: () => undefined, log: () => undefined, onMetrics: () => undefined };
function train(task: Task, out: string, more: Record<string, unknown> = {}, stopAt = Infinity): Promise<Readonly<Record<string, number>>> {
  const stop = new AbortController();
  const raw = { model, dataset: join(dir, `${task}.jsonl`), output_dir: join(dir, out), max_steps: 6, batch_size: 4, logging_steps: 1, learning_rate: 1e-3, ...more };
  const { config } = resolveConfig(task, raw);
  return runTraining(task, config, { ...quiet, signal: stop.signal, onMetrics: (m) => void (m["step"] === stopAt && stop.abort()) });
}
const weights = (out: string): string => createHash("sha256").update(readFileSync(join(dir, out, "model.safetensors"))).digest("hex");
const clocks = new Set(["step_seconds", "tokens_per_second", "peak_bytes"]);
const metrics = (out: string): unknown[] =>
  readFileSync(join(dir, out, "metrics.jsonl"), "utf8").trim().split("\n").slice(0, -1)
    .map((l) => Object.fromEntries(Object.entries(JSON.parse(l) as object).filter(([k]) => !clocks.has(k))));

describe.each([["sft", "float32"], ["dpo", "float32"], ["dpo", "bfloat16"]] as const)("%s in %s", (task, dtype) => {
  const name = `${task}-${dtype}`;
  test("stopped after three steps and resumed equals never stopped, to the last bit", async () => {
    await train(task, name, { dtype });
    const part = await train(task, `${name}-cut`, { dtype }, 3);
    expect(part["step"]).toBe(3);
    await train(task, `${name}-cut`, { dtype, resume: true });
    expect(weights(`${name}-cut`)).toBe(weights(name));
    expect(metrics(`${name}-cut`)).toEqual(metrics(name));
  });
  test("the same bits with one thread", async () => {
    await train(task, `${name}-1`, { dtype, threads: 1 });
    expect(weights(`${name}-1`)).toBe(weights(name));
    const [a, b] = [metrics(name), metrics(`${name}-1`)];
    expect(b).toEqual(a);
  });
});

test("prompts not shared: the same losses to rounding", async () => {
  await train("dpo", "dpo-alone", { dtype: "float32", prompt_trees: false });
  const [shared, alone] = [metrics("dpo-float32"), metrics("dpo-alone")] as { loss: number }[][];
  for (const [i, m] of shared!.entries()) expect(Math.abs(m.loss - alone![i]!.loss) / m.loss).toBeLessThan(i === 0 ? 1e-6 : 1e-4);
});
test("a run that does not fit memory_limit is refused before it starts, naming what it needs", async () => {
  await expect(train("sft", "too-large", { memory_limit: "1MB" })).rejects.toThrow(/memory: the run must fit in .*memory_limit.*got one that needs/);
  await expect(train("dpo", "too-large-2", { memory_limit: "1MB" })).rejects.toMatchObject({ code: "ERR_MEMORY" });
});
test("what memory_limit refuses by a little, the refusal's own tokens_per_batch makes fit; and real sizes are the plan's", async () => {
  for (const task of ["sft", "dpo"] as const) {
    const raw = { model, dataset: join(dir, `${task}.jsonl`), output_dir: join(dir, "planned"), max_steps: 2, batch_size: 8, threads: 2 };
    const plan = (more: object): Promise<RunPlan> => planRun(task, resolveConfig(task, { ...raw, ...more }).config as RunConfig, hooks);
    const whole = await plan({});
    expect(whole.fits).toBe(true);
    const limit = whole.total_bytes - Math.floor(whole.activations_bytes / 2);
    const refused = await plan({ memory_limit: limit });
    const mend = /tokens_per_batch: (\d+) would fit/.exec(refused.refusal ?? "");
    expect(mend, refused.refusal ?? "").not.toBeNull();
    const smaller = await plan({ memory_limit: limit, tokens_per_batch: Number(mend![1]) });
    expect(smaller.fits).toBe(true);
    await using trainer = await Trainer.create(task, resolveConfig(task, { ...raw, memory_limit: limit, tokens_per_batch: Number(mend![1]) }).config as RunConfig, hooks);
    await trainer.next();
    const { arenaBytes, derivedBytes, threadBytes } = trainer.loaded.session;
    expect([arenaBytes, derivedBytes, threadBytes]).toEqual([smaller.activations_bytes, smaller.packed_weights_bytes, smaller.thread_scratch_bytes]);
    const { weights_bytes, packed_weights_bytes, gradients_bytes, optimizer_bytes, activations_bytes, inputs_outputs_bytes, thread_scratch_bytes } = smaller;
    const parts = [weights_bytes, packed_weights_bytes, gradients_bytes, optimizer_bytes, activations_bytes, inputs_outputs_bytes, thread_scratch_bytes];
    for (const part of parts) expect(part).toBeGreaterThan(0);
    expect(smaller.total_bytes).toBe(parts.reduce((a, b) => a + b));
  }
});
test("config.yaml says the dtype and the day that were used", () => {
  const text = readFileSync(join(dir, "sft-float32", "config.yaml"), "utf8");
  expect(text).toMatch(/^dtype: float32$/m);
  expect(text).toMatch(/^chat_template_date: "?\d{4}-\d\d-\d\d"?$/m);
});
test("scoring skips bad rows, gives the good ones around them, and then names the first bad one", async () => {
  const data = join(dir, "score.jsonl");
  writeFileSync(data, '{"input_ids": [1, 2, 3]}\n{"input_ids": [-1]}\n{"input_ids": [4, 5]}\n');
  const options = { model, data, device: "cpu", dtype: null, threads: null, tokensPerBatch: null } as const;
  const hooks = { ...quiet, signal: new AbortController().signal };
  const rows: number[] = [];
  const all = async (skipInvalid: boolean): Promise<void> => {
    for await (const s of scoreRows({ ...options, skipInvalid }, hooks)) rows.push(s.row);
  };
  await expect(all(true)).rejects.toThrow(/score\.jsonl:2: input_ids/);
  expect(rows).toEqual([0, 2]);
  rows.length = 0;
  await expect(all(false)).rejects.toThrow(/score\.jsonl:2/);
  expect(rows).toEqual([]);
});

test("DPO starts at ln 2 where the reference is the policy", () => {
  expect((metrics("dpo-float32")[0] as { loss: number }).loss).toBeCloseTo(Math.LN2, 6);
});
test("a folder that holds a run is refused, a finished run resumes to nothing, and a changed key is named", async () => {
  await expect(train("sft", "sft-float32")).rejects.toThrow(/output_dir: must not hold a run/);
  const before = weights("sft-float32");
  expect((await train("sft", "sft-float32", { dtype: "float32", resume: true }))["train_runtime"]).toBeGreaterThan(0);
  expect(weights("sft-float32")).toBe(before);
  await expect(train("sft", "sft-float32", { dtype: "float32", resume: true, learning_rate: 2e-3 })).rejects.toThrow(/learning_rate/);
});
