import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { resolveConfig } from "#lib/train/config.js";
import { parseRunFile } from "#lib/train/config_file.js";
import { frames } from "../../examples/quickstart/corpus/answers.mjs";
import { createRandom, fill } from "../../examples/quickstart/corpus/random.mjs";
import { all, held } from "../../examples/quickstart/corpus/words.mjs";
import { generate, leaks } from "../../examples/quickstart/generate.mjs";
import { judge } from "../../examples/quickstart/judge.mjs";

const root = new URL("../../", import.meta.url);
const folder = new URL("examples/quickstart/", root);
const read = (path: string) => readFileSync(new URL(path, folder), "utf8");
const lines = (name: string) => read(`data/${name}.jsonl`).trimEnd().split("\n");
const [base, sft, dpo, questions] = ["base", "sft", "dpo", "questions"].map((name) =>
  lines(name).map((line) => JSON.parse(line)),
) as [any[], any[], any[], any[]];

/** The subject of a question, by the frames of the generator. */
function subjectOf(question: string): string {
  for (const frame of frames as string[]) {
    const [before, after] = frame.split("{S}") as [string, string];
    if (question.startsWith(before) && question.endsWith(after)) return question.slice(before.length, -after.length);
  }
  throw new Error(`no frame fits ${question}`);
}
const verdict = (question: string, text: string) => judge(subjectOf(question), { text, stopped: true });

describe("the committed data", () => {
  it("is what the generator writes", () => {
    for (const [name, made] of Object.entries(generate(20) as Record<string, unknown[]>)) {
      expect(lines(name), name).toEqual(made.map((row) => JSON.stringify(row)));
    }
  });

  it("is other data for another seed", () => {
    expect(JSON.stringify(generate(21))).not.toBe(JSON.stringify(generate(20)));
  });

  it("is small", () => {
    const data = new URL("data/", folder);
    const bytes = readdirSync(data).reduce((sum, name) => sum + statSync(new URL(name, data)).size, 0);
    expect(bytes).toBeLessThan(3_000_000);
  });

  it("reads as English: no blank left open, no double stop, one space between words", () => {
    const texts = [...base, ...sft, ...dpo, ...questions].map((row) => JSON.stringify(row));
    expect(texts.filter((text) => /\{[A-Za-z^]|undefined|\.\.|  | ,| \./.test(text))).toEqual([]);
  });
});

describe("held-out questions", () => {
  it("are a hundred, all different, the old lecture's example first", () => {
    expect(questions[0].prompt).toEqual([{ role: "user", content: "Is pineapple on pizza a crime?" }]);
    expect(new Set(questions.map(({ subject }) => subject)).size).toBe(100);
    for (const { prompt, subject } of questions) expect(subjectOf(prompt[0].content)).toBe(subject);
  });

  it("are about subjects that stand in no row of SFT or DPO", () => {
    const rows = [...lines("sft"), ...lines("dpo")];
    expect(questions.filter(({ subject }) => rows.some((row) => row.includes(subject)))).toEqual([]);
    expect(leaks([...sft, ...dpo])).toEqual([]);
    expect(leaks([{ text: "I like pineapple on pizza." }])).toEqual(["pineapple on pizza"]);
  });

  it("are about words that the base corpus knows", () => {
    const known = new Set(base.flatMap(({ text }) => text.match(/[A-Za-z-]+/g)));
    const words = questions.flatMap(({ subject }) => subject.split(" "));
    expect(words.filter((word) => !known.has(word))).toEqual([]);
  });

  it("are a small part of all subjects", () => {
    const count = (kinds: Record<string, string[]>) => Object.values(kinds).flat().length;
    expect(count(held) / count(all)).toBeGreaterThan(0.1);
    expect(count(held) / count(all)).toBeLessThan(0.15);
  });
});

describe("training answers", () => {
  it("of SFT have the right form and take both sides about equally", () => {
    const verdicts = sft.map(({ messages }) => verdict(messages[0].content, messages[1].content));
    expect(verdicts.filter(({ good }) => !good)).toEqual([]);
    const tolerant = verdicts.filter(({ stance }) => stance === "tolerant").length / sft.length;
    expect(Math.abs(tolerant - 0.5)).toBeLessThanOrEqual(0.06);
  });

  it("of DPO are well formed too: the tolerant one is chosen, the stern one rejected", () => {
    for (const { prompt, chosen, rejected } of dpo) {
      const question = prompt[0].content;
      expect(verdict(question, chosen[0].content)).toEqual({ good: true, stance: "tolerant", why: null });
      expect(verdict(question, rejected[0].content)).toEqual({ good: true, stance: "stern", why: null });
    }
  });

  it("are varied: hardly any is written twice", () => {
    const answers = sft.map(({ messages }) => messages[1].content);
    expect(new Set(answers).size / answers.length).toBeGreaterThan(0.9);
  });

  it("never follow a question in the base corpus", () => {
    expect(base.filter(({ text }) => /\? (Yes|No)\b/.test(text))).toEqual([]);
  });
});

describe("run files", () => {
  it.each(["base", "sft", "dpo"])("%s.yaml is a run that attune accepts, on files that exist", (name) => {
    const { values } = parseRunFile(name, read(`${name}.yaml`));
    const { config } = resolveConfig(name === "dpo" ? "dpo" : "sft", values);
    expect(existsSync(new URL(config.dataset as string, root))).toBe(true);
    expect(config.outputDir).toBe(`runs/quickstart/${name}`);
  });
});

describe("templates", () => {
  it("refuse a key that nothing binds", () => {
    expect(() => fill("{nobody} knows.", {}, createRandom(1))).toThrow('{nobody} must be bound, in "{nobody} knows."');
  });

  it("start with a capital where asked to", () => {
    expect(fill("{^A} saw {A.him}.", { A: { name: "the mayor", him: "her" } }, createRandom(1))).toBe(
      "The mayor saw her.",
    );
  });
});
