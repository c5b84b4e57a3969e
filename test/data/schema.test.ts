// What rows mean: TRL's data set types, ShareGPT, implicit prompts, and the rows that must not be trained on.

import { describe, expect, it } from "vitest";
import { splitConversations, splitTexts } from "#lib/data/implicit_prompt.js";
import { fromJs } from "#lib/data/json.js";
import type { JsonObject } from "#lib/data/json.js";
import { RowError, readExample } from "#lib/data/schema.js";
import type { Example, Message, ReadExample, SchemaOptions } from "#lib/data/schema.js";

const read = (row: object, options: Partial<SchemaOptions> = {}): ReadExample =>
  readExample(fromJs(row) as JsonObject, { task: "sft", ...options });
const dpo = (row: object): ReadExample => read(row, { task: "dpo" });
const user = (content: string): object => ({ role: "user", content });
const assistant = (content: string): object => ({ role: "assistant", content });
const plain = (v: unknown): unknown =>
  v instanceof Map ? Object.fromEntries([...v].map(([k, x]) => [k, plain(x)])) : Array.isArray(v) ? v.map(plain) : v;
const example = (e: ReadExample): unknown =>
  Object.fromEntries(Object.entries(e.example).map(([k, v]) => [k, plain(v)]));

function reason(f: () => ReadExample): string {
  try {
    return f().problem?.reason ?? "fine";
  } catch (e) {
    if (!(e instanceof RowError)) throw e;
    return e.reason;
  }
}

describe("rows for SFT", () => {
  it("are texts, conversations, or a prompt with its completion", () => {
    expect(example(read({ text: "t" }))).toEqual({ kind: "language", content: "t" });
    expect(example(read({ messages: [user("q"), assistant("a")] }))).toEqual({
      kind: "language",
      content: [user("q"), assistant("a")],
    });
    expect(example(read({ prompt: "p", completion: "c" }))).toEqual({
      kind: "completion",
      prompt: "p",
      completion: "c",
    });
    expect(example(read({ prompt: [user("q")], completion: [assistant("a")] }))).toEqual({
      kind: "completion",
      prompt: [user("q")],
      completion: [assistant("a")],
    });
  });

  it("may have other columns, and a prompt beside messages (ultrachat)", () => {
    expect(example(read({ prompt: "q", prompt_id: "1", messages: [user("q"), assistant("a")] }))).toEqual({
      kind: "language",
      content: [user("q"), assistant("a")],
    });
  });

  it("may keep their text in another column", () => {
    expect(example(read({ body: "t" }, { textField: "body" }))).toEqual({ kind: "language", content: "t" });
  });

  it("may be ShareGPT's, whose roles are mapped", () => {
    const from = (who: string, value: string): object => ({ from: who, value });
    expect(example(read({ conversations: [from("system", "s"), from("human", "q"), from("gpt", "a")] }))).toEqual({
      kind: "language",
      content: [{ role: "system", content: "s" }, user("q"), assistant("a")],
    });
  });

  it("take further role names from the role map", () => {
    const row = { messages: [{ role: "prompter", content: "q" }, assistant("a")] };
    expect(reason(() => read(row))).toBe("unknown_role");
    expect(example(read(row, { roleMap: { prompter: "user" } }))).toEqual({
      kind: "language",
      content: [user("q"), assistant("a")],
    });
  });

  it("take tools as a list or as its JSON, and arguments for the template", () => {
    const messages = [user("q"), assistant("a")];
    expect(plain(read({ messages, tools: [{ name: "t" }] }).tools)).toEqual([{ name: "t" }]);
    expect(plain(read({ messages, tools: '[{"name": "t"}]' }).tools)).toEqual([{ name: "t" }]);
    expect(read({ messages, tools: null }).tools).toBe(null);
    expect(plain(read({ messages, chat_template_kwargs: { enable_thinking: false } }).templateKwargs)).toEqual({
      enable_thinking: false,
    });
  });

  it("may leave content out beside tool calls", () => {
    expect(
      reason(() => read({ messages: [user("q"), { role: "assistant", content: null, tool_calls: [{ name: "f" }] }] })),
    ).toBe("fine");
  });
});

describe("rows for DPO", () => {
  it("are a prompt with two completions, as texts or conversations", () => {
    expect(example(dpo({ prompt: "p", chosen: "c", rejected: "r" }))).toEqual({
      kind: "preference",
      prompt: "p",
      chosen: "c",
      rejected: "r",
    });
    expect(example(dpo({ prompt: [user("q")], chosen: [assistant("a")], rejected: [assistant("b")] }))).toEqual({
      kind: "preference",
      prompt: [user("q")],
      chosen: [assistant("a")],
      rejected: [assistant("b")],
    });
  });

  it("without a prompt share their leading messages", () => {
    expect(example(dpo({ chosen: [user("q"), assistant("a")], rejected: [user("q"), assistant("b")] }))).toEqual({
      kind: "preference",
      prompt: [user("q")],
      chosen: [assistant("a")],
      rejected: [assistant("b")],
    });
  });

  it("with a prompt text beside conversations go by the conversations (ultrafeedback_binarized)", () => {
    const row = { chosen: [user("q"), assistant("a")], rejected: [user("q"), assistant("b")] };
    expect(dpo({ prompt: "q", ...row })).toEqual(dpo(row));
    expect(dpo({ prompt: "another", ...row }).warnings).toEqual(["prompt_ignored"]);
  });

  it("that repeat their prompt in chosen get a warning", () => {
    const row = { prompt: [user("q")], chosen: [user("q"), assistant("a")], rejected: [user("q"), assistant("b")] };
    expect(dpo(row).warnings).toEqual(["prompt_repeated"]);
  });
});

describe("the prompt that two texts share", () => {
  const split = (a: string, b: string): string[] => Object.values(splitTexts(a, b));
  const prefix = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more\n\nAssistant:";

  it("ends after hh-rlhf's last turn of the assistant, also where the answers begin alike", () => {
    expect(split(`${prefix} I think so.`, `${prefix} I think not.`)).toEqual([prefix, " I think so.", " I think not."]);
    expect(split(`${prefix} Yes`, `${prefix} Yes, please`)).toEqual([prefix, " Yes", " Yes, please"]);
    expect(split(`${prefix} a`, `${prefix}`)).toEqual([prefix, " a", ""]);
  });

  it("ends after the last turn that both have", () => {
    const first = "\n\nHuman: hi\n\nAssistant:";
    expect(split(`${first} a\n\nHuman: x\n\nAssistant: b`, `${first} c`)).toEqual([
      first,
      " a\n\nHuman: x\n\nAssistant: b",
      " c",
    ]);
  });

  it("otherwise never cuts a word, and leaves a blank to the completion and a line end to the prompt", () => {
    expect(split("The sky is blue", "The sky is black")).toEqual(["The sky is", " blue", " black"]);
    expect(split("Q: sky?\nyes", "Q: sky?\nyesterday")).toEqual(["Q: sky?\n", "yes", "yesterday"]);
    expect(split("a b", "a b c")).toEqual(["a", " b", " b c"]);
    expect(split("abc", "abd")).toEqual(["", "abc", "abd"]);
  });

  it("always gives the texts back", () => {
    const words = ["a", " ", "b", "\n\nAssistant:", "\n", "ab"];
    let seed = 3;
    const random = (n: number): number => (seed = (seed * 48271) % 2147483647) % n;
    const text = (): string => Array.from({ length: random(7) }, () => words[random(words.length)]).join("");
    for (let i = 0; i < 5000; i++) {
      const [a, b] = [text(), text()];
      const { prompt, chosen, rejected } = splitTexts(a, b);
      expect([prompt + chosen, prompt + rejected]).toEqual([a, b]);
    }
  });

  it("leaves each conversation at least one message", () => {
    const m = (content: string): Message => fromJs(user(content)) as Message;
    const { prompt, chosen, rejected } = splitConversations([m("1"), m("2")], [m("1"), m("2"), m("3")]);
    expect([prompt.length, chosen.length, rejected.length]).toEqual([1, 1, 2]);
  });
});

describe("rows that must not be trained on", () => {
  const sftCases: Record<string, [string, object]> = {
    "no known columns": ["unknown_columns", { question: "q", answer: "a" }],
    "preference data": ["unknown_columns", { chosen: "a", rejected: "b" }],
    "a text that is none": ["wrong_type", { text: 3 }],
    "an empty text": ["empty_text", { text: "" }],
    "no messages": ["empty_conversation", { messages: [] }],
    "messages that are a text": ["wrong_type", { messages: "hello" }],
    "a message that is a text": ["wrong_type", { messages: ["hello"] }],
    "a message without a role": ["wrong_type", { messages: [{ content: "x" }] }],
    "an unknown role": ["unknown_role", { messages: [{ role: "human", content: "x" }] }],
    "an unknown ShareGPT role": ["unknown_role", { conversations: [{ from: "bing", value: "x" }] }],
    "a prototype's name as a role": ["unknown_role", { conversations: [{ from: "constructor", value: "x" }] }],
    "content that is a number": ["wrong_type", { messages: [{ role: "user", content: 3 }] }],
    "no content": ["wrong_type", { messages: [user("q"), { role: "assistant" }] }],
    "a picture": ["wrong_type", { messages: [{ role: "user", content: [{ type: "image", text: "x" }] }] }],
    "an empty completion": ["empty_completion", { prompt: "p", completion: "" }],
    "a completion of empty turns": ["empty_completion", { prompt: [user("q")], completion: [assistant("")] }],
    "no completion messages": ["empty_completion", { prompt: [user("q")], completion: [] }],
    "a prompt of one kind and a completion of the other": ["wrong_type", { prompt: "p", completion: [assistant("a")] }],
    "half a surrogate pair": ["bad_text", { text: "a\ud800" }],
    "tools that are no list": ["wrong_type", { messages: [user("q"), assistant("a")], tools: { a: 1 } }],
    "tools whose JSON is broken": ["wrong_type", { messages: [user("q"), assistant("a")], tools: "[" }],
    "template arguments that are no object": ["wrong_type", { messages: [user("q")], chat_template_kwargs: [1] }],
    "template arguments that the run decides": [
      "wrong_type",
      { messages: [user("q")], chat_template_kwargs: { add_generation_prompt: true } },
    ],
  };
  for (const [name, [why, row]] of Object.entries(sftCases)) it(name, () => expect(reason(() => read(row))).toBe(why));

  const dpoCases: Record<string, [string, object]> = {
    "a pair without rejected": ["unknown_columns", { prompt: "p", chosen: "c" }],
    "a pair without a difference": ["equal_pair", { prompt: "p", chosen: "c", rejected: "c" }],
    "a pair of the same conversations": [
      "equal_pair",
      { prompt: [user("q")], chosen: [assistant("a")], rejected: [{ content: "a", role: "assistant" }] },
    ],
    "an empty chosen": ["empty_completion", { prompt: "p", chosen: "", rejected: "c" }],
    "chosen and rejected of two kinds": ["wrong_type", { prompt: "p", chosen: "c", rejected: [assistant("a")] }],
  };
  for (const [name, [why, row]] of Object.entries(dpoCases)) it(name, () => expect(reason(() => dpo(row))).toBe(why));

  it("say what must hold, what was there and how to mend it", () => {
    expect(() => read({ messages: [{ role: "human", content: "x" }] })).toThrow(
      'messages[0].role must be one of system, developer, user, assistant, tool, function, ipython, got "human" (rename it)',
    );
    expect(() => read({ chosen: "a", rejected: "b" })).toThrow(
      /got "chosen", "rejected" \(this looks like preference data: train it with dpo\)/,
    );
  });

  it("can still be shown: the example is there beside the problem", () => {
    const { example: e, problem } = dpo({ prompt: "p", chosen: "c", rejected: "c" });
    expect(problem?.reason).toBe("equal_pair");
    expect((e as Extract<Example, { kind: "preference" }>).chosen).toBe("c");
  });
});
