// The checks beside the tests: generated files are current, arrows between rooms hold, files stay short, linters are quiet.
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Who may import whom (DESIGN section 3): a room's own files, its arrows, and what they may reach. Types of another room are imports too. */
export const ARROWS = {
  ir: [],
  ops: ["ir"],
  nn: ["ops"],
  models: ["nn", "io"], // configuration alone touches io's JSON reader
  losses: ["ops"],
  optim: ["ops"],
  program: ["ir"],
  passes: ["ir", "program", "ops"],
  runtime: ["program"],
  data: [],
  io: ["models"], // a folder is checked against the parameters of its config
  engine: ["models", "data", "io", "passes", "runtime"], // a model in a session, programs compiled: what the next three share
  train: ["engine", "losses", "optim", "generate", "evaluate"],
  generate: ["engine"],
  evaluate: ["engine"],
  cli: ["train", "generate", "serve", "evaluate"],
};

export function reach(room, arrows = ARROWS) {
  const seen = new Set([room]);
  for (const r of seen) for (const next of arrows[r] ?? []) seen.add(next);
  return seen;
}

export function* files(dir) {
  for (const e of readdirSync(dir, { withFileTypes: true }))
    if (e.isDirectory()) yield* files(join(dir, e.name));
    else yield join(dir, e.name);
}

/** Imports that no arrow allows, one line each. */
export function forbidden(lib = join(root, "lib"), native = join(root, "native")) {
  const wrong = [];
  for (const file of files(lib)) {
    const room = relative(lib, file).split("/")[0];
    if (relative(lib, file) === room) continue; // index.ts, kernels.ts, errors.ts, version.ts
    if (!(room in ARROWS)) {
      wrong.push(`${relative(root, file)}: ${room} is no room`);
      continue;
    }
    const may = reach(room);
    for (const [, path] of readFileSync(file, "utf8").matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)) {
      const to = relative(lib, resolve(dirname(file), path)).split("/")[0];
      if (to in ARROWS && !may.has(to)) wrong.push(`${relative(root, file)}: ${room} may not import ${to} (${path})`);
      if (path.endsWith(".node") && room !== "runtime") wrong.push(`${relative(root, file)}: only runtime imports the addon`);
    }
  }
  for (const file of files(native)) {
    const text = readFileSync(file, "utf8");
    if (/#include\s*[<"]napi\.h[>"]/.test(text) && !file.includes("/native/addon/")) wrong.push(`${relative(root, file)}: napi.h belongs to native/addon`);
  }
  return wrong;
}

function main() {
  let failed = false;
  const step = (name, run) => {
    try {
      run();
      console.log(`ok    ${name}`);
    } catch (e) {
      failed = true;
      console.error(`FAIL  ${name}\n${e.stdout ?? ""}${e.stderr ?? ""}${e.stdout === undefined ? e.message : ""}`);
    }
  };
  const run = (command, ...args) => execFileSync(command, args, { cwd: root, encoding: "utf8", stdio: "pipe" });
  step("arrows between rooms", () => {
    const wrong = forbidden();
    if (wrong.length) throw new Error(wrong.join("\n"));
  });
  step("generated files", () => {
    for (const script of ["generate", "wgmma"]) run(process.execPath, `scripts/${script}.mjs`, "--check");
  });
  step("types", () => run("npx", "tsc", "-p", "tsconfig.json", "--noEmit"));
  step("oxlint", () => run("npx", "oxlint", "--deny-warnings", "lib", "test", "scripts", "bench", "examples"));
  process.exitCode = failed ? 1 : 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
