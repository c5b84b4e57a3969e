// Compiles every kernel of native/cuda with nvcc and looks at what ptxas says: no spill, none of its warnings about wgmma that it had to
// serialise (C75..), registers and static shared memory of each kernel. Needs nvcc 13, no GPU. Prints a row a file and target.
//   npm run check:nvcc [-- PATTERN]     about 4 minutes; PATTERN chooses files by name
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "native/cuda");
const nvcc = [process.env.CUDACXX, "nvcc", "/usr/local/cuda/bin/nvcc"].find((c) => c && spawnSync(c, ["--version"]).status === 0);
if (!nvcc) {
  console.log("check:nvcc: skipped, nvcc was not found");
  process.exit(0);
}
const out = mkdtempSync(join(tmpdir(), "attune-nvcc-"));
process.on("exit", () => rmSync(out, { recursive: true, force: true }));

/** [name, what -gencode says]; PTX has no ptxas run, and is compiled for its errors alone. */
const PORTABLE = [
  ["sm_80", "arch=compute_80,code=sm_80"],
  ["sm_90", "arch=compute_90,code=sm_90"],
  ["ptx_80", "arch=compute_80,code=compute_80"],
];
const HOPPER = [["sm_90a", "arch=compute_90a,code=sm_90a"]];

/** The most registers that the header's budget names, outside parentheses: "budget: 256 threads, under 40 registers". 255 where it names none. */
function budget(file) {
  const lines = readFileSync(join(folder, file), "utf8").split("\n");
  const head = lines.slice(0, lines.findIndex((l) => !l.startsWith("//"))).map((l) => l.slice(2).trim()).join(" ");
  const paragraph = /budget:(.*?)(?:limits:|measured:|$)/.exec(head)?.[1]?.replaceAll(/\([^)]*\)/g, "") ?? "";
  const sentences = paragraph.split(/[.;]\s/).filter((l) => /register/i.test(l));
  const numbers = sentences.flatMap((l) => [...l.matchAll(/(\d+)(?= (?:registers|forward|backward|plain|for\b))/g)].map((m) => Number(m[1])));
  return numbers.length > 0 ? Math.max(...numbers) : 255;
}

/** Compiles one file for one target and gives its row, with what is wrong with it. */
async function look(file, [target, code]) {
  const start = performance.now();
  const flags = ["-std=c++20", "-O3", "-lineinfo", "-Xptxas", "-v,--warn-on-spills", "-DATTUNE_DEVICE", "-gencode", code];
  const args = [...flags, "-c", join(folder, file), "-o", join(out, `${file}.${target}.o`)];
  const ended = await promisify(execFile)(nvcc, args, { maxBuffer: 1 << 28 }).catch((error) => error);
  const said = `${ended.stdout}${ended.stderr}`;
  const numbers = (pattern) => [...said.matchAll(pattern)].map((m) => Number(m[1]));
  const most = (all) => all.reduce((a, b) => Math.max(a, b), 0);
  const registers = numbers(/Used (\d+) registers/g);
  const shared = most(numbers(/, (\d+) bytes smem/g));
  const spilling = numbers(/(\d+) bytes spill stores/g).filter((n) => n > 0).length;
  const problems = new Set(said.match(/C75\d\d/g));
  if (ended instanceof Error) problems.add(`nvcc ended with ${ended.code}: ${said.split("\n").find((l) => l.includes("error")) ?? ""}`);
  if (spilling > 0 || /[Rr]egisters are spilled/.test(said)) problems.add(`${spilling} kernels spill`);
  if (most(registers) > budget(file)) problems.add(`${most(registers)} registers, over the header's ${budget(file)}`);
  if (shared > 48 * 1024) problems.add(`${shared} bytes of static shared memory`);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const row = [registers.length, most(registers), budget(file), shared, seconds].map((x, i) => String(x).padStart([9, 11, 8, 8, 9][i]));
  console.log(file.padEnd(32) + target.padEnd(6) + row.join("") + (problems.size > 0 ? `  FAIL ${[...problems].join("; ")}` : ""));
  return problems.size === 0;
}

const pattern = process.argv[2] ?? "";
const files = readdirSync(folder).filter((f) => f.endsWith(".cu") && f.includes(pattern)).sort();
const work = files.flatMap((f) => (f.includes("wgmma") ? HOPPER : PORTABLE).map((target) => [f, target]));
console.log(`${"file".padEnd(32)}target  kernels  registers  budget  shared  seconds`);
const worker = async () => {
  let good = true;
  for (let next = work.shift(); next; next = work.shift()) good = (await look(...next)) && good;
  return good;
};
const all = await Promise.all(Array.from({ length: availableParallelism() }, worker));
process.exitCode = all.every(Boolean) ? 0 : 1;
