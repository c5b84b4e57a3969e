// Trains every model of test/fixtures/oracle for three steps and saves each as people may want it; check_trained.py then holds
// transformers' log-probabilities of the saved folders to ours.   node test/io/trained_folders.mjs OUT && python test/io/check_trained.py OUT
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { scoreRows } from "#lib/evaluate/score.js";
import { saveModelFiles } from "#lib/io/save_model.js";
import { resolveOptions } from "#lib/train/config.js";
import { Trainer } from "#lib/train/trainer.js";

const oracle = fileURLToPath(new URL("../fixtures/oracle/", import.meta.url));
const out = process.argv[2];
process.env.XDG_CACHE_HOME = join(out, "cache");
mkdirSync(out, { recursive: true });
const letters = (n, k) => Array.from({ length: n }, (_, i) => String.fromCharCode(97 + ((i * i * k + 3 * i) % 20))).join("");
const data = join(out, "rows.jsonl");
writeFileSync(data, Array.from({ length: 12 }, (_, i) => `${JSON.stringify({ text: letters(5 + 2 * i, i + 1) })}\n`).join("")); // ids below every vocabulary
const signal = new AbortController().signal;
const hooks = { signal, onStage: () => {}, log: () => {} };

/** The spelling of transformers 4. */
function respell(file) {
  const { rope_parameters, dtype, ...rest } = JSON.parse(readFileSync(file, "utf8"));
  const { rope_theta, ...scaling } = rope_parameters;
  writeFileSync(file, JSON.stringify({ ...rest, rope_theta, rope_scaling: scaling.rope_type === "default" ? null : scaling, torch_dtype: dtype }));
}
const bases = [...readdirSync(join(oracle, "scores")).map((n) => `scores/${n}`), "steps/models/tied", "steps/models/untied"];
for (const base of bases)
  for (const [variant, dtype, run] of [["single", "float32", "float32"], ["sharded", "float32", "float32"], ["old", "float32", "float32"], ["half", "bfloat16", "float32"], ["f16", "float16", "float32"], ["masters", "float32", "bfloat16"]]) {
    const name = `${base.split("/").at(-1)}-${variant}`;
    const model = join(out, "bases", name);
    cpSync(join(oracle, base), model, { recursive: true });
    cpSync(join(oracle, "steps/tokenizers/plain"), model, { recursive: true });
    if (variant === "old") respell(join(model, "config.json"));
    const { config } = resolveOptions("sft", { model, dataset: data, outputDir: join(out, "runs"), dtype: run, maxSteps: 3, batchSize: 4, learningRate: 1e-2, lrSchedulerType: "constant" });
    const trainer = await Trainer.create("sft", config, hooks);
    for await (const _ of trainer);
    const dir = join(out, "saved", name);
    mkdirSync(dir, { recursive: true });
    const writes = await saveModelFiles(dir, {
      base: trainer.loaded.model, parameters: trainer.loaded.parameters, dtype, stopTokenIds: [2], card: { task: "sft", baseModel: base, version: "0" },
      bufferPrefix: run === "float32" ? "weights/" : "optimizer/master/", ...(variant === "sharded" && { maxShardBytes: 40_000 }),
    });
    await trainer.loaded.session.writeFiles(writes);
    await trainer[Symbol.asyncDispose]();
    const rows = Array.from({ length: 6 }, (_, i) => ({ input_ids: Array.from({ length: 4 + 9 * i }, (_, t) => (t * t * (i + 2) + 5 * t) % 89) }));
    writeFileSync(join(dir, "rows.jsonl"), rows.map((r) => `${JSON.stringify(r)}\n`).join(""));
    const scored = [];
    const options = { model: dir, data: join(dir, "rows.jsonl"), device: "cpu", dtype: "float32", threads: null, skipInvalid: false, tokensPerBatch: null };
    for await (const s of scoreRows(options, hooks)) scored.push(JSON.stringify({ ...rows[s.row], logps: Array.from(s.logps) }));
    writeFileSync(join(dir, "scored.jsonl"), `${scored.join("\n")}\n`);
  }
