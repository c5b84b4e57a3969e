// Times any op of the registry at any shape, beside what this machine can do at most. npm run bench -- attention --tokens 4096 --mask tree
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { kernelOps } from "#lib/ir/op.js";
import { tableHash } from "#lib/program/encode.js";
import { Session } from "#lib/runtime/session.js";
import { closest } from "#lib/train/config_hints.js";
import { benchOp, readBy, runOnce, sizes } from "./op_run.mjs";
import { machine, printMachine, printTable } from "./report.mjs";

const choices = { mask: ["causal", "packed", "tree", "window"], form: ["forward", "dx", "dw"], dtype: ["float32", "bfloat16"] };
const flagOf = (size) => size.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
const flags = Object.keys(sizes).filter((k) => k !== "kvHeads").map(flagOf);
const others = { device: "string", threads: "string", seconds: "string", compare: "string", once: "boolean", json: "boolean", all: "boolean", help: "boolean" };

class Usage extends Error {}
const mean = (given, among) => {
  const near = closest(given, among);
  return near ? ` (did you mean ${near}?)` : "";
};

function whole(flag, text) {
  if (!/^[1-9]\d*$/.test(text)) throw new Usage(`--${flag}: must be a whole number of at least 1, got ${text}`);
  return Number(text);
}

/** The sizes asked for, checked; what is left out has its default. */
function sizesOf(values) {
  const asked = { ...sizes };
  for (const [k, usual] of Object.entries(sizes)) {
    const flag = flagOf(k);
    const text = values[flag];
    if (text === undefined) continue;
    if (k === "heads") {
      const [heads, kvHeads = heads] = text.split("/").map((t) => whole(flag, t));
      if (heads % kvHeads) throw new Usage(`--heads: must be H/K with H a multiple of K, got ${text}`);
      Object.assign(asked, { heads, kvHeads });
    } else if (typeof usual === "number") asked[k] = whole(flag, text);
    else if (!choices[k].includes(text)) throw new Usage(`--${flag}: must be ${choices[k].join(" or ")}, got ${text}${mean(text, choices[k])}`);
    else asked[k] = text;
  }
  return asked;
}

function parse(argv) {
  const options = Object.fromEntries([...flags.map((f) => [f, { type: "string" }]), ...Object.entries(others).map(([f, kind]) => [f, { type: kind }])]);
  const { values, positionals, tokens } = parseArgs({ args: argv, options, strict: false, allowPositionals: true, tokens: true });
  for (const t of tokens) {
    if (t.kind !== "option") continue;
    if (!(t.name in options)) throw new Usage(`--${t.name}: no such flag${mean(t.name, Object.keys(options))}`);
    if (options[t.name].type === "string" && t.value === undefined) throw new Usage(`--${t.name}: must have a value, got none`);
  }
  const ops = kernelOps();
  const names = ops.map((d) => d.name);
  for (const name of positionals) if (!names.includes(name)) throw new Usage(`op: must be one of the registry's, got ${name}${mean(name, names)}; without an op the list is shown`);
  const chosen = ops.filter((d) => values.all || positionals.includes(d.name));
  const used = new Set([...chosen.flatMap(readBy).map(flagOf), ...Object.keys(others)]);
  if (chosen.length) for (const f of Object.keys(values)) if (!used.has(f)) throw new Usage(`--${f}: ${chosen.map((d) => d.name).join(", ")} does not depend on it`);
  return { ops, chosen, values, asked: sizesOf(values) };
}

const shown = (k, v) => (k === "heads" ? `--heads ${v.heads}/${v.kvHeads}` : `--${flagOf(k)} ${v[k]}`);
const spelt = (keys, v) => keys.filter((k) => k !== "kvHeads").map((k) => shown(k, v)).join(" ");

function list(ops) {
  console.log("npm run bench -- OP... [flags]   or --all; each op with the flags that it reads, at their defaults\n");
  const wide = Math.max(...ops.map((d) => d.name.length));
  for (const d of ops) console.log(`${d.name.padEnd(wide)}  ${spelt(readBy(d), sizes)}`);
  console.log(`\n${Object.entries(choices).map(([k, c]) => `--${k} ${c.join(" | ")}`).join(", ")}\n--device cpu | cuda, --threads N, --seconds S of measurement an op, --json, --compare FILE (an earlier --json): how much faster it is now, --once: launched once, not timed`);
}

/** Earlier results by op, sizes and threads: lines of --json. */
function earlier(file) {
  const lines = readFileSync(file, "utf8").split("\n").filter((l) => l.trim());
  return new Map(lines.map((l) => JSON.parse(l)).map((r) => [keyOf(r), r]));
}
const keyOf = (r) => JSON.stringify([r.op, r.sizes, r.device, r.threads]);

const ms = (x) => (x < 10 ? x.toFixed(4) : x.toFixed(2));
const row = (r, compared) => [
  r.op, ms(r.median_ms), ms(r.p20_ms), ms(r.p80_ms), r.gflops_per_second.toFixed(1), r.gb_per_second.toFixed(1), r.bound, `${(100 * r.peak_share).toFixed(0)}%`,
  ...(compared ? (r.old_median_ms ? [ms(r.old_median_ms), `${r.speedup.toFixed(2)}x`] : ["-", "-"]) : []),
];

async function peakOf(device, threads) {
  const session = Session.create({ device, tableHash: tableHash(), threads });
  try {
    return await session.peak();
  } finally {
    await session.close();
  }
}

async function run({ chosen, values, asked }) {
  const before = values.compare && earlier(values.compare);
  const here = machine();
  const threads = values.threads === undefined ? here.threads : whole("threads", values.threads);
  const device = values.device ?? "cpu";
  if (values.once) {
    for (const def of chosen) {
      const r = await runOnce(def, asked, { device, threads });
      console.log(values.json ? JSON.stringify(r) : `${r.device}: ${r.ran.join(", ")}`);
    }
    return;
  }
  const peak = await peakOf(device, threads);
  if (!values.json) {
    printMachine({ ...here, threads });
    console.log(`peak, measured now: ${(peak.float32 / 1e9).toFixed(0)} GFLOP/s float32, ${(peak.bfloat16 / 1e9).toFixed(0)} bfloat16, copies ${(peak.copy / 1e9).toFixed(1)} GB/s\n`);
  }
  const results = [];
  for (const def of chosen) {
    const r = { ...(await benchOp(def, asked, { device, peak, threads, seconds: Number(values.seconds ?? 0.5) })), device, peak, machine: here };
    const old = before?.get(keyOf(r));
    if (old) Object.assign(r, { old_median_ms: old.median_ms, speedup: old.median_ms / r.median_ms });
    if (old && (old.machine.cpu !== here.cpu || old.machine.level !== here.level)) r.other_machine = `${old.machine.cpu}, ${old.machine.level}`;
    results.push(r);
    if (values.json) console.log(JSON.stringify(r));
  }
  if (values.json) return;
  printTable(["op", "median ms", "p20", "p80", "GFLOP/s", "GB/s", "bound", "of peak", ...(before ? ["was ms", "faster"] : [])], results.map((r) => row(r, before)));
  for (const o of new Set(results.flatMap((r) => r.other_machine ?? []))) console.log(`compared with another machine's figures: ${o}`);
  for (const r of results.filter((x) => x.gemm)) console.log(`${r.op}: ${r.clock_mhz ?? "?"} MHz, ${r.power_w ?? "?"} W, ${r.celsius ?? "?"} C; products by ${r.gemm}`);
  if (chosen.length === 1) console.log(`\n${spelt(readBy(chosen[0]), asked)}, ${results[0].samples} samples`);
}

async function main(argv) {
  const parsed = parse(argv);
  if (!parsed.chosen.length || parsed.values.help) list(parsed.ops);
  else await run(parsed);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Usage)) throw error;
  console.error(`bench: ${error.message}`);
  process.exitCode = 2;
}
