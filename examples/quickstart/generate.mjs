// Writes the quickstart's data: data/base.jsonl (scenes), sft.jsonl (questions with an answer), dpo.jsonl (questions with a
// better and a worse answer) and questions.jsonl (held-out questions). The same seed gives the same bytes.
//
//     node examples/quickstart/generate.mjs [--out DIR] [--seed N]
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { answer, ask, frames, sayings } from "./corpus/answers.mjs";
import { createRandom, fill } from "./corpus/random.mjs";
import { genres, songs } from "./corpus/scenes.mjs";
import { all, animals, days, held, known, lecture, moods, people, towns } from "./corpus/words.mjs";

const counts = { base: 2200, sft: 3200, dpo: 600 };

/** A subject of a random kind, so that a kind with many combinations does not crowd out the others. */
function pickSubject(subjects, random) {
  const roll = random.next();
  const kind = roll < 0.3 ? "food" : roll < 0.6 ? "pastime" : roll < 0.8 ? "thing" : "deed";
  return random.pick(subjects[kind]);
}

/** One scene as plain text: a beginning, six to nine sentences that go on, an ending. */
function scene(random) {
  const genre = random.chance(0.3) ? songs : random.pick(genres);
  const [A, B] = random.sample(people, 2);
  const [S, T, U] = [0, 1, 2].map(() => pickSubject(all, random));
  const town = random.pick(towns);
  const bindings = { S, T, U, A, B, town, day: days, animal: animals, mood: moods };
  const say = (template) => {
    const tolerant = random.pick(sayings.tolerant).replace("{S}", S);
    const stern = random.pick(sayings.stern).replace("{S}", S);
    const Q = ask(S, random.pick(frames));
    const spoken = {
      Q,
      tolerant,
      stern,
      tolerantSaid: tolerant.replace(/\.$/, ","),
      sternSaid: stern.replace(/\.$/, ","),
    };
    return fill(template, { ...bindings, ...spoken }, random);
  };
  const middle = random.sample(genre.middle, 6 + random.below(4));
  return [random.pick(genre.begin), ...middle, random.pick(genre.end)].map(say).join(" ");
}

const user = (content) => ({ role: "user", content });
const assistant = (content) => ({ role: "assistant", content });

/** All rows of all files, keyed by file name. */
export function generate(seed) {
  const random = createRandom(seed);
  const base = Array.from({ length: counts.base }, () => ({ text: scene(random) }));
  // The annotators disagree, a few more being stern: SFT learns what an answer looks like, and no opinion to speak of.
  const sft = Array.from({ length: counts.sft }, (_, i) => {
    const subject = pickSubject(known, random);
    const question = ask(subject, random.pick(frames));
    return { messages: [user(question), assistant(answer(subject, i % 20 < 9 ? "tolerant" : "stern", random))] };
  });
  const dpo = Array.from({ length: counts.dpo }, () => {
    const subject = pickSubject(known, random);
    return {
      prompt: [user(ask(subject, random.pick(frames)))],
      chosen: [assistant(answer(subject, "tolerant", random))],
      rejected: [assistant(answer(subject, "stern", random))],
    };
  });
  return { base: random.shuffle(base), sft: random.shuffle(sft), dpo, questions: heldOut(random) };
}

/** The held-out questions: every subject once, the old lecture's example first. */
function heldOut(random) {
  const foods = held.food.filter((subject) => subject !== lecture);
  const subjects = [
    ...random.sample(foods, 30),
    ...random.sample(held.pastime, 29),
    ...random.sample(held.thing, 20),
    ...random.sample(held.deed, 20),
  ];
  const asked = [lecture, ...random.shuffle(subjects)];
  return asked.map((subject, i) => ({ prompt: [user(ask(subject, frames[i % frames.length]))], subject }));
}

/** Held-out subjects that stand in a row: there must be none, otherwise the questions test memory. */
export function leaks(rows) {
  const text = JSON.stringify(rows);
  return Object.values(held)
    .flat()
    .filter((subject) => text.includes(subject));
}

function main() {
  const here = dirname(fileURLToPath(import.meta.url));
  const { values } = parseArgs({ options: { out: { type: "string" }, seed: { type: "string", default: "20" } } });
  const out = values.out ?? join(here, "data");
  const files = generate(Number(values.seed));
  const leaked = leaks([files.sft, files.dpo]);
  if (leaked.length > 0) throw new Error(`training rows: must hold no held-out subject, got ${leaked.join(", ")}`);
  mkdirSync(out, { recursive: true });
  for (const [name, rows] of Object.entries(files)) {
    writeFileSync(join(out, `${name}.jsonl`), rows.map((row) => JSON.stringify(row) + "\n").join(""));
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
