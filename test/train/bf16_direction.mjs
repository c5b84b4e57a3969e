// Does a bfloat16 run learn what a float32 run learns? Trains a folder's dpo.jsonl in both and prints the cosine between the two changes
// of all weights.   npm run prove:bf16 -- FOLDER [--steps 50] [--batch 4] [--learning-rate 1e-6]
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { DPOTrainer } from "#lib/index.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { steps: { type: "string", default: "50" }, batch: { type: "string", default: "4" }, "learning-rate": { type: "string", default: "1e-6" } },
});
const [folder] = positionals;
const scratch = mkdtempSync(join(tmpdir(), "attune-bf16-"));
process.on("exit", () => rmSync(scratch, { recursive: true }));

/** Tensors of a single float32 safetensors file. */
function tensors(dir) {
  const file = readFileSync(join(dir, "model.safetensors"));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const { __metadata__: _, ...header } = JSON.parse(file.subarray(8, start).toString());
  return new Map(
    Object.entries(header).map(([name, t]) => {
      if (t.dtype !== "F32") throw new Error(`${dir}: ${name} must be F32, got ${t.dtype}`);
      return [name, new Float32Array(file.buffer.slice(file.byteOffset + start + t.data_offsets[0], file.byteOffset + start + t.data_offsets[1]))];
    }),
  );
}
async function train(dtype, steps) {
  const out = join(scratch, `${dtype}-${steps}`);
  const trainer = await DPOTrainer.create({
    model: folder, dataset: join(folder, "dpo.jsonl"), outputDir: out, dtype, saveDtype: "float32", beta: 0.1, maxLength: 512, maxSteps: Math.max(1, steps),
    batchSize: Number(values.batch), learningRate: Number(values["learning-rate"]), lrSchedulerType: "constant", shuffle: false,
  });
  if (steps > 0) await trainer.train();
  await trainer.save(out);
  await trainer[Symbol.asyncDispose]();
  return tensors(out);
}
const steps = Number(values.steps);
const [start, full, half] = [await train("float32", 0), await train("float32", steps), await train("bfloat16", steps)];
let [dot, a, b, still, count] = [0, 0, 0, 0, 0];
for (const [name, w] of start) {
  const [p, q] = [full.get(name), half.get(name)];
  for (let i = 0; i < w.length; i++) {
    const [x, y] = [p[i] - w[i], q[i] - w[i]];
    dot += x * y;
    a += x * x;
    b += y * y;
    still += y === 0;
    count++;
  }
}
console.log(JSON.stringify({ steps, cosine: dot / Math.sqrt(a * b), float32_change: Math.sqrt(a), bfloat16_change: Math.sqrt(b), unchanged_in_bfloat16: still / count }));
