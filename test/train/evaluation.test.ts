// Evaluation in a run: it measures what training will see, changes nothing in it, and outlives a kill.
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

const recipe = new URL("../../examples/quickstart/", import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), "attune-evaluation-"));
const model = join(dir, "model");
const file = (name: string): string => join(dir, `${name}.jsonl`);
beforeAll(async () => {
  process.env["XDG_CACHE_HOME"] = join(dir, "cache");
  const config = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 2, hidden_size: 64, intermediate_size: 96 }));
  await initModel({ configPath: join(dir, "config.json"), tokenizerDir: join(recipe, "model"), outputDir: model, seed: 1, version: "test" });
  for (const task of ["sft", "dpo"]) {
    const rows = readFileSync(join(recipe, `data/${task}.jsonl`), "utf8").split("\n");
    writeFileSync(file(task), rows.slice(0, 24).join("\n"));
    writeFileSync(file(`${task}-held`), rows.slice(24, 24 + 70).join("\n")); // more than one group
    writeFileSync(file(`${task}-held-7`), rows.slice(24, 24 + 7).join("\n"));
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const hooks = { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined };
const settings = (task: Task, more: Record<string, unknown>): RunConfig =>
  resolveConfig(task, { model, dataset: file(task), max_steps: 6, batch_size: 8, logging_steps: 1, learning_rate: 1e-3, ...more }).config as RunConfig;
type Line = Readonly<Record<string, number>>;
const isEvaluation = (m: Line): boolean => "eval_loss" in m;
/** A run with its folder, stopped where `stop` says so. */
function train(task: Task, out: string, more: Record<string, unknown>, stop: (m: Line) => boolean = () => false): Promise<Line> {
  const abort = new AbortController();
  const config = settings(task, { output_dir: join(dir, out), ...more });
  return runTraining(task, config, { ...hooks, signal: abort.signal, onMetrics: (m) => void (stop(m as Line) && abort.abort()) });
}
const weights = (out: string): string => createHash("sha256").update(readFileSync(join(dir, out, "model.safetensors"))).digest("hex");
const clocks = new Set(["step_seconds", "tokens_per_second", "peak_bytes", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"]);
/** The lines of metrics.jsonl but for the summary, without clocks and memory. */
const lines = (out: string): Line[] =>
  readFileSync(join(dir, out, "metrics.jsonl"), "utf8").trim().split("\n").slice(0, -1)
    .map((l) => Object.fromEntries(Object.entries(JSON.parse(l) as Line).filter(([k]) => !clocks.has(k))));

describe.each([
  ["sft", "float32", "after an evaluation", (m: Line) => m["step"] === 4 && isEvaluation(m)],
  ["dpo", "float32", "before the evaluation that is due", (m: Line) => m["step"] === 4 && !isEvaluation(m)],
  ["dpo", "bfloat16", "before the last evaluation", (m: Line) => m["step"] === 6 && !isEvaluation(m)],
] as const)("%s in %s", (task, dtype, moment, stop) => {
  const name = `${task}-${dtype}`;
  const evaluated = { dtype, eval_dataset: file(`${task}-held`), eval_steps: 2 };

  test("training is the same with it and without it, to the last bit", async () => {
    await train(task, name, evaluated);
    await train(task, `${name}-plain`, { dtype });
    expect(weights(name)).toBe(weights(`${name}-plain`));
    expect(lines(name).filter((m) => !isEvaluation(m))).toEqual(lines(`${name}-plain`));
    expect(lines(name).filter(isEvaluation).map((m) => m["step"])).toEqual([2, 4, 6]);
  });

  test(`stopped ${moment} and resumed: the lines of a run that was never stopped`, async () => {
    expect(await train(task, `${name}-cut`, evaluated, stop)).not.toHaveProperty("train_loss");
    await train(task, `${name}-cut`, { ...evaluated, resume: true });
    expect(lines(`${name}-cut`)).toEqual(lines(name));
    expect(weights(`${name}-cut`)).toBe(weights(name));
  });
});

describe.each(["sft", "dpo"] as const)("%s", (task) => {
  test("evaluating the rows of the next step gives that step's loss and metrics", async () => {
    const config = settings(task, { batch_size: 24, eval_dataset: file(task) });
    await using trainer = await Trainer.create(task, config, hooks);
    await trainer.next();
    const before = (await trainer.evaluate())!;
    const step = await trainer.next();
    const same = Object.keys(step).filter((k) => `eval_${k}` in before && k !== "num_tokens");
    expect(same.length).toBeGreaterThan(2);
    for (const key of same) expect(Math.abs(before[`eval_${key}`]! - step[key]!), key).toBeLessThanOrEqual(2e-6 * Math.abs(step[key]!) + 1e-6);
  });

  test("its lines have TRL's names", () => {
    const common = ["eval_entropy", "eval_loss", "eval_mean_token_accuracy", "eval_num_tokens", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"];
    const pairs = ["logits/chosen", "logits/rejected", "logps/chosen", "logps/rejected", "rewards/accuracies", "rewards/chosen", "rewards/margins", "rewards/rejected"];
    const text = readFileSync(join(dir, `${task}-float32`, "metrics.jsonl"), "utf8").split("\n").find((l) => l.includes("eval_loss"))!;
    const wanted = ["epoch", "step", ...common, ...(task === "dpo" ? pairs.map((k) => `eval_${k}`) : [])];
    expect(Object.keys(JSON.parse(text) as object).sort()).toEqual(wanted.sort());
  });

  test("eval_rows is a file cut short; without eval_steps there is one evaluation, at the end", async () => {
    await train(task, `${task}-rows`, { eval_dataset: file(`${task}-held`), eval_rows: 7, max_steps: 2 });
    await train(task, `${task}-file`, { eval_dataset: file(`${task}-held-7`), max_steps: 2 });
    expect(lines(`${task}-rows`)).toEqual(lines(`${task}-file`));
    expect(lines(`${task}-rows`).map((m) => [m["step"], isEvaluation(m)])).toEqual([[1, false], [2, false], [2, true]]);
  });

  test("memory_limit and plan count a long evaluation row, and say what would fit", async () => {
    const row = JSON.parse(readFileSync(file(`${task}-held`), "utf8").split("\n")[0]!) as Record<string, { content: string }[]>;
    const turns = row[task === "sft" ? "messages" : "chosen"]!;
    turns.at(-1)!.content = "Yes, of course. ".repeat(900);
    writeFileSync(file(`${task}-long`), JSON.stringify(row));
    const plan = (more: object): Promise<RunPlan> => planRun(task, settings(task, { max_length: null, ...more }), hooks);
    const [without, with_] = [await plan({}), await plan({ eval_dataset: file(`${task}-long`) })];
    expect(with_.activations_bytes).toBeGreaterThan(1.5 * without.activations_bytes);
    expect([with_.evaluations, with_.evaluation_examples]).toEqual([1, 1]);
    const limit = { max_length: null, eval_dataset: file(`${task}-long`), memory_limit: without.total_bytes };
    await expect(Trainer.create(task, settings(task, limit), hooks)).rejects.toThrow(/memory: .*would fit, the longest has \d+: lower max_length/);
    await using trainer = await Trainer.create(task, settings(task, { ...limit, memory_limit: with_.total_bytes }), hooks);
    await trainer.evaluate();
    expect(trainer.loaded.session.arenaBytes).toBe(with_.activations_bytes);
  });
});

test("a row of eval_dataset that cannot be used is named with its file; tokens_per_batch must hold its rows too", async () => {
  writeFileSync(file("bad"), '{"messages": []}\n');
  await expect(Trainer.create("sft", settings("sft", { eval_dataset: file("bad") }), hooks)).rejects.toThrow(/bad\.jsonl:1/);
  const short = settings("sft", { eval_dataset: file("sft-long"), tokens_per_batch: 200, max_length: null });
  await expect(Trainer.create("sft", short, hooks)).rejects.toThrow(/tokens_per_batch: .*row 0 of eval_dataset with \d+ tokens/);
});
