// What `attune plan` says beside what a run takes: ten steps of SFT and DPO of random models, each in a process of its own.
//   npm run bench:plan -- [--only tiny,small,135m,135m-bf16,0.5b-bf16,long] [--tasks sft,dpo] [--steps 10] [--json]
// Fails where the arena or the packed weights are not what the plan said to the byte, or the most resident memory is over the plan
// by more than 5 % and 200 MiB. A run that the plan refuses is not started, and what would fit is printed.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = fileURLToPath(new URL("..", import.meta.url));
const recipe = join(root, "examples/quickstart");
const llama = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8"));
const sizes = (hidden, layers, heads, kv, inter, vocab) => ({
  hidden_size: hidden, num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: kv,
  head_dim: hidden / heads, intermediate_size: inter, vocab_size: vocab,
});
const m135 = { ...llama, ...sizes(576, 30, 9, 3, 1536, 49152), tie_word_embeddings: true };
const qwen = {
  ...llama, ...sizes(896, 24, 14, 2, 4864, 151936), architectures: ["Qwen2ForCausalLM"], model_type: "qwen2",
  tie_word_embeddings: true, rope_theta: 1e6, torch_dtype: "bfloat16", use_sliding_window: false,
};
delete qwen.head_dim;
delete qwen.attention_bias;
delete qwen.mlp_bias;
const CASES = {
  tiny: { config: llama, dtype: "float32" },
  "tiny-bf16": { config: llama, dtype: "bfloat16" },
  small: { config: { ...llama, ...sizes(384, 6, 6, 2, 1024, 16384) }, dtype: "float32" },
  "small-bf16": { config: { ...llama, ...sizes(384, 6, 6, 2, 1024, 16384) }, dtype: "bfloat16" },
  "135m": { config: m135, dtype: "float32" },
  "135m-bf16": { config: m135, dtype: "bfloat16" },
  "0.5b-bf16": { config: qwen, dtype: "bfloat16" },
  // one row of 16,384 tokens, and a vocabulary of 152,064
  long: { config: { ...llama, ...sizes(128, 2, 4, 2, 256, 152064), max_position_embeddings: 16384 }, dtype: "float32", rowTokens: 16384, steps: 1 },
};
const TASKS = ["sft", "dpo"];

/** A run in this process: its sizes, as the session counts them, and the most memory that was resident. */
async function real(task, raw) {
  const { resolveConfig } = await import("#lib/train/config.js");
  const { Trainer } = await import("#lib/train/trainer.js");
  const { saveFinal } = await import("#lib/train/save.js");
  const { peakRss } = await import("#lib/runtime/host.js");
  const hooks = { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined };
  const before = peakRss();
  const trainer = await Trainer.create(task, resolveConfig(task, raw).config, hooks);
  let last;
  const start = performance.now();
  while (trainer.step < trainer.totalSteps) last = await trainer.next();
  const seconds = (performance.now() - start) / 1000 / trainer.step;
  await saveFinal(trainer, raw.output_dir);
  const { arenaBytes, derivedBytes, bufferBytes, threadBytes } = trainer.loaded.session;
  console.log(JSON.stringify({ arenaBytes, derivedBytes, bufferBytes, threadBytes, peak: peakRss(), before, seconds, loss: last.loss }));
  await trainer[Symbol.asyncDispose]();
}

if (process.argv[2] === "--run") {
  await real(process.argv[3], JSON.parse(process.argv[4]));
} else {
  const { values: o } = parseArgs({ options: { only: { type: "string", default: Object.keys(CASES).join() }, tasks: { type: "string", default: TASKS.join() }, steps: { type: "string", default: "10" }, json: { type: "boolean", default: false } } });
  const unknown = o.only.split(",").filter((n) => !CASES[n]);
  if (unknown.length) throw new Error(`--only: must be of ${Object.keys(CASES).join(", ")}, got ${unknown.join(", ")}`);
  let bad = 0;
  for (const name of o.only.split(",")) for (const task of o.tasks.split(",")) bad += compare(name, task, o) ? 0 : 1;
  process.exitCode = bad ? 1 : 0;
}

function compare(name, task, o) {
  const { config, dtype, rowTokens, steps = Number(o.steps) } = CASES[name];
  if (rowTokens && task === "dpo") return true; // one long row is SFT's case
  const dir = mkdtempSync(join(tmpdir(), "attune-plan-"));
  try {
    writeFileSync(join(dir, "config.json"), JSON.stringify(config));
    const attune = (...args) => spawnSync(process.execPath, [join(root, "dist/cli/main.js"), ...args], { cwd: dir, encoding: "utf8", maxBuffer: 1 << 28 });
    const made = attune("init", "config.json", "--tokenizer", join(recipe, "model"), "--output_dir", "model", "--dtype", dtype);
    if (made.status !== 0) throw new Error(made.stderr);
    const rows = rowTokens
      ? [JSON.stringify({ text: "What do you like about maps? ".repeat(rowTokens) })]
      : readFileSync(join(recipe, `data/${task}.jsonl`), "utf8").split("\n").slice(0, 4 * steps);
    writeFileSync(join(dir, "rows.jsonl"), rows.join("\n"));
    const raw = { model: join(dir, "model"), dataset: join(dir, "rows.jsonl"), output_dir: join(dir, "out"), max_steps: steps, batch_size: 4, max_length: rowTokens ?? 128, dtype };
    mkdirSync(raw.output_dir);
    const flags = Object.entries(raw).flatMap(([k, v]) => [`--${k}`, String(v)]);
    const planned = attune("plan", ...flags, "--json");
    if (planned.status !== 0 && planned.status !== 4) throw new Error(planned.stderr);
    const plan = JSON.parse(planned.stdout);
    if (!plan.fits) {
      print(o, { case: name, task, planned: plan.total_bytes, verdict: "refused", refusal: plan.refusal });
      return true;
    }
    const env = { ...process.env, XDG_CACHE_HOME: join(dir, "cache") };
    const got = JSON.parse(execFileSync(process.execPath, [fileURLToPath(import.meta.url), "--run", task, JSON.stringify(raw)], { encoding: "utf8", env, stdio: ["ignore", "pipe", "inherit"] }));
    const total = got.arenaBytes + got.derivedBytes + got.bufferBytes + got.threadBytes;
    const allowed = plan.total_bytes + Math.max(0.05 * plan.total_bytes, 200 * 2 ** 20);
    const exact = got.arenaBytes === plan.activations_bytes && got.derivedBytes === plan.packed_weights_bytes && got.threadBytes === plan.thread_scratch_bytes;
    const ok = exact && total <= plan.total_bytes && got.peak <= allowed;
    print(o, {
      case: name, task, planned: plan.total_bytes, arena: got.arenaBytes, exact, session: total, peak_rss: got.peak,
      over_plan: got.peak - plan.total_bytes, node_before: got.before, floor_seconds: plan.floor_step_seconds, step_seconds: got.seconds, loss: got.loss, verdict: ok ? "ok" : "FAILED",
    });
    return ok;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function print(o, row) {
  if (o.json) return console.log(JSON.stringify(row));
  const mib = (n) => `${(n / 2 ** 20).toFixed(0)} MiB`;
  if (row.refusal) return console.log(`${row.case.padEnd(10)} ${row.task}  refused: ${row.refusal}`);
  console.log(
    `${row.case.padEnd(10)} ${row.task}  plan ${mib(row.planned)}  arena ${mib(row.arena)} ${row.exact ? "exact" : "NOT EXACT"}  peak RSS ${mib(row.peak_rss)} (${row.over_plan < 0 ? "" : "+"}${mib(row.over_plan)}; Node before: ${mib(row.node_before)})  step ${row.step_seconds.toFixed(2)} s, floor ${row.floor_seconds.toFixed(2)} s  loss ${row.loss.toFixed(3)}  ${row.verdict}`,
  );
}
