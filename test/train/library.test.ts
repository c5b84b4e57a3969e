// The library's trainers: the same run as the command's, a step at a time, with rows from anywhere.
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DPOTrainer, initModel, openGenerator, SFTTrainer, type Prompt, type DpoOptions, type SftOptions, type StepMetrics } from "#lib/index.js";
import { resolveConfig, type RunConfig } from "#lib/train/config.js";
import { runTraining } from "#lib/train/run.js";

const recipe = new URL("../../examples/quickstart/", import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), "attune-library-"));
const model = join(dir, "model");
const file = (name: string): string => join(dir, `${name}.jsonl`);
const rows = (name: string): object[] => readFileSync(file(name), "utf8").split("\n").map((line) => JSON.parse(line) as object);
beforeAll(async () => {
  process.env["XDG_CACHE_HOME"] = join(dir, "cache");
  const config = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 1, hidden_size: 32, intermediate_size: 48 }));
  await initModel({ configPath: join(dir, "config.json"), tokenizerDir: join(recipe, "model"), outputDir: model, seed: 1, version: "test" });
  for (const task of ["sft", "dpo"]) {
    const all = readFileSync(join(recipe, `data/${task}.jsonl`), "utf8").split("\n");
    writeFileSync(file(task), all.slice(0, 16).join("\n"));
    writeFileSync(file(`${task}-held`), all.slice(16, 24).join("\n"));
  }
  await using trainer = await sft();
  await trainer.train();
  plain = await weights(trainer);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const common = { model, maxSteps: 4, batchSize: 4, learningRate: 1e-3, dtype: "float32" as const };
const sft = (more: Partial<SftOptions> = {}): Promise<SFTTrainer> => SFTTrainer.create({ ...common, dataset: file("sft"), ...more });
const dpo = (more: Partial<DpoOptions> = {}): Promise<DPOTrainer> => DPOTrainer.create({ ...common, dataset: file("dpo"), ...more });
const weightsIn = (folder: string): string => createHash("sha256").update(readFileSync(join(folder, "model.safetensors"))).digest("hex");
let plain = ""; // the weights of four steps of SFT
let saves = 0;
/** The weights of a trainer as it stands. */
async function weights(trainer: SFTTrainer): Promise<string> {
  const folder = join(dir, `saved-${saves++}`);
  await trainer.save(folder);
  return weightsIn(folder);
}
const clock = /seconds|per_second|runtime|peak_bytes/;
const lines = (folder: string): object[] =>
  readFileSync(join(folder, "metrics.jsonl"), "utf8").trim().split("\n").map((line) => Object.fromEntries(Object.entries(JSON.parse(line) as object).filter(([key]) => !clock.test(key))));

test("a trainer without outputDir trains to the end and writes nothing but what it is told to save", async () => {
  const before = readdirSync(dir);
  await using trainer = await sft();
  expect((await trainer.train())!.step).toBe(4);
  expect([await trainer.train(), trainer.summary]).toEqual([undefined, null]);
  expect(readdirSync(dir).filter((name) => !before.includes(name) && name !== "cache")).toEqual([]);
  expect(await weights(trainer)).toBe(plain);
});

describe.each(["sft", "dpo"] as const)("with outputDir, %s keeps the folder that the command keeps", (task) => {
  const [ours, theirs] = [join(dir, `library-${task}`), join(dir, `command-${task}`)];
  const keys = { loggingSteps: 2, saveSteps: 2, evalDataset: file(`${task}-held`), evalSteps: 2 };

  test("the same files, lines and weights", async () => {
    await using trainer = await { sft, dpo }[task]({ ...keys, outputDir: ours });
    const seen: StepMetrics[] = [];
    for await (const metrics of trainer) seen.push(metrics);
    expect(seen.map((m) => [m.step, "eval_loss" in m])).toEqual([[1, false], [2, true], [3, false], [4, true]]);
    expect(trainer.summary).toMatchObject({ step: 4 });
    const raw = { model, dataset: file(task), output_dir: theirs, max_steps: 4, batch_size: 4, learning_rate: 1e-3, dtype: "float32" };
    const { config } = resolveConfig(task, { ...raw, logging_steps: 2, save_steps: 2, eval_dataset: file(`${task}-held`), eval_steps: 2 });
    await runTraining(task, config as RunConfig, { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined, onMetrics: () => undefined });
    expect(readdirSync(ours).sort()).toEqual(readdirSync(theirs).sort());
    expect(readdirSync(ours)).toContain("checkpoint-2");
    expect(lines(ours)).toEqual(lines(theirs));
    expect(weightsIn(ours)).toBe(weightsIn(theirs));
  });

  test("a folder that holds a run is refused; with resume a finished one has its model and nothing left to do", async () => {
    const make = { sft, dpo }[task];
    await expect(make({ ...keys, outputDir: ours })).rejects.toMatchObject({ code: "ERR_CONFIG", message: expect.stringMatching(/output_dir: must not hold a run/) as string });
    await using trainer = await make({ ...keys, outputDir: ours, resume: true });
    expect([trainer.step, await trainer.train(), trainer.summary!["step"]]).toEqual([4, undefined, 4]);
    expect(await weights(trainer)).toBe(weightsIn(ours));
  });

  test("stopped by its signal it has a checkpoint; resumed it ends as if never stopped", async () => {
    const [make, cut, stop] = [{ sft, dpo }[task], join(dir, `cut-${task}`), new AbortController()];
    {
      await using trainer = await make({ ...keys, outputDir: cut, signal: stop.signal });
      for await (const m of trainer) if (m.step === 3) stop.abort();
      expect(existsSync(join(cut, "checkpoint-3"))).toBe(true);
    }
    await using trainer = await make({ ...keys, outputDir: cut, resume: true });
    expect(trainer.step).toBe(3);
    await trainer.train();
    expect(lines(cut)).toEqual(lines(ours));
    expect(weightsIn(cut)).toBe(weightsIn(ours));
  });
});

test("options that say how a folder is kept are refused by name where there is none", async () => {
  for (const [key, value] of Object.entries({ resume: true, overwriteOutputDir: true, loggingSteps: 1, saveStrategy: "epoch", saveSteps: 5, saveTotalLimit: 1 }))
    await expect(sft({ [key]: value })).rejects.toThrow(`${key}: must come with outputDir, got none`);
});

test("break leaves a trainer usable: evaluated, saved, gone on with, it ends with the same weights", async () => {
  await using trainer = await sft({ evalDataset: file("sft-held") });
  for await (const _ of trainer) break;
  expect(trainer.step).toBe(1);
  const first = await trainer.evaluate();
  expect(await trainer.evaluate()).toMatchObject({ step: 1, eval_loss: first["eval_loss"] });
  await weights(trainer);
  for await (const m of trainer) if (m.step === 3) break;
  await trainer.train();
  expect((await trainer.evaluate())["eval_loss"]).toBeLessThan(first["eval_loss"]!);
  expect(await weights(trainer)).toBe(plain);
});

describe("generate", () => {
  const prompts: Prompt[] = ["Is it", [{ role: "user", content: "Is skating bad manners?" }]];
  const short = { maxNewTokens: 6 };
  async function all(completions: AsyncIterable<{ text: string; tokens: number }>): Promise<string[]> {
    const texts: string[] = [];
    for await (const { text } of completions) texts.push(text);
    return texts;
  }

  test("answers with the weights as they are, as the saved model does, and changes no bit of training", async () => {
    await using trainer = await sft();
    const start = await all(trainer.generate(prompts, short));
    for await (const m of trainer) if (m.step === 2) await all(trainer.generate(prompts, short));
    const end = await all(trainer.generate(prompts, short));
    expect(end).not.toEqual(start);
    const folder = join(dir, "generated");
    await trainer.save(folder);
    expect(weightsIn(folder)).toBe(plain);
    await using generator = await openGenerator({ model: folder });
    expect(await all(generator.generate(prompts, short))).toEqual(end);
  });

  test("several callers at once get what each gets alone", async () => {
    await using trainer = await sft();
    const [one, two] = [["Is it"], ["Once upon a time", "No"]];
    const alone = [await all(trainer.generate(one, short)), await all(trainer.generate(two, short))];
    expect(await Promise.all([all(trainer.generate(one, short)), all(trainer.generate(two, short))])).toEqual(alone);
  });

  test("a message that is no plain object is a DataError that names its prompt", async () => {
    await using trainer = await sft();
    const wrong = trainer.generate(["Is it", [{ role: "user", content: () => 1 }]], short);
    await expect(all(wrong)).rejects.toMatchObject({ code: "ERR_DATA", message: expect.stringMatching(/^prompt 1: messages must be plain objects: .*function/) as string });
  });
});

test("what a trainer cannot do now is a StateError", async () => {
  await using trainer = await sft();
  await expect(trainer.evaluate()).rejects.toMatchObject({ code: "ERR_STATE" });
  const [one, two] = [trainer[Symbol.asyncIterator](), trainer[Symbol.asyncIterator]()];
  const both = await Promise.allSettled([one.next(), two.next()]);
  expect(both.map((b) => b.status).sort()).toEqual(["fulfilled", "rejected"]);
  expect((both.find((b) => b.status === "rejected") as PromiseRejectedResult).reason).toMatchObject({ code: "ERR_STATE" });
});

describe("rows from anywhere", () => {
  async function* slowly(all: object[]): AsyncGenerator<object> {
    for (const row of all) yield await new Promise<object>((give) => setImmediate(give, row));
  }
  test.each([
    ["an array", () => rows("sft")],
    ["a generator", () => rows("sft").values()],
    ["an async generator", () => slowly(rows("sft"))],
  ])("%s trains as its file does", async (_, source) => {
    await using trainer = await sft({ dataset: source(), evalDataset: slowly(rows("sft-held")) });
    expect((await trainer.train())!["eval_loss"]).toBeGreaterThan(0);
    expect(await weights(trainer)).toBe(plain);
  });

  test("a run resumes with the same rows, and refuses others", async () => {
    const [outputDir, stop] = [join(dir, "objects"), new AbortController()];
    {
      await using trainer = await sft({ dataset: rows("sft"), outputDir, signal: stop.signal });
      for await (const m of trainer) if (m.step === 2) stop.abort();
    }
    await expect(sft({ dataset: rows("sft").slice(1), outputDir, resume: true })).rejects.toThrow(/resume: must have the rows that the run began with/);
    await expect(sft({ dataset: file("sft"), outputDir, resume: true })).rejects.toThrow(/got others: dataset/);
    await using trainer = await sft({ dataset: rows("sft"), outputDir, resume: true });
    await trainer.train();
    expect(await weights(trainer)).toBe(plain);
  });
});
