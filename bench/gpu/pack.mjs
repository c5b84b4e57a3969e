// npm run gpu:pack [-- --device cuda|simt]: build-gpu/attune-gpu.tar.gz, for a box with no Node, npm, xz or network. There:
//   tar xzf attune-gpu.tar.gz && sh attune-gpu/gpu.sh --out results
// It holds gpu.sh, a node, and app.tar.br: by brotli, whose window spans the whole, since the executables share their kernels.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { brotliCompressSync, constants } from "node:zlib";
import { root } from "./attune.mjs";
import { prepare } from "./prepare.mjs";
import { programs } from "./programs.mjs";

const { device } = parseArgs({ options: { device: { type: "string", default: "cuda" } } }).values;
const out = path.join(root, "build-gpu");
const [pack, app] = [path.join(out, "attune-gpu"), path.join(out, "app")];
const sh = (command, ...args) => execFileSync(command, args, { cwd: root, stdio: "inherit" });
const packages = [
  "@huggingface/jinja", "ansi-regex", "cli-progress", "commander", "emoji-regex", "is-fullwidth-code-point", "node-addon-api", "string-width", "strip-ansi", "tinybench",
  "tokenizers", "uplot", "yaml", "zod",
];

prepare(device);
for (const d of [pack, app]) fs.rmSync(d, { recursive: true, force: true });
fs.mkdirSync(pack, { recursive: true });

const dropped = (file) => /\.map$|\.d\.[mc]?ts$|\.cjs$|\.cjs\.js$|iife\.js$|README\.md$|\/zod\/(src|v3)$|\/yaml\/browser$|\/__pycache__$/.test(file) || (/\/tokenizers\/.*\.node$/.test(file) && !file.endsWith("linux-x64-gnu.node"));
const take = (file) => fs.cpSync(path.join(root, file), path.join(app, file), { recursive: true, filter: (from) => !dropped(from) });
for (const f of ["package.json", "dist", "bench", "examples/quickstart/model", "examples/quickstart/data/sft.jsonl", "examples/quickstart/data/dpo.jsonl", "native", "CMakeLists.txt", "build-check/ops.bundle"]) take(f);
for (const p of packages) take(`node_modules/${p}`);
// What a rebuild there needs of Node: the C interface, whose headers hold on any version.
const headers = path.join(path.dirname(path.dirname(fs.realpathSync(process.execPath))), "include/node");
for (const h of ["node_api.h", "node_api_types.h", "js_native_api.h", "js_native_api_types.h"]) fs.cpSync(path.join(headers, h), path.join(app, "include/node", h));
for (const f of ["Release/attune.node", ...programs]) {
  take(`build-${device}/${f}`);
  sh("strip", "--strip-unneeded", path.join(app, `build-${device}/${f}`));
}

const tar = execFileSync("tar", ["-cf", "-", "--sort=name", "-C", app, "."], { maxBuffer: 2 ** 30 });
const level = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LARGE_WINDOW]: 1, [constants.BROTLI_PARAM_LGWIN]: 28, [constants.BROTLI_PARAM_SIZE_HINT]: tar.length };
fs.writeFileSync(path.join(pack, "app.tar.br"), brotliCompressSync(tar, { params: level }));
fs.copyFileSync(path.join(root, "bench/gpu/gpu.sh"), path.join(pack, "gpu.sh"));
fs.copyFileSync(fs.realpathSync(process.execPath), path.join(pack, "node"));
sh("strip", path.join(pack, "node"));
fs.chmodSync(path.join(pack, "node"), 0o755);
const archive = path.join(out, "attune-gpu.tar.gz");
sh("tar", "-I", "gzip -9", "-cf", archive, "-C", out, "attune-gpu");
for (const d of [pack, app]) fs.rmSync(d, { recursive: true });
const mib = fs.statSync(archive).size / 2 ** 20;
console.log(`${path.relative(root, archive)}: ${mib.toFixed(1)} MiB`);
if (mib > 44) {
  console.error("it must be at most 44 MiB (a build for one architecture is smaller: ATTUNE_ARCHITECTURES=90-real npm run gpu:pack)");
  process.exitCode = 1;
}
