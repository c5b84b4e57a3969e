// Writes docs/config.md from the schemas of the built package. With --check it only compares, and fails where they differ.

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = new URL("../", import.meta.url);
const { sftShape, dpoShape } = await import(new URL("dist/train/config.js", root));
const { camel, choicesOf, defaultOf, metaOf, mustOf } = await import(new URL("dist/train/config_schema.js", root));
const { chatShape, generateShape, initShape, scoreShape } = await import(new URL("dist/cli/shapes.js", root));

const cell = (text) => String(text).replaceAll("|", "\\|").replaceAll("\n", " ");
const code = (text) => `\`${text}\``;

function defaultCell(schema) {
  const { defaultText } = metaOf(schema);
  if (defaultText !== undefined) return defaultText;
  const value = defaultOf(schema);
  if (value === undefined) return "**required**";
  const small = typeof value === "number" && value !== 0 && Math.abs(value) < 1e-3;
  return code(small ? value.toExponential() : typeof value === "string" ? value : JSON.stringify(value));
}

function values(schema) {
  const choices = choicesOf(schema);
  if (["dir", "file"].includes(metaOf(schema).placeholder)) return "a path";
  return choices.length > 0 ? choices.map(code).join(", ") : mustOf(schema);
}

function table(shape) {
  const groups = Map.groupBy
    ? Map.groupBy(Object.entries(shape), ([, schema]) => metaOf(schema).group)
    : Object.entries(shape).reduce((map, entry) => {
        const { group } = metaOf(entry[1]);
        return map.set(group, [...(map.get(group) ?? []), entry]);
      }, new Map());
  const parts = [];
  for (const [group, entries] of groups) {
    parts.push(`### ${group}\n`, "| key | value | default | meaning |", "|---|---|---|---|");
    for (const [key, schema] of entries) {
      const row = [code(key), values(schema), defaultCell(schema), metaOf(schema).description];
      parts.push(`| ${row.map(cell).join(" | ")} |`);
    }
    parts.push("");
  }
  return parts.join("\n");
}

/** Both tasks in one shape: a key that they both have stands once, with both defaults where they differ. */
function runs() {
  const shape = {};
  for (const key of new Set([...Object.keys(sftShape), ...Object.keys(dpoShape)])) {
    const sft = sftShape[key];
    const dpo = dpoShape[key];
    const one = sft ?? dpo;
    const only = sft && dpo ? "" : ` (${sft ? "sft" : "dpo"} only)`;
    const differ = sft && dpo && defaultCell(sft) !== defaultCell(dpo);
    const both = differ ? { defaultText: `${defaultCell(sft)} for sft, ${defaultCell(dpo)} for dpo` } : {};
    shape[key] = one.meta({ ...metaOf(one), ...both, description: metaOf(one).description + only });
  }
  shape.task = sftShape.task.or(dpoShape.task).meta({ ...metaOf(sftShape.task), defaultText: "the command's" });
  return shape;
}

const neutral = Object.entries(runs()).filter(([, schema]) => metaOf(schema).neutral);
const example = Object.keys(dpoShape).find((key) => key.includes("_"));

const text = `<!-- Written by scripts/docs_config.mjs from the schemas. Do not edit. -->

# Configuration

Keys of a run file (YAML), of flags (\`--key value\`, with \`_\` or \`-\`) and of the library are the same: snake_case in files and
flags, camelCase in the library (${code(example)} is ${code(camel(example))}). Flags override the file. Paths are relative to the working
directory. Names and defaults are TRL's where TRL has the key; an unknown key is an error that names the closest one.

\`\`\`yaml
# attune dpo run.yaml
model: ./sft
dataset: pairs.jsonl
output_dir: ./dpo
learning_rate: 5e-7
beta: 0.1
batch_size: 16
\`\`\`

When a run is resumed, these keys may differ from what it was started with: ${neutral.map(([key]) => code(key)).join(", ")}. With a schedule that does not
depend on the run's length (\`constant\`; \`constant_with_warmup\` with a number of steps), \`max_steps\` and \`num_train_epochs\` may differ too.

## sft, dpo

\`plan\`, \`inspect\` and \`profile\` take the same keys.

${table(runs())}
## init

${table(initShape)}
## generate

${table(generateShape)}
## chat

${table(chatShape)}
## score

${table(scoreShape)}`.trimEnd();

const path = fileURLToPath(new URL("docs/config.md", root));
const written = `${text}\n`;
if (process.argv.includes("--check")) {
  let old = "";
  try {
    old = readFileSync(path, "utf8");
  } catch {
    // A missing page differs.
  }
  if (old !== written) {
    console.error(
      "docs/config.md: must be what scripts/docs_config.mjs writes, got another text (run it and commit the page)",
    );
    process.exitCode = 1;
  }
} else writeFileSync(path, written);
