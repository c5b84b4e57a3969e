// Training steps of a random model on a GPU: node bench/gpu/steps.mjs sft|dpo CONFIG STEPS DEVICE [profile]. One JSON line: the
// median of the steps after the second, and MFU against 989 TFLOP/s (H100 and H200, bf16, dense); with `profile`, what `attune profile` says.
// The peer is bench/peer/torch_steps.py: 16 documents of 2048 tokens, or 16 pairs of 1024 + 2 x 256, a step.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { recipe, root, train, workspace } from "./attune.mjs";
import { writeModel } from "./model.mjs";

const [, , task, configFile, steps, device, profile] = process.argv;
const at = workspace("steps");
let seed = 1;
const draw = (n) => Math.floor(((seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32) * n);
const { model } = JSON.parse(fs.readFileSync(`${recipe}/model/tokenizer.json`, "utf8"));
const words = Object.keys(model.vocab).filter((t) => /^Ġ[a-z]{3,}$/.test(t)); // each of them one token
const text = (n) => Array.from({ length: n }, () => ` ${words[draw(words.length)].slice(1)}`).join("");
const example = () => (task === "sft" ? { text: text(2100) } : { prompt: text(1024), chosen: text(255), rejected: text(255) });
fs.writeFileSync(at("data.jsonl"), Array.from({ length: 16 * Number(steps) }, () => JSON.stringify(example())).join("\n"));
const total = await writeModel(at("model"), configFile, `${recipe}/model`);
const run = {
  model: at("model"), dataset: at("data.jsonl"), output_dir: at("out"), max_steps: Number(steps), batch_size: 16, logging_steps: 1, learning_rate: 1e-5,
  max_length: 2048, dtype: "bfloat16", device, save_strategy: "no",
};
if (profile) {
  fs.writeFileSync(at("run.json"), JSON.stringify({ ...run, task }));
  const { stdout, stderr } = spawnSync(process.execPath, [path.join(root, "dist/cli/main.js"), "profile", at("run.json"), "--steps", "3", "--json"], { encoding: "utf8", maxBuffer: 1 << 28 });
  console.log(stdout.trim() || JSON.stringify({ error: stderr.trim().split("\n").at(-1) }));
} else {
  const metrics = train(task, run);
  const steady = metrics.slice(2).map((m) => m.step_seconds).sort((a, b) => a - b);
  const seconds = steady[steady.length >> 1];
  const rate = task === "sft" ? { tokens_per_second: (16 * 2048) / seconds, ...mfu(seconds) } : { pairs_per_second: 16 / seconds };
  console.log(JSON.stringify({ task, parameters: total, steps: metrics.length, step_seconds: seconds, ...rate, peak_bytes: metrics.at(-1).peak_bytes, loss: metrics.at(-1).loss }));
}

/** 6 x the parameters that multiply (an embedding that is no head does not) and attention's visible pairs, forward and backward. */
function mfu(seconds) {
  const c = JSON.parse(fs.readFileSync(configFile, "utf8"));
  const looked = c.tie_word_embeddings ? 0 : c.vocab_size * c.hidden_size;
  const dim = c.head_dim ?? c.hidden_size / c.num_attention_heads;
  const attention = 3 * 4 * 1024 * c.num_attention_heads * dim * c.num_hidden_layers; // a token sees 1024 on average; backward counts twice, as in 6 N
  const tflops = ((16 * 2048) / seconds) * (6 * (total - looked) + attention) * 1e-12;
  return { tflops, mfu: tflops / 989 };
}
