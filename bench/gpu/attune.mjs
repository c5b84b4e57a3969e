// What the benches that run the command share: a folder of their own, and `attune` in a process that must end well.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const recipe = path.join(root, "examples/quickstart");

/** A new folder, gone when the process ends; `at` names what is in it. */
export function workspace(name) {
  const dir = fs.mkdtempSync(path.join(process.env.ATTUNE_WORK ?? os.tmpdir(), `${name}-`));
  process.on("exit", () => fs.rmSync(dir, { recursive: true, force: true }));
  return (file) => path.join(dir, file);
}

/** What it printed. */
export function attune(...args) {
  const r = spawnSync(process.execPath, [path.join(root, "dist/cli/main.js"), ...args], { encoding: "utf8", maxBuffer: 2 ** 28 });
  if (r.status !== 0) throw new Error(`attune ${args[0]}: ${r.stderr.trim().split("\n").at(-1)}`);
  return r.stdout;
}

/** The tiny model of the checks beside the CPU, in the folder `at("model")`. */
export function tinyModel(at) {
  const config = JSON.parse(fs.readFileSync(`${recipe}/model/config.json`, "utf8"));
  Object.assign(config, { num_hidden_layers: 2, hidden_size: 128, intermediate_size: 192, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 64 });
  fs.writeFileSync(at("config.json"), JSON.stringify(config));
  attune("init", "--config", at("config.json"), "--tokenizer", `${recipe}/model`, "--output_dir", at("model"), "--seed", "1");
}

/** `attune TASK` on a run file of these settings. What metrics.jsonl says of its steps. */
export function train(task, settings) {
  const file = `${settings.output_dir}.json`;
  fs.writeFileSync(file, JSON.stringify(settings));
  attune(task, file);
  const lines = fs.readFileSync(path.join(settings.output_dir, "metrics.jsonl"), "utf8").trim().split("\n");
  return lines.map((l) => JSON.parse(l)).filter((m) => m.loss !== undefined && m.step_seconds !== undefined);
}
