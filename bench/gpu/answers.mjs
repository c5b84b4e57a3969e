// Answers and log-probabilities of a tiny model on a device and on the CPU, in float32: node bench/gpu/answers.mjs cuda|simt. One JSON line:
// whether the likeliest tokens are the same, the worst difference of a token's log-probability, and whether `auto` takes the device (never simt).
import fs from "node:fs";
import "#lib/ops/index.js";
import { deviceOf } from "#lib/runtime/host.js";
import { attune, recipe, tinyModel, workspace } from "./attune.mjs";

const [, , device] = process.argv;
const at = workspace("answers");
tinyModel(at);
const prompts = fs.readFileSync(`${recipe}/data/dpo.jsonl`, "utf8").split("\n").slice(0, 6).map((l) => JSON.parse(l));
fs.writeFileSync(at("rows.jsonl"), prompts.map(({ prompt, chosen }) => JSON.stringify({ prompt: prompt[0].content, completion: chosen[0].content })).join("\n"));
const on = (name) => {
  const model = ["--model", at("model"), "--device", name, "--dtype", "float32"];
  const lines = (text) => text.trim().split("\n").map((l) => JSON.parse(l));
  const answers = attune("generate", ...model, "--prompt", "The llama", "--prompt", "What is", "--max_new_tokens", "24", "--json");
  return { answers: lines(answers).map((a) => a.completion), logps: lines(attune("score", ...model, "--data", at("rows.jsonl"))).flatMap((s) => s.logps) };
};
const [expected, got] = [on("cpu"), on(device)];
const same = JSON.stringify(expected.answers) === JSON.stringify(got.answers);
const worst = Math.max(...expected.logps.map((x, i) => Math.abs(x - got.logps[i])));
const auto = deviceOf("auto");
const taken = auto === (device === "simt" ? "cpu" : device);
console.log(JSON.stringify({ tokens: expected.logps.length, same_answers: same, worst_logp: worst, allowed_logp: 1e-4, auto, verdict: taken && same && worst <= 1e-4 && expected.logps.length > 20 ? "ok" : "FAIL" }));
