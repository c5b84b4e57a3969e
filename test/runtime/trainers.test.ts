// What trainers and generators leave behind when they are closed: no thread, no open file, nothing that keeps the process. Memory over two
// hundred of them: `node test/runtime/two_hundred.mjs`.
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { DPOTrainer, initModel, openGenerator, scoreRows, SFTTrainer } from "#lib/index.js";
import { root, temporaryFolder } from "./tools.ts";

const recipe = join(root, "examples/quickstart/model");
const model = join(temporaryFolder(), "model");
const texts = join(temporaryFolder(), "texts.jsonl");
const rows = Array.from({ length: 4 }, (_, i) => ({ prompt: `Question ${i}?`, completion: ` Answer ${i}.` }));
const pairs = rows.map((r, i) => ({ prompt: r.prompt, chosen: r.completion, rejected: ` Nothing ${i}.` }));
const options = { model, batchSize: 4, maxSteps: 2, device: "cpu", threads: 2 } as const;

const TIMES = 4;

/** Threads and open files of this process, as the kernel counts them. */
const held = (): { threads: number; files: number } => ({ threads: readdirSync("/proc/self/task").length, files: readdirSync("/proc/self/fd").length });

const kinds: Record<string, () => Promise<void>> = {
  SFTTrainer: async () => {
    await using t = await SFTTrainer.create({ ...options, dataset: rows });
    for await (const _ of t) break;
  },
  DPOTrainer: async () => {
    await using t = await DPOTrainer.create({ ...options, dataset: pairs });
    for await (const _ of t) break;
  },
  "one that is refused": async () => {
    await expect(SFTTrainer.create({ ...options, dataset: [{ wrong: 1 }] })).rejects.toThrow("row 0");
  },
  "one that is aborted": async () => {
    const stop = new AbortController();
    const made = SFTTrainer.create({ ...options, dataset: rows, signal: stop.signal });
    stop.abort(new Error("enough"));
    await expect(made).rejects.toThrow("enough");
  },
  scores: async () => {
    for await (const { logp } of scoreRows({ model, data: texts, device: "cpu", threads: 2 })) expect(logp).toBeLessThan(0);
  },
  "a generator": async () => {
    await using g = await openGenerator({ model, device: "cpu", threads: 2 });
    for await (const { tokens } of g.generate(["Once"], { maxNewTokens: 4, temperature: 1, topK: 0, topP: 1, seed: 1 })) expect(tokens).toBeLessThanOrEqual(4);
  },
};

beforeAll(async () => {
  writeFileSync(texts, '{"text": "Once upon a time"}\n');
  process.env["XDG_CACHE_HOME"] = temporaryFolder();
  await initModel({ configPath: join(recipe, "config.json"), tokenizerDir: recipe, outputDir: model, seed: 1, version: "test" });
});

describe.skipIf(process.platform !== "linux")("threads and open files are what they were, once closed:", () => {
  for (const [name, use] of Object.entries(kinds))
    test(name, async () => {
      await use(); // what is loaded once and stays: the addon, the tokenizer's pool, the background thread
      const before = held();
      for (let i = 0; i < TIMES; i++) await use();
      const after = held();
      // The background thread comes and goes by its own clock: one more is no leak, one for each use is.
      expect(after.threads - before.threads).toBeLessThan(TIMES);
      expect(after.files - before.files).toBeLessThan(TIMES);
    });
});
