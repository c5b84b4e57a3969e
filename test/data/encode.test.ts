// What a row becomes, where TRL's rules are not the whole story: boundaries, trunks, BOS, stop tokens, templates without marks.

import { describe, expect, it } from "vitest";
import { fromJs } from "#lib/data/json.js";
import type { JsonObject } from "#lib/data/json.js";
import type { EncodeOptions, EncodedRow } from "#lib/data/encode.js";
import { inspectRecord } from "#lib/data/inspect.js";
import { endTokens } from "#lib/data/stop.js";
import { ChatTemplate, templateDate } from "#lib/data/template.js";
import { loadTokenizer } from "#lib/data/tokenizer.js";
import { dpo, encoderOf, fixture, positions, sft } from "./fixtures.ts";

const MARKED =
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}" +
  "{% generation %}{{ m['content'] + '<|im_end|>\n' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "");
const user = (content: string): object => ({ role: "user", content });
const assistant = (content: string): object => ({ role: "assistant", content });
const chatml = loadTokenizer(fixture("tokenizers/chatml"));

async function encode(
  row: object,
  options: EncodeOptions,
  template: string | null = null,
  tokenizer = "chatml",
): Promise<EncodedRow> {
  const encoder = await encoderOf(tokenizer, options, template);
  const [encoded] = await encoder.encode([{ row: 0, value: fromJs(row) as JsonObject }]);
  return encoded!;
}
const branch = (e: EncodedRow, b = 0): number[] => [...e.tree.trunk, ...e.tree.branches[b]!.ids];
/** The text that has a loss. */
async function trainedText(e: EncodedRow, b = 0): Promise<string> {
  const ids = branch(e, b);
  return chatml.decode(positions(e.tree.branches[b]!.trained).map((at) => ids[at]!));
}

describe("a preference row", () => {
  const row = { prompt: [user("Is it?")], chosen: [assistant("No, it is not.")], rejected: [assistant("No way")] };

  it("shares its prompt as the trunk, not the start of its answers", async () => {
    const e = await encode(row, dpo, MARKED);
    const prompt = (
      await chatml.encode([{ text: "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n", special: false }])
    )[0]!.ids;
    expect([...e.tree.trunk]).toEqual(prompt);
    expect(await trainedText(e, 0)).toBe("No, it is not.<|im_end|>\n");
    expect(await trainedText(e, 1)).toBe("No way<|im_end|>\n");
    for (const b of e.tree.branches) expect(b.trained).toEqual([[prompt.length, prompt.length + b.ids.length]]);
  });

  it("scores a token that merges prompt and completion with the completion, and says so", async () => {
    // "an" and "d" tokenised apart are another pair of tokens than "and" in one.
    const apart = (await chatml.encode([{ text: "some people s", special: false }]))[0]!.ids;
    const e = await encode({ prompt: "some people s", chosen: "ay so", rejected: "it" }, dpo);
    const chosen = branch(e, 0);
    expect(chosen.slice(0, apart.length)).not.toEqual(apart);
    expect(await chatml.decode(chosen)).toBe("some people say so<|im_end|>");
    expect(e.warnings).toContain("boundary_merge");
    const first = e.tree.branches[0]!.trained[0]![0];
    expect(chosen.slice(0, first)).toEqual(apart.slice(0, first));
    expect(chosen[first]).not.toBe(apart[first]);
    expect(e.tree.trunk.length).toBeLessThanOrEqual(first);
  });

  it("never trains position 0, whatever the prompt", async () => {
    const e = await encode({ prompt: "", chosen: "x y", rejected: "z y" }, dpo);
    expect(e.tree.trunk.length).toBe(0);
    for (const b of e.tree.branches) expect(b.trained).toEqual([[1, b.ids.length]]);
  });

  it("may begin with the answer in a conversation", async () => {
    const e = await encode({ chosen: [assistant("a b")], rejected: [assistant("c d")] }, dpo, MARKED);
    expect(e.dropped).toBe(null);
    expect(e.tree.trunk.length).toBe(0);
  });

  it("is dropped where its prompt fills max_length, and cut alike on both sides where it does not", async () => {
    const { length } = (await encode(row, dpo, MARKED)).tree.trunk;
    const full = await encode(row, { ...dpo, maxLength: length }, MARKED);
    expect([full.dropped, full.invalid]).toEqual(["prompt_fills_max_length", null]);
    const cut = await encode(row, { ...dpo, maxLength: length + 1 }, MARKED);
    expect(cut.dropped).toBe(null);
    expect(cut.tree.branches.map((b) => b.trained)).toEqual([[[length, length + 1]], [[length, length + 1]]]);
    expect(cut.warnings).toContain("truncated");
    // Both answers begin with "No": after the cut they are the same.
    expect(cut.warnings).toContain("same_tokens");
  });

  it("is shown whole by inspect, also where it must not be trained on", async () => {
    const same = { prompt: "p\n", chosen: "c", rejected: "c" };
    const record = inspectRecord(await encode(same, dpo));
    expect(record).toMatchObject({ row: 0, dropped: "equal_pair" });
    if (!("chosen" in record)) throw new Error("a preference record has chosen");
    expect(await chatml.decode(record.chosen.input_ids)).toBe("p\nc<|im_end|>");
    expect(record.trunk).toBe(record.chosen.trained[0]![0]);
  });
});

describe("BOS and EOS", () => {
  it("BOS comes from the tokenizer for texts and from the template for conversations, once", async () => {
    const text = branch(await encode({ text: "hello" }, sft, null, "llama"));
    expect(text.filter((id) => id === 0)).toEqual([0]);
    const chat = branch(
      await encode({ messages: [user("q"), assistant("a")] }, sft, "{{ bos_token }}" + UNMARKED, "llama"),
    );
    expect([chat[0], chat.filter((id) => id === 0).length]).toEqual([0, 1]);
  });

  it("two BOS are refused", async () => {
    const e = await encode({ text: "<|begin_of_text|>hello" }, sft, null, "llama");
    expect(e.dropped).toBe("bos_twice");
    expect(e.invalid).toMatch(/must begin with one BOS token, got two/);
  });

  it("EOS ends texts and completions, and is not added where it is there already or was cut off", async () => {
    const eos = chatml.eos!;
    const ends = async (row: object, options = sft): Promise<number> =>
      branch(await encode(row, options)).filter((id) => id === eos).length;
    expect(await ends({ text: "hello" })).toBe(1);
    expect(await ends({ text: "hello<|im_end|>" })).toBe(1);
    expect(await ends({ prompt: "p\n", completion: "c" })).toBe(1);
    expect(await ends({ text: "hello there, how are you" }, { ...sft, maxLength: 4 })).toBe(0);
  });

  it("the stop token is the last special token of a turn, else eos", async () => {
    const stopOf = async (name: string, source: string | null): Promise<string | null> => {
      const tok = loadTokenizer(fixture(`tokenizers/${name}`));
      const sources = new Map(source === null ? [] : [["default", source]]);
      const chat = source === null ? null : new ChatTemplate({ sources, special: tok.special, date: new Date() });
      return tok.idToToken((await endTokens(tok, chat)).stop!);
    };
    expect(await stopOf("chatml", MARKED)).toBe("<|im_end|>");
    expect(await stopOf("chatml", null)).toBe("<|im_end|>");
    expect(
      await stopOf(
        "llama",
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content }}<|eom_id|>\n{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}",
      ),
    ).toBe("<|eom_id|>");
    expect(await stopOf("llama", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")).toBe(
      "<|eot_id|>",
    );
    expect(await stopOf("llama", "{{ raise_exception('no') }}")).toBe("<|eot_id|>");
  });

  it("a turn without its stop token is a warning", async () => {
    const template = MARKED.replace(
      "m['content'] + '<|im_end|>\n' }}{% endgeneration %}",
      "m['content'] }}{% endgeneration %}<|im_end|>\n",
    );
    const row = { messages: [user("q"), assistant("a")] };
    expect((await encode(row, { ...sft, assistantOnlyLoss: true }, template)).warnings).toEqual(["no_stop_token"]);
    expect((await encode(row, { ...sft, assistantOnlyLoss: true }, MARKED)).warnings).toEqual([]);
  });
});

describe("conversations", () => {
  const row = {
    messages: [{ role: "system", content: "s" }, user("one"), assistant("1 \u{1F600}"), user("two"), assistant("2")],
  };
  const options = { ...sft, assistantOnlyLoss: true };

  it("have the same masks with and without marks, where every turn renders alike", async () => {
    const [marked, unmarked] = [await encode(row, options, MARKED), await encode(row, options, UNMARKED)];
    expect(unmarked).toEqual(marked);
    expect(await trainedText(marked)).toBe("1 \u{1F600}<|im_end|>\n2<|im_end|>\n");
  });

  it("are refused where an unmarked template renders a turn differently when more follows", async () => {
    const moody = UNMARKED.replace(
      "{{ m['content'] + '<|im_end|>\n' }}",
      "{{ ('' if loop.last else 'old ') + m['content'] + '<|im_end|>\n' }}",
    );
    const e = await encode(row, options, moody);
    expect(e.dropped).toBe("unmarked_template");
    expect(e.invalid).toMatch(/\{% generation %\}.*chat_template_path/s);
  });

  it("without a template name the key that gives one", async () => {
    const e = await encode(row, sft);
    expect(e.dropped).toBe("no_chat_template");
    expect(e.invalid).toMatch(/set chat_template_path/);
  });

  it("without an assistant turn have nothing to train on", async () => {
    expect((await encode({ messages: [user("q")] }, options, MARKED)).dropped).toBe("no_trained_tokens");
  });

  it("pass on what the template raises", async () => {
    const e = await encode(row, sft, "{{ raise_exception('System role not supported') }}");
    expect([e.dropped, e.invalid]).toEqual([
      "template_error",
      "the chat template must render the conversation, got an error: System role not supported",
    ]);
  });

  it("use the tokenizer's tool template for rows with tools", async () => {
    const tok = loadTokenizer(fixture("tokenizers/metaspace"));
    const first = async (r: object): Promise<string> =>
      tok.decode(branch(await encode(r, sft, null, "metaspace")).slice(0, 3));
    expect(await first({ messages: [user("q"), assistant("a")] })).toMatch(/^<s>/);
    expect(await first({ messages: [user("q"), assistant("a")], tools: [{ name: "t" }] })).toMatch(/^T ?<s>/);
  });
});

describe("content that spells a special token", () => {
  const row = { messages: [user("say <|im_end|> now"), assistant("a")] };

  it("makes the token, as in TRL, with a warning", async () => {
    const e = await encode(row, sft, MARKED);
    expect([e.dropped, e.warnings]).toEqual([null, ["special_token_in_content"]]);
    expect(branch(e).filter((id) => id === chatml.eos).length).toBe(3);
  });

  it("is dropped where that is asked for, and is then no invalid row", async () => {
    const e = await encode(row, { ...sft, specialTokensInContent: "drop" }, MARKED);
    expect([e.dropped, e.invalid, e.fatal]).toEqual(["special_token_in_content", null, false]);
  });

  it("stops the run where that is asked for", async () => {
    const e = await encode(row, { ...sft, specialTokensInContent: "error" }, MARKED);
    expect([e.fatal, e.invalid]).toEqual([true, 'a message must not spell a special token, got "<|im_end|>"']);
  });

  it("is looked for in tool calls and reasoning too, not in plain texts", async () => {
    const calls = [{ type: "function", function: { name: "f", arguments: { x: "<|im_start|>" } } }];
    const e = await encode(
      { messages: [user("q"), { role: "assistant", content: "a", tool_calls: calls }] },
      sft,
      MARKED,
    );
    expect(e.warnings).toEqual(["special_token_in_content"]);
    expect((await encode({ text: "rendered<|im_end|>" }, sft)).warnings).toEqual([]);
  });
});

describe("options", () => {
  it("assistant_only_loss needs conversations", async () => {
    expect((await encode({ text: "t" }, { ...sft, assistantOnlyLoss: true })).dropped).toBe("not_conversational");
  });

  it("dates come from chat_template_date", () => {
    const chat = new ChatTemplate({
      sources: new Map([["default", "{{ strftime_now('%d %b %Y') }}"]]),
      special: new Map(),
      date: templateDate("2024-02-29"),
    });
    expect(chat.render({ messages: [] }).text).toBe("29 Feb 2024");
    for (const bad of ["2023-02-29", "yesterday", "2024-13-01", "20240101"])
      expect(() => templateDate(bad)).toThrow(/chat_template_date: must be a date/);
  });
});
