// Ten steps of a tiny model on a device and on the CPU: node bench/gpu/beside.mjs sft|dpo float32|bfloat16 cuda|simt. One JSON line: the worst
// relative difference of a loss or gradient norm, that of all final weights, and whether a second run on the device gave the same bits.
import fs from "node:fs";
import { recipe, tinyModel, train, workspace } from "./attune.mjs";

const [, , task, dtype, device] = process.argv;
const at = workspace("beside");
tinyModel(at);
fs.writeFileSync(at("data.jsonl"), fs.readFileSync(`${recipe}/data/${task}.jsonl`, "utf8").split("\n").slice(0, 24).join("\n"));

/** The run's losses and norms, and the bytes of its model. */
const ten = (on, name) => {
  const metrics = train(task, {
    model: at("model"), dataset: at("data.jsonl"), output_dir: at(name), max_steps: 10, batch_size: 8, logging_steps: 1, learning_rate: 2e-3,
    tokens_per_batch: 256, dtype, device: on, seed: 3,
  });
  return { rows: metrics.map((m) => [m.loss, m.grad_norm]), file: fs.readFileSync(at(`${name}/model.safetensors`)) };
};

/** ||a - b|| / ||b|| over the elements of two safetensors of one layout. */
function apart(a, b) {
  const [x, y] = [a, b].map((file) => {
    const head = 8 + Number(file.readBigUInt64LE(0));
    const data = new Uint8Array(file.subarray(head)).buffer;
    return file.toString("utf8", 8, head).includes('"BF16"') ? new Float32Array(Uint32Array.from(new Uint16Array(data), (v) => v << 16).buffer) : new Float32Array(data);
  });
  let [difference, whole] = [0, 0];
  y.forEach((v, i) => ((difference += (x[i] - v) ** 2), (whole += v * v)));
  return Math.sqrt(difference / whole);
}

const [expected, got, again] = [ten("cpu", "cpu"), ten(device, "first"), ten(device, "second")];
const worst = Math.max(...expected.rows.flatMap((row, i) => row.map((x, j) => Math.abs(got.rows[i][j] - x) / Math.abs(x))));
const weights = apart(got.file, expected.file);
const allowed = dtype === "float32" ? 1e-4 : 1e-2;
const same = JSON.stringify(got.rows) === JSON.stringify(again.rows) && got.file.equals(again.file);
const good = worst <= allowed && weights <= allowed && same && got.rows.length === 10;
console.log(JSON.stringify({ task, dtype, steps: got.rows.length, worst, weights, allowed, same_bits: same, verdict: good ? "ok" : "FAIL" }));
