// A model folder with random weights, written at the disk's speed: what a bench starts from where `attune init` would draw each weight by itself.
// Matrices repeat 2^20 + 7 normal numbers (so no two rows agree), so products see random data; norms are ones, biases zeros.
import fs from "node:fs";
import path from "node:path";
import { floatBytes } from "#lib/io/float_bytes.js";
import { saveModelFiles } from "#lib/io/save_model.js";
import { readJson } from "#lib/io/json.js";
import { tokenizerFilesOf } from "#lib/io/model_folder.js";
import { normals } from "#lib/io/philox.js";
import { parameters, parseConfig } from "#lib/models/config.js";

const BLOCK = 2 ** 20 + 7;

/** Writes `dir` from a config.json and a tokenizer folder. The number of parameters. */
export async function writeModel(dir, configPath, tokenizer) {
  const configJson = await readJson(configPath);
  const config = parseConfig(configJson.value, path.dirname(configPath));
  const list = parameters(config);
  fs.mkdirSync(dir, { recursive: true });
  const base = { dir: tokenizer, configJson, config, tokenizerFiles: await tokenizerFilesOf(tokenizer), generationConfig: null };
  const card = { task: "init", baseModel: "bench", version: "0", settings: [] };
  const writes = await saveModelFiles(dir, { base, parameters: list, dtype: "bfloat16", stopTokenIds: [], card });
  const block = new Float32Array(BLOCK + 1);
  normals(block, 0, config.initializerRange, 1, [1, 0]);
  const drawn = floatBytes(block.subarray(0, BLOCK), "bfloat16");
  const ones = floatBytes(new Float32Array(2 ** 16).fill(1), "bfloat16");
  let total = 0;
  for (const p of list) {
    const columns = p.shape.slice(1).reduce((a, b) => a * b, 1);
    total += p.shape.reduce((a, b) => a * b, 1);
    if (p.init === "zeros") continue; // the files were made of zeros
    const from = p.init === "ones" ? ones : drawn;
    for (const w of writes.filter((x) => x.buffer === `weights/${p.name}`)) {
      const file = fs.openSync(w.path, "r+");
      const bytes = w.rows * columns * 2;
      for (let at = 0; at < bytes; at += from.length) fs.writeSync(file, from, 0, Math.min(from.length, bytes - at), w.fileOffset + at);
      fs.closeSync(file);
    }
  }
  return total;
}
