// Builds the native addon with node-gyp, unless the build is current. Runs at `npm install`, in clones and installed packages.
//   node scripts/install.mjs [--force] [--verbose]   build/Release/attune.node
//   node scripts/install.mjs --sanitize              build-asan/Release/attune.node, through cmake-js
//   node scripts/install.mjs --device cuda|simt      build-DEVICE/Release/attune.node, through cmake-js; --lineinfo: kernels carry their source
//                                                    lines; ATTUNE_ARCHITECTURES=90-real: for these GPUs alone
//   node scripts/install.mjs --sources core|addon    the list of sources, for binding.gyp and CMakeLists.txt
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const build = path.join(root, "build");
const addon = path.join(build, "Release", "attune.node");
const stamp = path.join(build, "Release", "attune.json");

/** The files of one list of native/sources.json, relative to the package; `folder/*.cc` stands for all that match. */
export function sources(kind) {
  const patterns = JSON.parse(fs.readFileSync(path.join(root, "native/sources.json"), "utf8"))[kind];
  if (!patterns) throw new Error(`native/sources.json: no list "${kind}"`);
  return patterns.flatMap((pattern) => {
    const [folder, end] = pattern.split("/*");
    if (end === undefined) return [pattern];
    const names = fs.readdirSync(path.join(root, folder)).filter((name) => name.endsWith(end));
    return names.sort().map((name) => `${folder}/${name}`);
  });
}

function filesUnder(folder) {
  return fs
    .readdirSync(path.join(root, folder), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((e) => (e.isDirectory() ? filesUnder(`${folder}/${e.name}`) : [`${folder}/${e.name}`]));
}

/** Everything a build depends on, as one hash. */
export function fingerprint() {
  const hash = createHash("sha256");
  hash.update([process.platform, process.arch, process.versions.modules, process.env.CXX ?? ""].join(" "));
  for (const file of ["binding.gyp", ...filesUnder("native")]) {
    hash.update(`\0${file}\0`).update(fs.readFileSync(path.join(root, file)));
  }
  return hash.digest("hex");
}

/** Whether build/ holds the addon of these sources for this Node. */
export function isCurrent() {
  try {
    return fs.existsSync(addon) && JSON.parse(fs.readFileSync(stamp, "utf8")).fingerprint === fingerprint();
  } catch {
    return false;
  }
}

class BuildError extends Error {}

const runs = (command) => spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;

/** One sentence about the first tool that is missing. */
function checkTools() {
  const python = [
    process.env.NODE_GYP_FORCE_PYTHON,
    process.env.npm_config_python,
    process.env.PYTHON,
    "python3",
    "python",
  ];
  const needs = [
    ["a C++20 compiler (g++ or clang++)", [process.env.CXX?.split(" ")[0], "c++", "g++", "clang++"]],
    ["make", [process.env.MAKE, "make", "gmake"]],
    ["Python 3", python],
  ];
  for (const [what, commands] of needs) {
    if (commands.some((c) => c && runs(c))) continue;
    throw new BuildError(
      `building the CPU backend needs a C++20 compiler, make and Python 3: ${what} was not found ` +
        `(Debian and Ubuntu: apt install build-essential python3; macOS: xcode-select --install), then run npm install again`,
    );
  }
}

/** Node's headers beside the node that runs this, so that nothing is downloaded. */
function headers() {
  const given = process.env.npm_config_nodedir;
  const beside = path.dirname(path.dirname(fs.realpathSync(process.execPath)));
  return [given, beside].find((dir) => dir && fs.existsSync(path.join(dir, "include/node/common.gypi")));
}

function nodeGyp() {
  for (const find of [() => require.resolve("node-gyp/bin/node-gyp.js"), () => process.env.npm_config_node_gyp]) {
    try {
      const file = find();
      if (file && fs.existsSync(file)) return file;
    } catch {
      // the next place
    }
  }
  throw new BuildError("node-gyp was not found (run npm install in the package's folder)");
}

function wait(milliseconds) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** Two installs at once would build into one folder: the second waits for the first. */
function locked(work) {
  const lock = path.join(build, ".lock");
  fs.mkdirSync(build, { recursive: true });
  for (;;) {
    try {
      fs.writeFileSync(lock, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      if (!holderLives(lock)) fs.rmSync(lock, { force: true });
      else wait(200);
    }
  }
  try {
    return work();
  } finally {
    fs.rmSync(lock, { force: true });
  }
}

function holderLives(lock) {
  try {
    const text = fs.readFileSync(lock, "utf8");
    if (text === "") return Date.now() - fs.statSync(lock).mtimeMs < 2000; // being written
    process.kill(Number(text), 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Runs a build command; what it prints goes to `log`, and to the terminal only where it matters. */
function command(args, log, verbose) {
  const env = { ...process.env, PATH: `${path.dirname(process.execPath)}${path.delimiter}${process.env.PATH ?? ""}` };
  if (!env.HOME) env.HOME = build; // make's and Python's start-up want one
  const run = spawnSync(process.execPath, args, {
    cwd: root,
    env,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: verbose ? "inherit" : ["ignore", "pipe", "pipe"],
  });
  const text = verbose ? "" : `${run.stdout}${run.stderr}`;
  if (!verbose) fs.writeFileSync(log, text);
  for (const line of text.split("\n").filter((l) => l.includes("warning:"))) console.error(line);
  if (run.status === 0) return;
  const errors = text.split("\n").filter((l) => /error|Error|undefined reference/.test(l));
  const shown = (errors.length > 0 ? errors : text.split("\n").slice(-20)).slice(0, 20).join("\n");
  throw new BuildError(
    `the native build failed${verbose ? "" : `; the whole output is in ${path.relative(root, log)}`}\n${shown}`,
  );
}

function buildRelease({ verbose }) {
  checkTools();
  const started = Date.now();
  console.error("attune: building the CPU backend (under a minute)");
  const nodedir = headers();
  const jobs = String(Math.max(1, os.availableParallelism()));
  const options = ["--release", `--jobs=${jobs}`, `--devdir=${path.join(build, "node-headers")}`];
  if (nodedir) options.push(`--nodedir=${nodedir}`);
  const before = fingerprint(); // a source edited during the build leaves the stamp stale, as it should
  fs.rmSync(stamp, { force: true });
  command([nodeGyp(), "configure", "build", ...options], path.join(build, "install.log"), verbose);
  fs.writeFileSync(stamp, `${JSON.stringify({ fingerprint: before, seconds: (Date.now() - started) / 1000 })}\n`);
  console.error(`attune: built in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}

/** A build through cmake-js, in a folder of its own. */
function buildByCmake(folder, what, defines, { verbose }) {
  const cmakeJs = path.join(path.dirname(require.resolve("cmake-js/package.json")), "bin/cmake-js");
  fs.mkdirSync(build, { recursive: true });
  console.error(`attune: building ${what} into ${folder}/`);
  const args = [cmakeJs, "compile", "--out", folder, "--target", "attune", "--parallel", String(os.availableParallelism())];
  const options = Object.entries(defines).map(([k, v]) => `--CD${k}=${v}`);
  command([...args, ...options], path.join(build, `${folder}.log`), verbose);
}

/** One sentence about what a build for GPUs, or through cmake-js at all, lacks. */
function checkCudaTools(device) {
  if (!runs("cmake") && !process.env.npm_config_cmake_path)
    throw new BuildError("this build needs cmake 3.19 or newer: it was not found (Debian and Ubuntu: apt install cmake)");
  const nvcc = [process.env.CUDACXX, "nvcc", "/usr/local/cuda/bin/nvcc"].find((c) => c && runs(c));
  if (device !== "cuda") return;
  if (!nvcc) throw new BuildError("the CUDA backend needs nvcc of CUDA 13: it was not found (install the CUDA toolkit, or set CUDACXX to its nvcc)");
  process.env.CUDACXX ??= nvcc;
}

const devices = { cuda: "the CPU and CUDA backends", simt: "the CPU backend and the emulator of the CUDA one" };

function main(flags) {
  const verbose = flags.includes("--verbose");
  if (flags[0] === "--sources") return console.log(sources(flags[1]).join("\n"));
  if (flags.includes("--sanitize"))
    return buildByCmake("build-asan", "with AddressSanitizer and UndefinedBehaviorSanitizer", { ATTUNE_SANITIZE: "ON" }, { verbose });
  const device = flags[flags.indexOf("--device") + 1];
  if (flags.includes("--device")) {
    if (!devices[device]) throw new BuildError(`--device: must be ${Object.keys(devices).join(" or ")}, got ${device}`);
    checkCudaTools(device);
    const { ATTUNE_ARCHITECTURES } = process.env;
    const defines = { ATTUNE_DEVICE: device, ATTUNE_LINEINFO: flags.includes("--lineinfo") ? "ON" : "OFF", ...(ATTUNE_ARCHITECTURES && { ATTUNE_ARCHITECTURES }) };
    return buildByCmake(`build-${device}`, devices[device], defines, { verbose });
  }
  if (!flags.includes("--force") && isCurrent()) return;
  locked(() => {
    if (flags.includes("--force") || !isCurrent()) buildRelease({ verbose });
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    console.error(`attune: ${error.message}`);
    process.exitCode = 1;
  }
}
