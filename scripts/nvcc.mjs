// Compiles every kernel of native/cuda with nvcc and looks at what ptxas says: no spill, none of its warnings about wgmma that it had to
// serialise (C7508, C7510, C7519), registers and static shared memory of each kernel. Needs nvcc 13, no GPU. Prints a row a file and target.
//   npm run check:nvcc [-- PATTERN]     about 4 minutes; PATTERN chooses files by name
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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

/** The most registers that a header allows: "budget: ... 168 registers". Registers are capped by the block's size in any case. */
function budget(file) {
  const head = readFileSync(join(folder, file), "utf8").split("\n").filter((l) => l.startsWith("//")).slice(0, 40).join(" ").replaceAll("// ", "");
  const numbers = [...head.matchAll(/(?:at most |under |below )(\d+) registers/g)].map((m) => Number(m[1]));
  return numbers.length > 0 ? Math.max(...numbers) : 255;
}

let failed = false;
const pattern = process.argv[2] ?? "";
console.log(`${"file".padEnd(32)}target  kernels  registers  budget  shared  seconds`);
for (const file of readdirSync(folder).filter((f) => f.endsWith(".cu") && f.includes(pattern)).sort()) {
  for (const [target, code] of file.includes("wgmma") ? HOPPER : PORTABLE) {
    const start = performance.now();
    const flags = ["-std=c++20", "-O3", "-lineinfo", "-Xptxas", "-v,--warn-on-spills", "-DATTUNE_DEVICE", "-gencode", code];
    const { status, stderr, stdout } = spawnSync(nvcc, [...flags, "-c", join(folder, file), "-o", join(out, "kernel.o")], { encoding: "utf8", maxBuffer: 1 << 28 });
    const said = stdout + stderr;
    const numbers = (pattern) => [...said.matchAll(pattern)].map((m) => Number(m[1]));
    const registers = numbers(/Used (\d+) registers/g);
    const shared = numbers(/, (\d+) bytes smem/g);
    const most = (all) => all.reduce((a, b) => Math.max(a, b), 0);
    const problems = [];
    if (status !== 0) problems.push(`nvcc ended with ${status}: ${said.split("\n").find((l) => l.includes("error")) ?? ""}`);
    const spilled = numbers(/(\d+) bytes spill stores/g).filter((n) => n > 0);
    if (spilled.length > 0 || /[Rr]egisters are spilled/.test(said)) problems.push(`${spilled.length} kernels spill`);
    for (const warning of said.match(/C75(?:08|10|19)/g) ?? []) problems.push(warning);
    if (most(registers) > budget(file)) problems.push(`${most(registers)} registers, over the header's ${budget(file)}`);
    if (most(shared) > 48 * 1024) problems.push(`${most(shared)} bytes of static shared memory`);
    const row = [registers.length, most(registers), budget(file), most(shared), ((performance.now() - start) / 1000).toFixed(1)];
    const widths = [9, 11, 8, 8, 9];
    console.log(file.padEnd(32) + target.padEnd(6) + row.map((x, i) => String(x).padStart(widths[i])).join("") + (problems.length ? `  FAIL ${[...new Set(problems)].join("; ")}` : ""));
    failed ||= problems.length > 0;
  }
}
process.exitCode = failed ? 1 : 0;
