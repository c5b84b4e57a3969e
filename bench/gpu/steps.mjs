// Steps of a random model of 0.5B on a GPU: node bench/gpu/steps.mjs sft|dpo TOKENS_PER_BATCH STEPS DEVICE. One JSON line: the median of the
// steps after the second. The peer is bench/peer/torch_steps.py: 16 documents of 2048 tokens, or 16 pairs of 1024 + 2 x 256, a step.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const tokenizer = path.join(root, "examples/quickstart/model");
const [, , task, budget, steps, device] = process.argv;
const dir = fs.mkdtempSync(path.join(process.env.ATTUNE_WORK ?? "/tmp", "steps-"));
const at = (name) => path.join(dir, name);

function attune(...args) {
  const r = spawnSync(process.execPath, [path.join(root, "dist/cli/main.js"), ...args], { encoding: "utf8" });
  if (r.status !== 0) throw new Error(`attune ${args[0]}: ${r.stderr.trim().split("\n").at(-1)}`);
}

let seed = 1;
const draw = (n) => Math.floor(((seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32) * n);
const { model } = JSON.parse(fs.readFileSync(path.join(tokenizer, "tokenizer.json"), "utf8"));
const words = Object.keys(model.vocab).filter((t) => /^Ġ[a-z]{3,}$/.test(t)); // each of them one token
const text = (n) => Array.from({ length: n }, () => ` ${words[draw(words.length)].slice(1)}`).join("");
const example = () => (task === "sft" ? { text: text(2100) } : { prompt: text(1024), chosen: text(255), rejected: text(255) });
fs.writeFileSync(at("data.jsonl"), Array.from({ length: 16 * Number(steps) }, () => JSON.stringify(example())).join("\n"));
attune("init", "--config", path.join(root, "bench/gpu/qwen-0.5b.json"), "--tokenizer", tokenizer, "--output_dir", at("model"), "--seed", "1");
const run = {
  model: at("model"), dataset: at("data.jsonl"), output_dir: at("out"), max_steps: Number(steps), batch_size: 16, logging_steps: 1, learning_rate: 1e-5,
  tokens_per_batch: Number(budget), max_length: 2048, dtype: "bfloat16", device, save_strategy: "no",
};
fs.writeFileSync(at("run.json"), JSON.stringify(run));
attune(task, at("run.json"));
const metrics = fs.readFileSync(at("out/metrics.jsonl"), "utf8").trim().split("\n").map((l) => JSON.parse(l)).filter((m) => m.step_seconds > 0);
const steady = metrics.slice(2).map((m) => m.step_seconds).sort((a, b) => a - b);
const seconds = steady[steady.length >> 1];
const rate = task === "sft" ? { tokens_per_second: (16 * 2048) / seconds } : { pairs_per_second: 16 / seconds };
console.log(JSON.stringify({ task, steps: metrics.length, step_seconds: seconds, ...rate, peak_bytes: metrics.at(-1).peak_bytes, loss: metrics.at(-1).loss }));
fs.rmSync(dir, { recursive: true });
