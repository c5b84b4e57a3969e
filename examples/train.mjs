// SFT, then DPO, from a script: a small random model learns to answer, then which answers are preferred.
//
//     node examples/train.mjs [--model DIR] [--sft ROWS] [--dpo ROWS] [--out DIR] [--steps N]
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { DPOTrainer, initModel, SFTTrainer } from "attune";

const quickstart = fileURLToPath(new URL("quickstart/", import.meta.url));
const { values: o } = parseArgs({
  options: {
    model: { type: "string" },
    sft: { type: "string", default: join(quickstart, "data/sft.jsonl") },
    dpo: { type: "string", default: join(quickstart, "data/dpo.jsonl") },
    out: { type: "string", default: "runs/train" },
    steps: { type: "string", default: "20" },
  },
});

let model = o.model;
if (model === undefined) {
  model = join(o.out, "init");
  const recipe = join(quickstart, "model");
  if (!existsSync(join(model, "config.json")))
    await initModel({ configPath: join(recipe, "config.json"), tokenizerDir: recipe, outputDir: model, seed: 1, version: "example" });
}

const common = { maxSteps: Number(o.steps), batchSize: 8, maxLength: 256 };

/** Train to the end, show each step by `line`, save into `dir`. */
async function run(trainer, dir, line) {
  try {
    for await (const m of trainer) console.log(line(m));
    await trainer.save(dir);
  } finally {
    await trainer.close();
  }
}

const [sft, dpo] = [join(o.out, "sft"), join(o.out, "dpo")];
await run(
  await SFTTrainer.create({ ...common, model, dataset: o.sft, assistantOnlyLoss: true, learningRate: 1e-3 }),
  sft,
  (m) => `sft  step ${m.step}  loss ${m.loss.toFixed(4)}  accuracy ${m.mean_token_accuracy.toFixed(3)}`,
);
await run(
  await DPOTrainer.create({ ...common, model: sft, dataset: o.dpo, beta: 0.1, learningRate: 5e-5 }),
  dpo,
  (m) => `dpo  step ${m.step}  loss ${m.loss.toFixed(4)}  margin ${m["rewards/margins"].toFixed(4)}`,
);
console.log(`saved ${dpo}: npx attune chat ${dpo}`);
