// Ten steps of a tiny model on a device and on the CPU: node bench/gpu/beside.mjs sft|dpo float32|bfloat16 cuda|simt. One JSON line: the worst
// relative difference of a loss or gradient norm, and whether a second run on the device gave the same bits.
import fs from "node:fs";
import { recipe, tinyModel, train, workspace } from "./attune.mjs";

const [, , task, dtype, device] = process.argv;
const at = workspace("beside");
tinyModel(at);
fs.writeFileSync(at("data.jsonl"), fs.readFileSync(`${recipe}/data/${task}.jsonl`, "utf8").split("\n").slice(0, 24).join("\n"));

const ten = (on, name) =>
  train(task, {
    model: at("model"), dataset: at("data.jsonl"), output_dir: at(name), max_steps: 10, batch_size: 8, logging_steps: 1, learning_rate: 2e-3,
    tokens_per_batch: 256, dtype, device: on, seed: 3,
  }).map((m) => [m.loss, m.grad_norm]);

const [expected, got, again] = [ten("cpu", "cpu"), ten(device, "first"), ten(device, "second")];
const worst = Math.max(...expected.flatMap((row, i) => row.map((x, j) => Math.abs(got[i][j] - x) / Math.abs(x))));
const allowed = dtype === "float32" ? 1e-4 : 1e-2;
const same = JSON.stringify(got) === JSON.stringify(again);
console.log(JSON.stringify({ task, dtype, steps: got.length, worst, allowed, same_bits: same, verdict: worst <= allowed && same && got.length === 10 ? "ok" : "FAIL" }));
