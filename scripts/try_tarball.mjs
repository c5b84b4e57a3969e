// What a user gets: packs the package, installs the tarball into an empty folder with an empty HOME and no npm setting, then imports,
// requires and runs it there. `node scripts/try_tarball.mjs`; prints what was done, with times and sizes.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const room = mkdtempSync(join(tmpdir(), "attune-tarball-"));
process.on("exit", () => rmSync(room, { recursive: true, force: true }));
const home = join(room, "home");
const app = join(room, "app");
for (const dir of [home, app]) mkdirSync(dir);
const settings = Object.fromEntries(Object.entries(process.env).filter(([key]) => !/^(npm_|NODE_|XDG_|ATTUNE_|INIT_CWD)/i.test(key)));
// A registry is the machine's own affair: where a proxy is named outside HOME, npm finds it itself.
const clean = { ...settings, HOME: home };

function run(what, command, args, { cwd = app, env = clean, fails = false } = {}) {
  const began = performance.now();
  const ran = spawnSync(command, args, { cwd, env, encoding: "utf8" });
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  if ((ran.status === 0) === fails) throw new Error(`${what}: ${command} ${args.join(" ")} ended with ${ran.status}\n${ran.stdout}\n${ran.stderr}`);
  console.log(`ok  ${what} (${seconds} s)`);
  return ran;
}
const sizeOf = (path) => (statSync(path).isDirectory() ? readdirSync(path).reduce((n, name) => n + sizeOf(join(path, name)), 0) : statSync(path).size);
const megabytes = (n) => `${(n / 1e6).toFixed(2)} MB`;

const packed = JSON.parse(run("packed", "npm", ["pack", "--json", "--pack-destination", room], { cwd: root, env: process.env }).stdout)[0];
console.log(`    ${packed.filename}: ${megabytes(packed.size)}, unpacked ${megabytes(packed.unpackedSize)}, ${packed.entryCount} files`);
const strangers = packed.files.map((f) => f.path).filter((path) => /^(test|examples|bench|docs)\/|\.test\.|\.map$/.test(path));
if (strangers.length > 0) throw new Error(`the package must hold what a user runs, got ${strangers.slice(0, 5).join(", ")}`);

writeFileSync(join(app, "package.json"), JSON.stringify({ name: "app", private: true }));
run("installed into an empty folder, HOME empty, native code built", "npm", ["install", "--no-audit", "--no-fund", join(room, packed.filename)]);
const installed = join(app, "node_modules/attune");
console.log(`    node_modules: ${megabytes(sizeOf(join(app, "node_modules")))}, attune itself ${megabytes(sizeOf(installed))}`);
const again = run("the install script returns at once when the build is current", process.execPath, [join(installed, "scripts/install.mjs")]);
if (again.stderr + again.stdout !== "") throw new Error(`it must say nothing, got ${again.stderr}`);

writeFileSync(join(app, "esm.mjs"), 'import { SFTTrainer } from "attune"; import { run, swiglu, tensor } from "attune/kernels"; console.log(typeof SFTTrainer.create, typeof run, typeof swiglu, typeof tensor);');
writeFileSync(join(app, "cjs.cjs"), 'const { SFTTrainer } = require("attune"); const { run } = require("attune/kernels"); console.log(typeof SFTTrainer.create, typeof run);');
run('import "attune", "attune/kernels"', process.execPath, ["esm.mjs"]);
run('require("attune"), require("attune/kernels")', process.execPath, ["cjs.cjs"]);

const version = run("npx attune --version", "npx", ["--no-install", "attune", "--version"]).stdout.trim();
console.log(`    ${version}`);
// The quickstart's own model, which is small, and its rows.
for (const part of ["model", "data"]) cpSync(join(root, "examples/quickstart", part), join(app, part), { recursive: true });
run("npx attune init", "npx", ["--no-install", "attune", "init", "model/config.json", "--output_dir", "base"]);
run("npx attune sft", "npx", ["--no-install", "attune", "sft", "--model", "base", "--dataset", "data/sft.jsonl", "--output_dir", "sft", "--max_steps", "3"]);
run("npx attune dpo", "npx", ["--no-install", "attune", "dpo", "--model", "sft", "--dataset", "data/dpo.jsonl", "--output_dir", "dpo", "--max_steps", "3"]);
run("npx attune generate", "npx", ["--no-install", "attune", "generate", "dpo", "--prompt", "Hello", "--max_new_tokens", "4"]);

// A machine without a compiler: only node, npm and a shell on its PATH.
const bare = join(room, "bin");
mkdirSync(bare);
for (const name of ["sh", "env", "uname"]) for (const dir of ["/bin", "/usr/bin"]) if (existsSync(join(dir, name)) && !existsSync(join(bare, name))) symlinkSync(join(dir, name), join(bare, name));
symlinkSync(process.execPath, join(bare, "node"));
rmSync(join(installed, "build"), { recursive: true });
const missing = run("without a compiler: one sentence", process.execPath, [join(installed, "scripts/install.mjs")], { env: { ...clean, PATH: bare }, fails: true });
const said = missing.stderr.trim();
console.log(`    ${said}`);
if (!/^attune: building the CPU backend needs a C\+\+20 compiler, make and Python 3: .+ was not found \(.+\)/.test(said) || said.includes("\n")) throw new Error("must be one sentence that names what is missing");
