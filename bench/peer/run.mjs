// attune beside TRL on this machine, in turns: the same rows, both warm, the peer in each of its dtypes.
//   npm run bench:peer -- --python VENV/bin/python [--only sft|dpo|trees] [--repeats 5] [--steps 16] [--ours-only] [--json]
// All of the peer's dtypes run once; its fastest goes on, and the least peak memory of all is what ours is held to. One that takes
// SLOW times as long as float32 (bfloat16 does where the CPU has no such product) is stopped; its speed is counted as far as it came.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { gib, machine, median, printMachine, printTable } from "../report.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const here = (name) => join(root, "bench/peer", name);
const DROPPED = 3; // steps: TRL's first ones run at about half speed
const MOST = 16; // steps that a fixture's rows are enough for
const SLOW = 2;

class Refused extends Error {}
const need = (ok, message) => {
  if (!ok) throw new Refused(message);
};
const text = { type: "string" };
const flag = { type: "boolean" };
const options = {
  python: { ...text, default: join(root, ".venv/bin/python") },
  only: text,
  repeats: { ...text, default: "5" },
  steps: { ...text, default: String(MOST) },
  "ours-only": flag,
  json: flag,
};

const run = promisify(execFile);
/** The last whole line that a command prints, as JSON; of one stopped after `timeout` milliseconds too. */
async function lastLine(command, args, timeout = 0) {
  const { stdout } = await run(command, args, { cwd: root, maxBuffer: 1 << 26, timeout }).catch((error) => {
    if (error.killed && error.stdout.includes("\n")) return error;
    throw error;
  });
  return JSON.parse(stdout.slice(0, stdout.lastIndexOf("\n")).split("\n").at(-1));
}

async function checkPython(python) {
  const names = "torch trl transformers datasets accelerate tokenizers";
  const code = `import importlib.metadata as m; [m.version(n) for n in "${names}".split()]`;
  const why = await run(python, ["-c", code]).then(
    () => undefined,
    (error) => error.stderr?.trim().split("\n").at(-1) || error.message,
  );
  need(
    why === undefined,
    `--python: must be a Python with TRL, got ${python} (${why}). To install the peer:\n` +
      `  python3 -m venv .venv && .venv/bin/pip install -r bench/peer/requirements.txt`,
  );
}

/** The folder of a fixture, made once. */
async function fixture(lengths, python) {
  const maker = createHash("sha256").update(readFileSync(here("fixture.py"))).digest("hex").slice(0, 8);
  const dir = join(root, ".cache/bench", `small-${lengths}-${maker}`);
  if (existsSync(dir)) return dir;
  await checkPython(python);
  console.error(`making the fixture ${dir}`);
  const unfinished = `${dir}.tmp`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  await run(python, [here("fixture.py"), unfinished, "--lengths", lengths]);
  renameSync(unfinished, dir);
  return dir;
}

/** One run of one side: seconds of a warm optimiser step, its share of the reference pass, tokens a second, peak bytes. */
async function measure(side, task, dtype, o) {
  const [command, script] = side === "trl" ? [o.python, "trl_run.py"] : [process.execPath, "our_run.mjs"];
  const given = { task, dtype, steps: o.steps, batch: 4, "max-length": o.maxLength, "learning-rate": 1e-5 };
  const flags = Object.entries(given).flatMap(([k, v]) => [`--${k}`, String(v)]);
  const began = performance.now();
  const r = await lastLine(command, [here(script), o.dir, ...flags, ...(o.more ?? [])], o.timeout);
  const wall = performance.now() - began;
  const made = r.step_seconds.length;
  need(made === o.steps || o.timeout, `${side}: must make ${o.steps} steps, made ${made}`);
  const step = median(r.step_seconds.slice(Math.min(DROPPED, made - 1)));
  const reference = r.epoch_steps ? r.reference_seconds / r.epoch_steps : 0; // TRL's is inside the step
  const speed = r.tokens / made / (step + reference);
  console.error(`  ${task} ${side} ${dtype} ${o.more ?? ""}: ${step.toFixed(3)} + ${reference.toFixed(3)} s a step, ${speed.toFixed(0)} tokens/s, ${gib(r.peak_bytes)} GiB${made < o.steps ? `; stopped after ${made} steps` : ""}`);
  return { ...r, side, dtype, step, reference, speed, wall, made, stopped: made < o.steps, policySpeed: r.tokens / made / step };
}

/** Medians over the runs of one side and dtype. */
const summary = (runs) => ({
  side: runs[0].side,
  dtype: runs[0].dtype,
  runs: runs.length,
  steps: runs[0].made,
  stopped: runs[0].stopped,
  tokens_per_step: runs[0].tokens / runs[0].made,
  tokens_per_second: median(runs.map((r) => r.speed)),
  policy_tokens_per_second: median(runs.map((r) => r.policySpeed)),
  step_seconds: median(runs.map((r) => r.step)),
  reference_seconds: median(runs.map((r) => r.reference)),
  peak_bytes: median(runs.map((r) => r.peak_bytes)),
  losses: runs[0].losses,
  threads: runs[0].threads,
  versions: runs[0].versions,
});

/** One task, A B A B: both of our dtypes, and the peer's (all of them in the first round, the fastest after it). */
async function besideTrl(task, o) {
  const dir = await fixture("mixed", o.python);
  const ours = { float32: [], bfloat16: [] };
  const peer = { float32: [], mixed: [], bfloat16: [] };
  for (let round = 0; round < o.repeats; round++) {
    console.error(`${task}, round ${round + 1} of ${o.repeats}`);
    const fastest = Object.keys(peer).toSorted((a, b) => peer[b][0]?.speed - peer[a][0]?.speed)[0];
    for (const [dtype, runs] of Object.entries(ours)) runs.push(await measure("attune", task, dtype, { ...o, dir, maxLength: 512 }));
    for (const [dtype, runs] of Object.entries(o.oursOnly ? {} : peer))
      if (round === 0 || dtype === fastest) {
        const timeout = dtype === "float32" ? 0 : Math.ceil(SLOW * Math.max(...peer.float32.map((r) => r.wall)));
        runs.push(await measure("trl", task, dtype, { ...o, dir, maxLength: 512, timeout }));
      }
  }
  const rows = [...Object.values(ours), ...Object.values(peer)].flatMap((runs) => (runs.length ? [summary(runs)] : []));
  const counts = [...new Set(rows.filter((r) => r.steps === o.steps).map((r) => r.tokens_per_step))];
  need(counts.length === 1, `${task}: both sides must see the same tokens, got ${counts.join(" and ")} a step`);
  const trl = rows.filter((r) => r.side === "trl");
  if (trl.length === 0) return { task, rows };
  const most = Math.max(...trl.map((r) => r.tokens_per_second));
  const least = Math.min(...trl.filter((r) => r.steps === o.steps).map((r) => r.peak_bytes)); // one step's memory is not a run's peak
  return { task, rows: rows.map((r) => ({ ...r, speed_ratio: r.tokens_per_second / most, memory_ratio: r.peak_bytes / least })) };
}

/** Prompt trees on and off, in turns; ours alone. */
async function trees(o) {
  const dir = await fixture("long-prompt", o.python);
  const [on, off] = [[], []];
  for (let round = 0; round < o.repeats; round++) {
    console.error(`trees, round ${round + 1} of ${o.repeats}`);
    on.push(await measure("attune", "dpo", "float32", { ...o, dir, maxLength: 2048 }));
    off.push(await measure("attune", "dpo", "float32", { ...o, dir, maxLength: 2048, more: ["--no-trees"] }));
  }
  const [a, b] = [{ ...summary(on), trees: true }, { ...summary(off), trees: false }];
  const policy_ratio = a.policy_tokens_per_second / b.policy_tokens_per_second;
  return { task: "trees", rows: [a, b], ratio: a.tokens_per_second / b.tokens_per_second, policy_ratio };
}

function print({ task, rows, ratio, policy_ratio }) {
  const cells = rows.map((r) => [
    `${r.side} ${r.dtype}${r.trees === undefined ? "" : r.trees ? ", trees" : ", no trees"}`,
    r.tokens_per_second.toFixed(0),
    r.speed_ratio?.toFixed(2) ?? "",
    gib(r.peak_bytes),
    r.memory_ratio?.toFixed(2) ?? "",
    r.step_seconds.toFixed(3),
    r.reference_seconds ? r.reference_seconds.toFixed(3) : "",
    `${r.losses[0].toFixed(3)} .. ${r.losses.at(-1).toFixed(3)}`,
    r.stopped ? `stopped after ${r.steps} steps` : `${r.runs}`,
  ]);
  printTable([task, "tokens/s", "x fastest", "peak GiB", "x least", "step s", "+ reference", "loss", "runs"], cells);
  if (ratio) console.log(`trees over no trees: ${ratio.toFixed(2)}x with the reference pass, ${policy_ratio.toFixed(2)}x the step alone`);
  console.log();
}

async function main() {
  const { values } = parseArgs({ options });
  const o = { python: values.python, repeats: Number(values.repeats), steps: Number(values.steps), oursOnly: values["ours-only"] ?? false };
  const parts = values.only === undefined ? ["sft", "dpo", "trees"] : [values.only];
  need(["sft", "dpo", "trees"].includes(parts[0]), `--only: must be sft, dpo or trees, got ${values.only}`);
  need(Number.isInteger(o.repeats) && o.repeats > 0, `--repeats: must be a whole number above 0, got ${values.repeats}`);
  need(Number.isInteger(o.steps) && o.steps > DROPPED && o.steps <= MOST, `--steps: must be ${DROPPED + 1} to ${MOST}, got ${values.steps}`);
  if (!o.oursOnly && parts[0] !== "trees") await checkPython(o.python);
  const on = machine();
  const results = [];
  for (const part of parts) results.push(part === "trees" ? await trees(o) : await besideTrl(part, o));
  const versions = results.flatMap((r) => r.rows).find((r) => r.versions)?.versions;
  if (values.json) return console.log(JSON.stringify({ machine: on, versions, repeats: o.repeats, steps: o.steps, results }));
  printMachine(on, versions);
  console.log(`batch 4, ${o.steps} steps less the first ${DROPPED}, medians of ${o.repeats}; the reference is counted: TRL's is in its step, ours is its share of one epoch\n`);
  results.forEach(print);
}

main().catch((error) => {
  console.error(`bench:peer: ${error instanceof Refused || error.code?.startsWith?.("ERR_PARSE_ARGS") ? error.message : (error.stderr ?? error.stack)}`);
  process.exitCode = error instanceof Refused || error.code?.startsWith?.("ERR_PARSE_ARGS") ? 2 : 1;
});
