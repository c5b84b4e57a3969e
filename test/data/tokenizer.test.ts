// Loading tokenizers from the folders that transformers 4 and 5 write.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { loadTokenizer } from "#lib/data/tokenizer.js";
import { fixture } from "./fixtures.ts";

const folder = mkdtempSync(join(tmpdir(), "attune-tok-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let copies = 0;

/** A copy of a fixture tokenizer with some files changed; null removes one. */
function changed(name: string, files: Record<string, object | string | null>): string {
  const path = join(folder, String(copies++));
  cpSync(fixture(`tokenizers/${name}`), path, { recursive: true });
  for (const [file, content] of Object.entries(files)) {
    if (content === null) rmSync(join(path, file));
    else writeFileSync(join(path, file), typeof content === "string" ? content : JSON.stringify(content));
  }
  return path;
}
const config = (name: string): Record<string, unknown> =>
  JSON.parse(readFileSync(fixture(`tokenizers/${name}/tokenizer_config.json`), "utf8")) as Record<string, unknown>;

describe("a tokenizer", () => {
  it("ignores the truncation and padding that its file stores", async () => {
    const tok = loadTokenizer(fixture("tokenizers/chatml"));
    const stored = JSON.parse(readFileSync(fixture("tokenizers/chatml/tokenizer.json"), "utf8")) as {
      truncation: unknown;
      padding: unknown;
    };
    expect(stored.truncation).not.toBe(null);
    expect(stored.padding).not.toBe(null);
    const [long, short] = await tok.encode([
      { text: "x".repeat(20), special: false },
      { text: "x", special: true },
    ]);
    expect([long!.ids.length > 5, short!.ids.length]).toEqual([true, 1]);
  });

  it("adds what its post-processor adds only where asked", async () => {
    const tok = loadTokenizer(fixture("tokenizers/llama"));
    const [plain, special] = await tok.encode([
      { text: "a", special: false },
      { text: "a", special: true },
    ]);
    expect(special!.ids).toEqual([tok.bos, ...plain!.ids]);
  });

  it("finds tokens by code point, not by UTF-16 unit", async () => {
    const tok = loadTokenizer(fixture("tokenizers/chatml"));
    const [e] = await tok.encode([{ text: "\u{1F600}<|im_end|>", special: false }]);
    expect(e!.ids[e!.tokenAt(1)!]).toBe(tok.eos);
    expect(e!.tokenAt(11)).toBe(null);
  });

  it("decodes what it encoded", async () => {
    for (const name of ["chatml", "llama", "metaspace"]) {
      const tok = loadTokenizer(fixture(`tokenizers/${name}`));
      const text = "The quick h\u00e9llo \u{1F600} \u4e2d\u6587\n  x";
      const [e] = await tok.encode([{ text, special: true }]);
      expect(await tok.decode(e!.ids, true), name).toBe(text);
    }
  });

  it("reads both spellings of special tokens and templates", () => {
    const five = loadTokenizer(fixture("tokenizers/chatml"));
    expect([...five.special].sort()).toEqual([
      ["eos_token", "<|im_end|>"],
      ["pad_token", "<|endoftext|>"],
    ]);
    const four = loadTokenizer(fixture("tokenizers/metaspace"));
    expect(Object.fromEntries(four.special)).toEqual({
      bos_token: "<s>",
      eos_token: "</s>",
      unk_token: "<unk>",
      pad_token: "</s>",
    });
    expect([...four.templates.keys()]).toEqual(["default", "tool_use"]);
    const file = loadTokenizer(changed("metaspace", { "chat_template.jinja": "new" }));
    expect([...file.templates]).toEqual([["default", "new"]]);
    const text = loadTokenizer(
      changed("chatml", { "tokenizer_config.json": { ...config("chatml"), chat_template: "old" } }),
    );
    expect([...text.templates]).toEqual([["default", "old"]]);
  });

  it("adds special tokens that the vocabulary lacks, as transformers does", async () => {
    const tok = loadTokenizer(
      changed("chatml", {
        "tokenizer_config.json": { ...config("chatml"), eos_token: "<|new|>", extra_special_tokens: ["<|extra|>"] },
      }),
    );
    expect(tok.eos).toBe(tok.size - 2);
    const [e] = await tok.encode([{ text: "a<|new|><|extra|>", special: false }]);
    expect(e!.ids.slice(-2)).toEqual([tok.size - 2, tok.size - 1]);
  });

  it("gives templates the tokens that a model names for itself", () => {
    const tok = loadTokenizer(
      changed("chatml", {
        "tokenizer_config.json": { ...config("chatml"), image_token: "<think>", add_bos_token: false },
      }),
    );
    expect(tok.special.get("image_token")).toBe("<think>");
    expect(tok.special.has("add_bos_token")).toBe(false);
  });

  it("has another hash when something that makes tokens changes, and the same when nothing does", () => {
    const hash = (files: Record<string, object | string | null>): string =>
      loadTokenizer(changed("chatml", files)).hash;
    expect(hash({})).toBe(loadTokenizer(fixture("tokenizers/chatml")).hash);
    expect(hash({ "tokenizer_config.json": { ...config("chatml"), eos_token: "<|endoftext|>" } })).not.toBe(hash({}));
  });
});

const chatml = JSON.parse(readFileSync(fixture("tokenizers/chatml/tokenizer.json"), "utf8")) as { model: { vocab: Record<string, number>; merges: string[][] } };
/** Two tokens whose merge is longer than any. */
const LONGEST = Object.keys(chatml.model.vocab).sort((a, b) => b.length - a.length).slice(0, 2);

describe("a folder that cannot be used is named", () => {
  const cases: Record<string, [Record<string, object | string | null>, RegExp]> = {
    "no tokenizer.json": [{ "tokenizer.json": null }, /must hold tokenizer\.json, got none/],
    "a slow tokenizer": [{ "tokenizer.json": null, "tokenizer.model": "x" }, /got tokenizer\.model alone \(convert it/],
    "a tokenizer.json that is none": [
      { "tokenizer.json": "{}" },
      /tokenizer\.json: must be a file of the tokenizers library/,
    ],
    "a tokenizer.json that is no JSON": [
      { "tokenizer.json": "{" },
      /tokenizer\.json: must be a file of the tokenizers library/,
    ],
    "merges that lack their prefix, on which the library ends the process": [
      { "tokenizer.json": { ...chatml, model: { ...chatml.model, continuing_subword_prefix: "##" } } },
      /model\.merges: the second part of each must begin with continuing_subword_prefix "##", got \["t","h"\] as merge 0/,
    ],
    "a merge that makes no token, on which the library ends the process": [
      { "tokenizer.json": { ...chatml, model: { ...chatml.model, merges: [...chatml.model.merges, LONGEST] } } },
      /model\.merges: each must make a token of the vocabulary, got \["\S+","\S+"\] as merge 210/,
    ],
    "a config that is no JSON": [{ "tokenizer_config.json": "{," }, /tokenizer_config\.json: must be a JSON object/],
    "a config that is a list": [{ "tokenizer_config.json": "[]" }, /tokenizer_config\.json: must be a JSON object/],
    "a token that is a number": [
      { "tokenizer_config.json": { eos_token: 3 } },
      /eos_token of .*: a token must be a string/,
    ],
    "templates that are no list of templates": [
      { "tokenizer_config.json": { chat_template: [1] } },
      /chat_template must be a text or a list of \{name, template\}/,
    ],
    "tokens that must not be split": [
      { "tokenizer_config.json": { split_special_tokens: true } },
      /split_special_tokens must be false, got true/,
    ],
  };
  for (const [name, [files, message]] of Object.entries(cases))
    it(name, () => expect(() => loadTokenizer(changed("chatml", files))).toThrow(message));
});
