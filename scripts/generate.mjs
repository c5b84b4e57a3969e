// Prints what the op registry says for others: native/runtime/ops.gen.h and docs/ops.md. `--check` only compares, for CI.
// Reads the compiled registry: run `npx tsc -p tsconfig.json` first.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import "../dist/ops/index.js";
import { allOps, kernelOps } from "../dist/ir/op.js";
import { paramsOf, tableHash } from "../dist/program/encode.js";

const pascal = (s) => s.replace(/(^|_)(\w)/g, (_, __, c) => c.toUpperCase());
const snake = (s) => s.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
const root = new URL("..", import.meta.url);

function header() {
  const ops = kernelOps();
  const structs = ops.map((d) => {
    const lines = [
      d.inputs.length ? `  Tensor ${d.inputs.join(", ")};` : "",
      d.optional.length ? `  Tensor ${d.optional.join(", ")};  // optional` : "",
      `  Tensor ${d.outputs.join(", ")};  // out`,
      ...paramsOf(d).map(([k, kind]) => `  ${kind === "numbers" ? "Doubles" : "double"} ${snake(k)};`),
    ];
    return `struct ${pascal(d.name)} {\n${lines.filter(Boolean).join("\n")}\n};`;
  });
  const letters = (d) => paramsOf(d).map(([, kind]) => (kind === "numbers" ? "l" : "d")).join("");
  const slots = (d) => [...d.inputs, ...d.optional];
  const ontoOf = (d) => Object.values(d.accumulate).reduce((bits, slot) => bits | (1 << slots(d).indexOf(slot)), 0);
  const infos = ops.map((d) => `    {"${d.name}", ${d.inputs.length}, ${d.optional.length}, ${d.outputs.length}, "${letters(d)}", ${ontoOf(d)}},`);
  const list = ops.map((d, i) => `  X(${i}, ${d.name}, ${pascal(d.name)})`).join(" \\\n");
  return `// Generated from the op registry by \`npm run generate\`. Do not edit.
#pragma once
#include <cstdint>

#include "tensor.h"

#define ATTUNE_OP_INFO

namespace attune {

${structs.join("\n\n")}

// X(opcode, name, Struct)
#define ATTUNE_OPS(X) \\
${list}

// A program made for another table is refused.
constexpr uint32_t kTableHash = ${tableHash()}u;

struct OpInfo {
  const char* name;
  int inputs, optionals, outputs;
  const char* params;  // one letter each: 'd' double, 'l' list
  uint32_t onto;       // a bit for each slot that an output is added onto, if it is there
};

constexpr OpInfo kOps[] = {
${infos.join("\n")}
};

}  // namespace attune
`;
}

function docs() {
  const row = (d) => {
    const ins = [...d.inputs, ...d.optional.map((o) => `${o}?`)].map((n) => `\`${n}\``).join(" ");
    const outs = d.outputs.map((n) => (d.stats.includes(n) ? `\`${n}\` (statistic)` : `\`${n}\``)).join(" ");
    const attrs = paramsOf(d).map(([k]) => `\`${k}\``).join(" ");
    return `### ${d.name}\n\n${d.doc}\n\nInputs: ${ins || "none"}. Outputs: ${outs}.${attrs ? ` Attributes: ${attrs}.` : ""}\n`;
  };
  const part = (title, text, ops) => `## ${title}\n\n${text}\n\n${ops.map(row).join("\n")}`;
  const sorted = [...allOps()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return [
    "# Ops",
    "Generated from the op registry by `npm run generate`; do not edit. `N` packed tokens, `M` rows with a loss, `C` channels, `H` / `K` query and key-value heads, `D` head size, `V` vocabulary, `P` examples, `S` cache slots. A negative index means none.",
    part("Kernel ops", "One hand-written kernel a device.", sorted.filter((d) => d.compose && !d.backwardOf)),
    part("Backward ops", "Declared, not defined: the meaning of each is derived.", sorted.filter((d) => d.backwardOf)),
    part("Primitives", "What everything is composed of. The few that reach a device work on vectors of examples.", sorted.filter((d) => d.eval)),
  ].join("\n\n");
}

let stale = false;
for (const [path, text] of [
  ["native/runtime/ops.gen.h", header()],
  ["docs/ops.md", `${docs().trimEnd()}\n`],
]) {
  const url = new URL(path, root);
  const old = existsSync(url) ? readFileSync(url, "utf8") : "";
  if (old === text) continue;
  stale = true;
  if (process.argv.includes("--check")) console.error(`${path} is not what the registry says: run \`npm run generate\``);
  else {
    writeFileSync(url, text);
    console.log(`wrote ${path}`);
  }
}
process.exitCode = stale && process.argv.includes("--check") ? 1 : 0;
