// What the quickstart prints: a line per stage, answers side by side, the table of promises, where to go from here.
import { keeps, promises } from "./judge.mjs";

const colour = process.stdout.isTTY && !process.env.NO_COLOR;
const paint = (code) => (text) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text);
const [bold, dim, red, green] = ["1", "2", "31", "32"].map(paint);
const say = (...parts) => console.log(parts.join(""));
const percent = (share) => `${Math.round(share * 100)}%`;
const count = (n) => n.toLocaleString("en-US");

export function title(parameters) {
  say(bold(`\nA language model of ${count(parameters)} parameters learns to speak, to answer and to prefer`), "\n");
}

/** `stage` has its name, what it does, its seconds and the lines that the run printed. */
export function trained({ name, does, rows, seconds, metrics }, rowCount) {
  const losses = metrics.flatMap(({ loss }) => (typeof loss === "number" ? [loss.toFixed(2)] : []));
  const what = `${does} from ${count(rowCount)} ${rows}`.padEnd(48);
  const loss = `loss ${losses[0]} -> ${losses.at(-1)}`.padEnd(20);
  say(`  ${bold(name.padEnd(5))} ${what} ${loss} ${seconds.toFixed(0).padStart(4)} s`);
}

/** Rows of {question, base, sft, dpo}: what each stage said. */
export function answers(rows) {
  say(bold("\nWhat each stage says to questions that no training row asks"));
  for (const { question, ...said } of rows) {
    say("\n  ", bold(question));
    for (const [name, { text, stopped }] of Object.entries(said)) {
      const [first, ...rest] = wrap(text.trim().replaceAll(/\s+/g, " ") + (stopped ? "" : " ..."), 90);
      say("  ", dim(name.padEnd(5)), " ", first);
      for (const line of rest) say("        ", line);
    }
  }
}

function wrap(text, width) {
  const out = [""];
  for (const word of text.split(" ")) {
    if (out.at(-1) !== "" && out.at(-1).length + 1 + word.length > width) out.push(word);
    else out.push((out.pop() + " " + word).trimStart());
  }
  return out;
}

const rowsOf = { answers: "answers in the right form, and stops", tolerant: "  and prefers the tolerant side" };

/** Prints the shares of each stage beside what was promised. @returns the number of promises broken. */
export function table(shares, asked) {
  const stages = Object.keys(shares);
  say("\n  ", bold(`of ${asked} held-out questions`.padEnd(38)), stages.map((name) => bold(name.padEnd(18))).join(""));
  let broken = 0;
  for (const [figure, label] of Object.entries(rowsOf)) {
    const cells = stages.map((stage) => {
      const share = shares[stage][figure];
      const promise = promises.find((one) => one.stage === stage && one.figure === figure);
      if (!promise) return "-".padEnd(18);
      const kept = keeps(promise, share);
      if (!kept) broken++;
      const cell = `${percent(share)} (${must(promise)}) `;
      return cell + (kept ? green("ok") : red("MISSED")) + " ".repeat(Math.max(0, 18 - cell.length - (kept ? 2 : 6)));
    });
    say("  ", label.padEnd(38), cells.join(""));
  }
  if (broken > 0) say(red(`\n  ${broken} of ${promises.length} promises broken: the quickstart has failed.`));
  return broken;
}

function must({ below, atMost, atLeast }) {
  if (below !== undefined) return `< ${percent(below)}`;
  return atMost === undefined ? `>= ${percent(atLeast)}` : `<= ${percent(atMost)}`;
}

/** Where the results are and what to try next. */
export function next(out, training) {
  const seconds = training.reduce((sum, stage) => sum + stage.seconds, 0);
  say(`\n  training   ${seconds.toFixed(0)} s in all`);
  say(`  answers    ${out}/answers.jsonl`);
  for (const { name } of training) say(`  report     ${out}/${name}/report.html`);
  say(`  chat       npx attune chat --model ${out}/dpo\n`);
}
