// What a run saves is what it trained, bit for bit: read back from the folder, every parameter equals the one in the session.
// That transformers reads the same from it: test/io/trained_folders.mjs with check_trained.py.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { loadModel, readWeights } from "#lib/engine/model.js";
import { Scorer } from "#lib/engine/scorer.js";
import { resolveConfig } from "#lib/train/config.js";
import { writeModel } from "#lib/train/save.js";
import { Trainer } from "#lib/train/trainer.js";

const oracle = new URL("../fixtures/oracle/steps/", import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), "attune-saved-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe.each(["tied", "untied"])("a model with its head %s", (head) => {
  const model = join(dir, head);
  cpSync(join(oracle, "models", head), model, { recursive: true });
  cpSync(join(oracle, "tokenizers/plain"), model, { recursive: true });

  test.each(["float32", "bfloat16"] as const)("trained in %s", async (dtype) => {
    const raw = { model, dataset: join(oracle, "sft.jsonl"), output_dir: dir, max_steps: 3, batch_size: 4, learning_rate: 1e-3, dtype, save_dtype: "float32", device: "cpu" };
    const hooks = { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined };
    await using trainer = await Trainer.create("sft", resolveConfig("sft", raw).config, hooks);
    const exact = dtype === "float32" ? "weights/" : "optimizer/master/";
    const before = await trainer.loaded.session.read(`${exact}model.norm.weight`);
    for await (const _ of trainer);
    const out = join(dir, `${head}-${dtype}`);
    mkdirSync(out);
    await writeModel(trainer, out);
    expect(readdirSync(out)).toContain("model.safetensors");
    const saved = await loadModel(out, { device: "cpu", dtype: "float32" });
    try {
      await Scorer.create(saved, { tokens: 16, rows: 16 }); // what allocates the weights
      await readWeights(saved);
      for (const { name } of trainer.loaded.parameters)
        expect(await saved.session.read(`weights/${name}`), name).toEqual(await trainer.loaded.session.read(exact + name));
      expect(await saved.session.read("weights/model.norm.weight")).not.toEqual(before);
    } finally {
      await saved.session.close();
    }
  });
});
