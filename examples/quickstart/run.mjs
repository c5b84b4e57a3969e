// The quickstart: trains a small language model from nothing in three stages, asks every stage the same held-out
// questions, and fails where a stage does not do what it should. Everything goes through the `attune` command.
//
//     npm run quickstart            (or, in a built clone: node examples/quickstart/run.mjs [--seed N])
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { judge, tally } from "./judge.mjs";
import * as show from "./show.mjs";

const here = "examples/quickstart";
const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const out = "runs/quickstart";
const stages = [
  { name: "base", command: "sft", rows: "scenes", does: "learns to speak" },
  { name: "sft", command: "sft", rows: "conversations", does: "learns to answer" },
  { name: "dpo", command: "dpo", rows: "preferences", does: "learns what is preferred" },
];

/** Runs the command; resolves to its JSON lines. Its messages and progress go to stderr as they are. */
function attune(...args) {
  const command = [join(root, "dist/cli/main.js"), ...args, "--json"];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, command, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (piece) => (text += piece));
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code !== 0) return reject(new Error(`attune ${args[0]} ended with ${signal ?? `code ${code}`}`));
      resolve(lines(text));
    });
  });
}

const lines = (text) => text.split("\n").filter(Boolean).map(JSON.parse);
const rowsOf = (name) => lines(readFileSync(join(root, here, "data", `${name}.jsonl`), "utf8"));

/** What a model says to each question. The base model has never seen a conversation: it gets the question as plain text. */
async function ask(name, questions) {
  const file = join(out, `questions-${name}.jsonl`);
  const prompts = questions.map(({ prompt }) => ({ prompt: name === "base" ? prompt[0].content : prompt }));
  writeFileSync(join(root, file), prompts.map((row) => JSON.stringify(row) + "\n").join(""));
  const sampling = ["--max_new_tokens", "64", "--temperature", "0.4", "--seed", "7"];
  const said = await attune("generate", "--model", join(out, name), "--data", file, ...sampling);
  return said.map(({ completion, finish_reason }) => ({ text: completion, stopped: finish_reason === "stop" }));
}

async function main() {
  const { values } = parseArgs({ options: { seed: { type: "string", default: "1" } } });
  const seed = ["--seed", values.seed];
  mkdirSync(join(root, out), { recursive: true });
  const init = ["--config", `${here}/model`, "--output_dir", `${out}/init`, "--overwrite_output_dir", ...seed];
  const [{ parameters }] = await attune("init", ...init);
  show.title(parameters);

  const training = [];
  for (const stage of stages) {
    const started = performance.now();
    const metrics = await attune(stage.command, `${here}/${stage.name}.yaml`, ...seed);
    training.push({ ...stage, seconds: (performance.now() - started) / 1000, metrics });
    show.trained(training.at(-1), rowsOf(stage.name).length);
  }

  const questions = rowsOf("questions");
  const answers = {};
  for (const { name } of stages) answers[name] = await ask(name, questions);
  const verdicts = Object.fromEntries(
    stages.map(({ name }) => [name, questions.map(({ subject }, i) => judge(subject, answers[name][i]))]),
  );
  const all = questions.map(({ prompt }, i) => ({
    question: prompt[0].content,
    ...Object.fromEntries(stages.map(({ name }) => [name, { ...answers[name][i], ...verdicts[name][i] }])),
  }));
  writeFileSync(join(root, out, "answers.jsonl"), all.map((row) => JSON.stringify(row) + "\n").join(""));

  show.answers(all.slice(0, 4));
  const shares = Object.fromEntries(stages.map(({ name }) => [name, tally(verdicts[name])]));
  const broken = show.table(shares, questions.length);
  show.next(out, training);
  if (broken > 0) process.exitCode = 1;
}

await main().catch((error) => {
  console.error(`quickstart: ${error.message}`);
  process.exitCode = 1;
});
