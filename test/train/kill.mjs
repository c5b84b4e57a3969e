// Runs killed with SIGKILL at random moments and resumed, until they are done, equal the run that was never killed, bit for bit: final
// weights, the optimiser state of every checkpoint, metrics.jsonl but for clock and memory fields.
//   npm run test:kill -- [--kills 50] [--seed 1] [--keep]
// A kill is aimed at a kind of moment (in a save, in the reference pass, ...) and then said to be where the folder shows that it struck.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, watch, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = fileURLToPath(new URL("../..", import.meta.url));
const main = join(root, "dist/cli/main.js");
const recipe = join(root, "examples/quickstart");
const ROWS = 160; // DPO's reference comes in three groups of rows
const STEPS = 12;

/** xorshift32: the same moments for the same seed, as far as clocks allow. */
function random(seed) {
  let s = (seed * 0x9e3779b9) >>> 0 || 1;
  return () => {
    s ^= s << 13;
    s >>>= 0;
    s ^= s >>> 17;
    s ^= s << 5;
    return (s >>>= 0) / 2 ** 32;
  };
}

/** Starts a command; `aim(child)` may end it. Resolves when it is over. */
function start(args, env, aim) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (t) => (stderr += t));
    child.stdout.setEncoding("utf8").resume();
    const done = aim?.(child);
    child.on("error", reject);
    child.on("close", (code, signal) => {
      done?.();
      resolve({ code, signal, stderr });
    });
  });
}

/** Kinds of moments: when `aim` sends SIGKILL. */
function aims(next, out, cache, times) {
  const later = (child, ms) => setTimeout(() => child.kill("SIGKILL"), ms);
  const at = (ms) => (child) => {
    const timer = later(child, ms);
    return () => clearTimeout(timer);
  };
  /** Some milliseconds after the nth sign that `dir` has a file whose name matches. */
  const on = (dir, name, nth, ms) => (child) => {
    mkdirSync(dir, { recursive: true });
    let seen = 0;
    const watcher = watch(dir, (_, file) => {
      if (file && name.test(file) && ++seen === nth) later(child, ms);
    });
    return () => watcher.close();
  };
  const whole = (n) => 1 + Math.floor(next() * n);
  return {
    anywhere: () => at(next() * times.whole),
    start: () => at(next() * times.first),
    tokenising: () => on(cache, /./, whole(2), next() * 20),
    reference: () => on(cache, /^reference-/, whole(3), next() * 40),
    save: () => on(out, /^checkpoint-\d+\.tmp/, whole(2 * STEPS - 2), next() * 15),
    step: () => (child) => {
      let lines = 0;
      const [nth, ms] = [whole(STEPS - 1), next() * times.step * 2];
      child.stdout.on("data", (t) => {
        const before = lines;
        lines += t.split("\n").length - 1;
        if (before < nth && lines >= nth) later(child, ms);
      });
    },
    final: () => on(out, /^\.files\.tmp|^model\.safetensors/, whole(2), next() * 15),
  };
}

/** Where a kill struck, by what it left. */
function struck(out, cache) {
  const names = existsSync(out) ? readdirSync(out) : [];
  const lines = names.includes("metrics.jsonl") ? readFileSync(join(out, "metrics.jsonl"), "utf8").split("\n").length - 1 : 0;
  const cached = existsSync(cache) ? readdirSync(cache) : [];
  if (names.some((n) => n.startsWith(".files.tmp"))) return "in the final save";
  if (names.some((n) => /^checkpoint-\d+\.tmp/.test(n))) return "in a save";
  if (lines > 0) return `after line ${lines} of the metrics`;
  if (cached.some((n) => n.startsWith("reference-"))) return "in or after the reference pass";
  if (cached.length) return "in or after tokenising";
  return names.includes("config.yaml") ? "before the data" : "before the folder";
}

const CLOCKS = new Set(["step_seconds", "tokens_per_second", "peak_bytes", "train_runtime", "train_steps_per_second", "train_tokens_per_second", "train_samples_per_second", "reference_seconds"]);
const isClock = (key) => CLOCKS.has(key) || /^eval_(runtime|.*_per_second)$/.test(key);
const sha = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");

/** All that must not depend on kills: file by file. */
function outcome(out) {
  const result = {};
  for (const name of readdirSync(out).sort()) {
    if (name === "report.html" || name === "config.yaml") continue; // clocks, and the folder's own name
    if (name === "metrics.jsonl") {
      const lines = readFileSync(join(out, name), "utf8").trimEnd().split("\n").map((l) => JSON.parse(l));
      lines.forEach((l, i) => (result[`${name}:${i + 1}`] = JSON.stringify(Object.entries(l).filter(([k]) => !isClock(k)))));
    } else if (name.startsWith("checkpoint-")) {
      for (const file of readdirSync(join(out, name))) if (file !== "state.json") result[`${name}/${file}`] = sha(join(out, name, file));
    } else result[name] = sha(join(out, name));
  }
  result.report = String(existsSync(join(out, "report.html")));
  return result;
}

function difference(a, b) {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((k) => a[k] !== b[k]);
}

/** A folder with a model and rows, and the flags of each kind of run. */
async function prepare(dir) {
  const config = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8"));
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 2, hidden_size: 64, intermediate_size: 96 }));
  for (const task of ["sft", "dpo"])
    for (const [name, from] of [["rows", 0], ["eval", ROWS]])
      writeFileSync(join(dir, `${task}.${name}.jsonl`), readFileSync(join(recipe, `data/${task}.jsonl`), "utf8").split("\n").slice(from, from + (from ? 20 : ROWS)).join("\n"));
  const made = await start(["init", join(dir, "config.json"), "--tokenizer", join(recipe, "model"), "--output_dir", join(dir, "model")], {});
  if (made.code !== 0) throw new Error(made.stderr);
  const kinds = ["sft", "dpo"].flatMap((task) => ["float32", "bfloat16"].map((dtype) => ({ task, dtype, name: `${task} ${dtype}` })));
  const args = ({ task, dtype }, out) => [
    task, "--model", join(dir, "model"), "--dataset", join(dir, `${task}.rows.jsonl`), "--output_dir", out, "--dtype", dtype, "--json", "--resume",
    ...(dtype === "float32" ? ["--eval_dataset", join(dir, `${task}.eval.jsonl`), "--eval_steps", "2"] : []),
    ...["--max_steps", STEPS, "--batch_size", 8, "--tokens_per_batch", 256, "--learning_rate", 1e-3, "--logging_steps", 1, "--save_steps", 1].map(String),
  ];
  return { kinds, args };
}

/** Kills `kills` times; returns what struck where, and throws at the first difference. */
export async function killRuns({ kills, seed = 1, log = () => undefined, keep = false }) {
  const dir = mkdtempSync(join(tmpdir(), "attune-kill-"));
  const next = random(seed);
  const tally = {};
  try {
    const { kinds, args } = await prepare(dir);
    const whole = new Map();
    for (const kind of kinds.slice(0, kills < 4 ? kills : 4)) {
      const [out, cache] = [join(dir, `whole-${kind.name}`), join(dir, `whole-cache-${kind.name}`)];
      const began = performance.now();
      let first = 0;
      const ran = await start(args(kind, out), { XDG_CACHE_HOME: cache }, (child) => void child.stdout.once("data", () => (first = performance.now() - began)));
      if (ran.code !== 0) throw new Error(`never killed, ${kind.name}: ${ran.stderr}`);
      const all = performance.now() - began;
      whole.set(kind, { outcome: outcome(out), times: { whole: all, first, step: (all - first) / STEPS } });
      log(`${kind.name}: never killed, ${(all / 1000).toFixed(1)} s`);
    }
    const runs = [...whole.keys()];
    for (let run = 0, done = 0; done < kills; run++) {
      const kind = runs[run % runs.length];
      const [out, home] = [join(dir, `run-${run}`), join(dir, `cache-${run}`)];
      const cache = join(home, "attune");
      const wishes = aims(next, out, cache, whole.get(kind).times);
      const places = [];
      for (let attempt = 0, most = 1 + Math.floor(next() * 3); attempt < most && done < kills; attempt++) {
        const wish = Object.keys(wishes)[Math.floor(next() * Object.keys(wishes).length)];
        const ran = await start(args(kind, out), { XDG_CACHE_HOME: home }, wishes[wish]());
        if (ran.signal !== "SIGKILL") {
          if (ran.code !== 0) throw new Error(`run ${run} (${kind.name}), killed ${places.join(", ") || "never"}: resumed, it failed: ${ran.stderr}`);
          break; // it was done before the moment came
        }
        const place = struck(out, cache);
        places.push(place);
        tally[place.replace(/ line \d+/, " a line")] = (tally[place.replace(/ line \d+/, " a line")] ?? 0) + 1;
        done++;
      }
      const end = await start(args(kind, out), { XDG_CACHE_HOME: home });
      if (end.code !== 0) throw new Error(`run ${run} (${kind.name}), killed ${places.join(", ")}: resumed, it failed: ${end.stderr}`);
      const differs = difference(whole.get(kind).outcome, outcome(out));
      log(`run ${run} (${kind.name}) killed ${places.join(", then ") || "too late"}: ${differs.length ? `DIFFERS in ${differs.join(", ")}` : "identical"}`);
      if (differs.length) throw new Error(`run ${run} (${kind.name}), seed ${seed}: differs from the run never killed in ${differs.join(", ")}`);
      if (!keep) for (const d of [out, home]) rmSync(d, { recursive: true, force: true });
    }
    return tally;
  } finally {
    if (keep) log(`kept in ${dir}`);
    else rmSync(dir, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values: o } = parseArgs({ options: { kills: { type: "string", default: "50" }, seed: { type: "string", default: "1" }, keep: { type: "boolean", default: false } } });
  const tally = await killRuns({ kills: Number(o.kills), seed: Number(o.seed), keep: o.keep, log: console.log });
  console.log(`${Object.values(tally).reduce((a, b) => a + b, 0)} kills, all identical: ${Object.entries(tally).map(([k, n]) => `${n} ${k}`).join(", ")}`);
}
