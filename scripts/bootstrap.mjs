// Makes a clone ready to run: installs, compiles and builds what is missing or older than its sources. Plain Node, no packages.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const at = (...parts) => path.join(root, ...parts);

const time = (file) => fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;

/** The newest time of a folder's files and folders (a folder's own time changes when a file goes). */
function newest(folder) {
  let latest = time(folder);
  for (const e of fs.readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, e.name);
    latest = Math.max(latest, e.isDirectory() ? newest(full) : time(full));
  }
  return latest;
}

function step(what, command, args) {
  console.error(`attune: ${what}: ${[path.basename(command), ...args].join(" ")}`);
  const run = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2], shell: process.platform === "win32" });
  if (run.status === 0) return;
  console.error(`attune: ${what} failed${run.error ? `: ${run.error.message}` : ""}`);
  process.exit(run.status || 1);
}

// npm writes node_modules/.package-lock.json last.
if (time(at("node_modules/.package-lock.json")) < time(at("package-lock.json"))) {
  step("installing the packages of package-lock.json", "npm", ["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
}

// tsc rewrites every file of dist, so one of them says when it ran.
const compiled = at("dist/index.js");
const typescript = "node_modules/typescript/bin/tsc";
if (time(compiled) < Math.max(newest(at("lib")), time(at("tsconfig.json")))) {
  const began = new Date();
  step("compiling TypeScript", process.execPath, [typescript, "-p", "tsconfig.json", "--noEmitOnError"]);
  fs.utimesSync(compiled, began, began); // a file edited meanwhile is compiled next time
}

const { isCurrent } = await import("./install.mjs");
if (!isCurrent()) step("building the native addon", process.execPath, ["scripts/install.mjs"]);
