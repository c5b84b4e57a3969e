// The one GPU command: npm run gpu -- --out DIR [--minutes 9] [--from PART] [--device cuda|simt] [--parts FILE]
// Each part of parts.mjs is a process with a limit; a crash, a hang or a missing tool is a row, and the next part runs. DIR gets results.md
// (rewritten after each part), rows.jsonl and log.txt.
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { root } from "./attune.mjs";
import { parts as usual } from "./parts.mjs";
import { refusal } from "./rebuild.mjs";
import { report } from "./report.mjs";

const { values } = parseArgs({
  options: { out: { type: "string" }, minutes: { type: "string", default: "9" }, from: { type: "string" }, device: { type: "string", default: "cuda" }, parts: { type: "string" } },
});
const { device } = values;
const minutes = Number(values.minutes);
if (!values.out || !(minutes > 0) || !["cuda", "simt"].includes(device)) {
  console.error("usage: gpu.sh --out DIR [--minutes 9] [--from PART] [--device cuda|simt] [--parts FILE]");
  process.exit(2);
}
const parts = values.parts ? JSON.parse(fs.readFileSync(values.parts, "utf8")) : usual(device);
const first = values.from ? parts.findIndex((p) => p.name === values.from) : 0;
if (first < 0) {
  console.error(`--from: must be one of ${parts.map((p) => p.name).join(", ")}, got ${values.from}`);
  process.exit(2);
}
const out = path.resolve(values.out);
fs.mkdirSync(out, { recursive: true });
const [rowsFile, logFile] = [path.join(out, "rows.jsonl"), path.join(out, "log.txt")];
if (!values.from) for (const f of [rowsFile, logFile]) fs.rmSync(f, { force: true });

const build = path.join(root, `build-${device}`);
const chosen = parts.slice(first);
const packed = fs.existsSync(path.join(root, "include/node"));
const why = packed && refusal(path.join(build, "Release/attune.node"));
if (why) {
  console.log(`the addon does not load here, it is built anew: ${why}`);
  chosen.unshift({ name: "rebuild", seconds: 600, read: "text", command: ["{node}", "bench/gpu/rebuild.mjs", "{device}"] });
}
const work = fs.mkdtempSync(path.join(os.tmpdir(), "attune-gpu-"));
const places = {
  node: process.execPath, device, build, work,
  bundle: path.join(root, "build-check/ops.bundle"),
  python: process.env.ATTUNE_PYTHON ?? "python3",
  sanitizer: process.env.ATTUNE_SANITIZER ?? [process.env.CUDA_HOME, "/usr/local/cuda"].map((d) => d && path.join(d, "bin/compute-sanitizer")).find((f) => f && fs.existsSync(f)) ?? "compute-sanitizer",
};
const env = { ...process.env, ATTUNE_ADDON: path.join(build, "Release/attune.node"), ATTUNE_WORK: work, XDG_CACHE_HOME: path.join(work, "cache") };
const filled = (text) => text.replace(/\{(\w+)\}/g, (_, k) => places[k]);

/** The part's process: how it ended and what it wrote. A hang is killed with all that it started. */
function run(part, limit) {
  return new Promise((done) => {
    const [command, ...args] = part.command.map(filled);
    const start = Date.now();
    const child = spawn(command, args, { cwd: root, env: { ...env, ...part.env }, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    let [stdout, stderr, late] = ["", "", false];
    child.stdout.on("data", (d) => (stdout = (stdout + d).slice(-1e6)));
    child.stderr.on("data", (d) => (stderr = (stderr + d).slice(-2e5)));
    const timer = setTimeout(() => {
      late = true;
      try {
        process.kill(-child.pid, "SIGKILL");
      } catch {
        // it ended in this moment
      }
    }, limit * 1000);
    const end = (how) => {
      clearTimeout(timer);
      const stopped = limit < part.seconds ? "stopped: no time left" : `hung: killed after ${limit.toFixed(0)} s`;
      done({ how: late ? stopped : how, stdout, stderr, seconds: (Date.now() - start) / 1000 });
    };
    child.on("error", (error) => end(error.code === "ENOENT" ? `missing: ${command}` : `failed: ${error.message}`));
    child.on("close", (code, signal) => end(signal ? `crashed: ${signal}` : code === 0 ? "ok" : `failed: exit ${code}`));
  });
}

const lastLine = (text) => text.trim().split("\n").at(-1)?.slice(0, 200) ?? "";

/** The rows of a part: its figures, then one that says how it ended. */
function rowsOf(part, { how, stdout, stderr, seconds }) {
  const lines = stdout.split("\n").filter((l) => l.trim());
  const rows = [];
  if (part.read === "json") for (const l of lines) if (l.startsWith("{")) rows.push({ figures: JSON.parse(l) });
  if (part.read === "check") for (const l of lines) if (l.startsWith("FAIL")) rows.push({ verdict: "FAIL", says: l.slice(0, 300) });
  const says = how === "ok" ? (part.read === "json" ? "" : lastLine(stdout)) : lastLine(stderr) || lastLine(stdout);
  const wrong = rows.some((r) => r.figures?.verdict === "FAIL" || r.figures?.error);
  const kept = rows.filter((r) => !r.figures || !part.last || r === rows.at(-1));
  return [...kept, { verdict: how === "ok" && wrong ? "FAIL" : how, says, seconds, end: true }].map((r) => ({ part: part.name, ...(part.peer && { peer: true }), ...(part.task && { task: part.task, model: part.model }), ...(part.match && { match: part.match }), ...r }));
}

function machine() {
  const asked = spawnSync("nvidia-smi", ["--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit", "--format=csv,noheader"], { encoding: "utf8", timeout: 20_000 });
  const [name, driver, memory, clock, most, power] = (asked.stdout ?? "").trim().split("\n")[0].split(", ");
  return { gpu: device === "simt" ? "the emulator" : name || "no GPU found", driver, memory, clock, most_clock: most, power, glibc: process.report.getReport().header.glibcVersionRuntime, node: process.version, cpu: os.cpus()[0]?.model, threads: os.availableParallelism() };
}

const end = Date.now() + minutes * 60_000;
const here = machine();
const given = ([k, v]) => (k === "out" || v === undefined || (k === "device" && v === "cuda") ? [] : [`--${k} ${v}`]);
const options = Object.entries(values).flatMap(given).join(" ");
const write = () => fs.writeFileSync(path.join(out, "results.md"), report(fs.readFileSync(rowsFile, "utf8").trim().split("\n").map((l) => JSON.parse(l)), here, options));
let [ran, bad] = [0, 0];
for (const part of chosen) {
  const left = (end - Date.now()) / 1000;
  const got = left < 2 ? { how: "did not run: no time left", stdout: "", stderr: "", seconds: 0 } : await run(part, Math.min(part.seconds, left));
  let rows;
  try {
    rows = rowsOf(part, got);
  } catch (error) {
    rows = [{ part: part.name, verdict: `failed: ${error.message}`, end: true }];
  }
  fs.appendFileSync(rowsFile, rows.map((r) => `${JSON.stringify(r)}\n`).join(""));
  fs.appendFileSync(logFile, `==== ${part.name}: ${got.how}, ${got.seconds.toFixed(1)} s\n${got.stdout.slice(-60_000)}${got.stderr.slice(-20_000)}\n`);
  write();
  const { verdict, says } = rows.at(-1);
  ran++;
  if (verdict !== "ok") bad++;
  console.log(`${part.name.padEnd(36)} ${got.seconds.toFixed(1).padStart(6)} s  ${verdict}${says ? `  ${says}` : ""}`);
}
fs.rmSync(work, { recursive: true, force: true });
console.log(`${ran - bad} of ${ran} parts ok; ${path.join(values.out, "results.md")}`);
process.exitCode = bad ? 1 : 0;
