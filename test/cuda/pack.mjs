// The pack rehearsed on the emulator, as on a box with nothing: an empty environment, a HOME that cannot be written, no node, npm or xz on PATH.
//   npm run test:pack         about 5 minutes
// Once as it is, with a planted crash and a planted hang; once with an addon that does not load, which must be built anew there.
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parts } from "../../bench/gpu/parts.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dir = fs.mkdtempSync(path.join(os.tmpdir(), "attune-pack-"));
process.on("exit", () => fs.rmSync(dir, { recursive: true, force: true }));
execFileSync(process.execPath, ["bench/gpu/pack.mjs", "--device", "simt"], { cwd: root, stdio: ["ignore", 2, 2] });

/** A PATH of these commands alone. */
function pathOf(name, commands) {
  const bin = path.join(dir, name);
  fs.mkdirSync(bin);
  for (const c of commands) fs.symlinkSync(execFileSync("sh", ["-c", `command -v ${c}`], { encoding: "utf8" }).trim(), path.join(bin, c));
  return bin;
}
const bare = ["sh", "tar", "gzip", "mkdir", "dirname", "cat"];
const [poor, builder] = [pathOf("poor", bare), pathOf("builder", [...bare, "cmake", "c++", "g++", "cc", "gcc", "as", "ld", "ar", "ranlib", "make", "uname", "rm"])];
const home = "/dev/null/home"; // not even root can write there

const wrong = [];
const must = (truth, what) => {
  console.log(`${truth ? "ok  " : "FAIL"}  ${what}`);
  if (!truth) wrong.push(what);
};

function rehearse(name, bin, list, spoil = () => {}) {
  const at = path.join(dir, name);
  fs.mkdirSync(at);
  const sh = (command) => spawnSync("/bin/sh", ["-c", command], { cwd: at, env: { HOME: home, PATH: bin }, encoding: "utf8", maxBuffer: 1 << 28 });
  must(sh(`tar xzf ${root}/build-gpu/attune-gpu.tar.gz`).status === 0, `${name}: unpacked by tar and gzip`);
  const file = path.join(at, "parts.json");
  fs.writeFileSync(file, "[]");
  sh("sh attune-gpu/gpu.sh --out none --device simt --parts parts.json"); // the app's own archive
  spoil(path.join(at, "attune-gpu/app"));
  fs.writeFileSync(file, JSON.stringify(list));
  const ran = sh("sh attune-gpu/gpu.sh --out out --device simt --minutes 12 --parts parts.json");
  console.log(ran.stdout.replace(/^/gm, "      "));
  const files = fs.readdirSync(path.join(at, "out"));
  must(files.length <= 8 && files.every((f) => fs.statSync(path.join(at, "out", f)).size < 16 * 2 ** 20), `${name}: at most 8 flat files under 16 MiB`);
  const rows = fs.readFileSync(path.join(at, "out/rows.jsonl"), "utf8").trim().split("\n").map((l) => JSON.parse(l)).filter((r) => r.end);
  return { rows, results: fs.readFileSync(path.join(at, "out/results.md"), "utf8") };
}

const usual = parts("simt");
const crash = { name: "crash", seconds: 20, read: "text", command: ["{node}", "-e", "process.kill(process.pid, 'SIGSEGV')"] };
const hang = { name: "hang", seconds: 2, read: "text", command: ["{node}", "-e", "setInterval(() => {}, 1000)"] };
const first = rehearse("as it is", poor, [usual[0], crash, hang, ...usual.slice(1)]);
for (const { name } of usual) must(first.rows.some((r) => r.part === name && r.verdict === "ok"), `as it is: ${name}`);
must(first.results.includes("| crash |") && first.results.includes("crashed: SIGSEGV"), "the planted crash is a row");
must(first.results.includes("hung: killed after 2 s"), "the planted hang is a row");

const older = rehearse("rebuilt", builder, [usual[0], usual[1]], (app) => fs.writeFileSync(path.join(app, "build-simt/Release/attune.node"), "not for this libc"));
for (const name of ["rebuild", usual[0].name, usual[1].name]) must(older.rows.some((r) => r.part === name && r.verdict === "ok"), `an addon that does not load: ${name}`);

console.log(wrong.length ? `${wrong.length} failed` : "all held");
process.exitCode = wrong.length ? 1 : 0;
