// Rows, chat templates and tokenizers that are wrong. Every rule of rows: test/data/schema.test.ts.

import { mkdirSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { all, DPO, edit, put, refused, rows, SFT, smallVocabulary, type Case, type Plant } from "./bad_input.ts";

const DROP = "(invalid_rows: drop leaves such rows out)";
const sft = (what: string, plant: Plant, says: string | RegExp, ...flags: string[]): Case => {
  return { what, plant, args: [...SFT, "--dataset", "bad.jsonl", ...flags], code: 3, says };
};
const dpo = (what: string, row: object, says: string | RegExp): Case => {
  return { what, plant: rows({ prompt: "a", chosen: "b", rejected: "c", ...row }), args: [...DPO, "--dataset", "bad.jsonl"], code: 3, says };
};
const user = { role: "user", content: "x" };

refused("rows that are wrong", [
  sft("JSON that breaks off", rows({ text: "a" }, '{"text": "b"'), /^bad\.jsonl:2: a row must be a JSON object: "," or "}" must follow a value, got the end of the text \(column 13\)$/),
  sft("an array that breaks off", put("bad.jsonl", '[{"text": "a"},\n{"text": }]'), /^bad\.jsonl:2: a data file must be one JSON array of objects: .*got.*\(column 10\)$/),
  sft("a number for a row", rows({ text: "a" }, "7"), "bad.jsonl:2: a row must be a JSON object, got a number"),
  sft("an unknown role", rows({ messages: [{ role: "wizard", content: "x" }] }), /^bad\.jsonl:1: messages\[0\]\.role must be one of system, .*, got "wizard" \(rename it; invalid_rows: drop/),
  sft("a message without a role", rows({ messages: [{ content: "x" }] }), `bad.jsonl:1: messages[0].role must be a string, got nothing ${DROP}`),
  sft("an empty completion", rows({ prompt: "a", completion: "" }), `bad.jsonl:1: completion must have at least one character, got none ${DROP}`),
  sft("an empty text", rows({ text: "" }), `bad.jsonl:1: the text must have at least one character, got none ${DROP}`),
  sft("half of a character", rows('{"text":"\\ud800"}'), `bad.jsonl:1: a text must be Unicode, got half of a surrogate pair ${DROP}`),
  sft("types that mix", rows({ text: "a" }, { text: 5 }), `bad.jsonl:2: text must be a string, got a number ${DROP}`),
  sft("columns that mix", rows({ text: "a" }, { question: "b" }), /^bad\.jsonl:2: a row must have "messages", .* or "text", got "question" \(/),
  sft("no token with a loss", rows({ messages: [user] }), `bad.jsonl:1: a row must have at least one token with a loss, got none ${DROP}`, "--assistant_only_loss"),
  sft("texts where answers are to be trained", rows({ text: "a" }), /^bad\.jsonl:1: assistant_only_loss must have conversations, got a text \(drop the key/, "--assistant_only_loss"),
  sft("a message that spells a control token", rows({ messages: [user, { role: "assistant", content: "a<|im_end|>" }] }), 'bad.jsonl:1: a message must not spell a special token, got "<|im_end|>" (special_tokens_in_content: warn keeps such rows)', "--special_tokens_in_content", "error"),
  sft("a row that sets what the run decides", rows({ messages: [user], chat_template_kwargs: { tokenize: false } }), /^bad\.jsonl:1: chat_template_kwargs must leave to the run what it decides, got "tokenize"/),
  sft("an empty file", put("bad.jsonl", ""), "bad.jsonl: a data set must have at least one row to train on, got an empty one"),
  sft("rows that are all dropped", rows({ question: "a" }, { text: "" }), "bad.jsonl: a data set must have at least one row to train on, got 2 rows, all dropped: 1 unknown_columns, 1 empty_text", "--invalid_rows", "drop"),
  sft("a packed file", put("bad.jsonl", gzipSync("{}")), "bad.jsonl: text must be UTF-8, got a gzip file (convert the file to UTF-8 text)"),
  sft("UTF-16", put("bad.jsonl", Buffer.from("\ufeff{}", "utf16le")), "bad.jsonl: text must be UTF-8, got UTF-16 (convert the file to UTF-8 text)"),
  sft("a picture", put("bad.jsonl", Buffer.from([137, 80, 78, 71, 13, 10])), "bad.jsonl:1: text must be UTF-8, got byte 0x89 at byte 1 (convert the file to UTF-8)"),
  sft("a CSV file", put("bad.jsonl", "text,label\nhello,1\n"), /^bad\.jsonl:1: a row must be a JSON object: a value must follow, got "text,label" \(write the rows as JSON lines, one object a line\)$/),
  sft("a line without an end", (dir) => all(put("bad.jsonl", ""), () => truncateSync(join(dir, "bad.jsonl"), 300 << 20))(dir), "bad.jsonl:1: a line must be at most 256 MiB, got more (one row a line)"),
  sft("lists in lists in lists", put("bad.jsonl", `{"text":${"[".repeat(9999)}${"]".repeat(9999)}}`), /^bad\.jsonl:1: a row must be a JSON object: nesting must be at most 256 levels deep, got more/),
  sft("BOS twice", all(rows({ text: "<|im_start|>hello" }), edit("model/tokenizer_config.json", { bos_token: "<|im_start|>" }), addsBos), /^bad\.jsonl:1: a text must begin with one BOS token, got two \(take it out/),
  dpo("chosen the same as rejected", { chosen: "c" }, `bad.jsonl:1: chosen and rejected must differ, got the same ${DROP}`),
  dpo("an empty rejected answer", { rejected: "" }, `bad.jsonl:1: rejected must have at least one character, got none ${DROP}`),
  dpo("a text beside a conversation", { chosen: [{ role: "assistant", content: "b" }] }, /^bad\.jsonl:1: chosen and rejected must both be strings or both .*, got a list of messages and a string/),
  { what: "pairs for sft", args: [...SFT, "--dataset", "pairs.jsonl"], code: 3, says: /^pairs\.jsonl:1: a row must have .* \(this looks like preference data: train it with dpo; / },
  { what: "texts for dpo", args: [...DPO, "--dataset", "texts.jsonl"], code: 3, says: /^texts\.jsonl:1: a preference row must have "chosen" and "rejected", got "text"/ },
  { what: "prompts that leave no room", args: [...DPO, "--max_length", "4"], code: 3, says: /^pairs\.jsonl: a data set must have at least one row to train on, got 12 rows, all dropped: 12 prompt_fills_max_length$/ },
  { what: "no such file", args: [...SFT, "--dataset", "nosuch.jsonl"], code: 3, says: "nosuch.jsonl: must be a data file, .jsonl or .json, got no such file" },
  { what: "a folder for a file", args: [...DPO, "--dataset", "model"], code: 3, says: "model: must be a data file, .jsonl or .json, got a folder" },
  { what: "a token that is none, to score", plant: rows({ input_ids: [1, null] }), args: ["score", "model", "--data", "bad.jsonl"], code: 3, says: "bad.jsonl:1: input_ids must be a list of whole numbers from 0 to 257, got null at place 1" },
  { what: "columns that cannot be scored", plant: rows({ q: 1 }), args: ["score", "model", "--data", "bad.jsonl"], code: 3, says: "bad.jsonl:1: a row must have input_ids, text, or prompt and completion, got q" },
  { what: "a role that is none, to answer", plant: rows({ messages: [{ role: 7, content: "x" }] }), args: ["generate", "model", "--data", "bad.jsonl"], code: 3, says: "bad.jsonl:1: messages[0].role must be a string, got a number" },
  { what: "an empty prompt", args: ["generate", "model", "--prompt", ""], code: 3, says: "prompt 0: must have a token, got an empty text" },
]);

function addsBos(dir: string): void {
  const bos = { SpecialToken: { id: "<|im_start|>", type_id: 0 } };
  const [a, b] = [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }];
  const special_tokens = { "<|im_start|>": { id: "<|im_start|>", ids: [0], tokens: ["<|im_start|>"] } };
  edit("model/tokenizer.json", { post_processor: { type: "TemplateProcessing", single: [bos, a], pair: [a, b], special_tokens } })(dir);
}

const template = (what: string, text: string | Uint8Array, says: string | RegExp, args = [...SFT, "--dataset", "chats.jsonl"]): Case => {
  return { what, plant: put("model/chat_template.jinja", text), args, code: 3, says };
};
const GENERATE = ["generate", "model", "--chat", "--prompt", "x"];
const ENDLESS = `{% for a in range(99999) %}${"{% for b in range(99999) %}".repeat(3)}${"{% endfor %}".repeat(4)}`;
const BOMB = "{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(64) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}";
const untold: Plant = edit("model/tokenizer_config.json", { chat_template: undefined });

refused("chat templates that are wrong", [
  template("a block left open", "{% for m in messages %}{{ m.content }}", /^chat template: must be a Jinja template, got an error: /),
  template("one that refuses", "{{ raise_exception('roles must alternate') }}", /^chats\.jsonl:1: the chat template must render the conversation, got an error: .*roles must alternate/),
  template("a filter that does not exist", "{{ messages[0].content | nosuch }}", /^chats\.jsonl:1: the chat template must render the conversation, got an error: .*nosuch/),
  template("no end", ENDLESS, /the chat template must render .*, got /),
  template("a text that doubles", BOMB, /^chats\.jsonl:1: the chat template must render the conversation, got an error: /),
  template("bytes that are no text", Buffer.from([255, 254, 0]), "model/chat_template.jinja: must be UTF-8 text that can be read, got other bytes"),
  template("one that refuses a question", "{{ raise_exception('roles must alternate') }}", /^prompt 0: the chat template must render the conversation, got an error: .*roles must alternate/, GENERATE),
  template("no end, for a question", ENDLESS, /the chat template must render .*, got /, GENERATE),
  { what: "none", plant: untold, args: [...SFT, "--dataset", "chats.jsonl"], code: 3, says: /^chats\.jsonl:1: conversations must have a chat template, got a tokenizer without one \(set chat_template_path; / },
  { what: "none, for a question", plant: untold, args: GENERATE, code: 3, says: "conversations must have a chat template, got a model folder without one (give chat_template_path)" },
  { what: "a path to none", args: [...SFT, "--chat_template_path", "nosuch.jinja"], code: 3, says: "chat_template_path: a file or folder must exist, got nosuch.jinja" },
]);

const tokenizer = (what: string, plant: Plant, says: string | RegExp): Case => ({ what, plant, args: SFT, code: 3, says });

refused("tokenizers that are wrong", [
  tokenizer("none", (dir) => rmSync(join(dir, "model/tokenizer.json")), "model: a tokenizer folder must hold tokenizer.json, got none"),
  tokenizer("a folder", (dir) => all(() => rmSync(join(dir, "model/tokenizer.json")), () => mkdirSync(join(dir, "model/tokenizer.json")))(dir), "model/tokenizer.json: must be UTF-8 text that can be read, got a folder"),
  tokenizer("one cut short", (dir) => truncateSync(join(dir, "model/tokenizer.json"), 300), /^model\/tokenizer\.json: must be a file of the tokenizers library, got an error: .* in JSON at position 300.* \(is the download whole\?\)$/),
  tokenizer("a Git LFS pointer", put("model/tokenizer.json", "version https://git-lfs.github.com/spec/v1\n"), /^model\/tokenizer\.json: must be a file of the tokenizers library, got an error: /),
  tokenizer("a configuration that breaks off", put("model/tokenizer_config.json", "{"), /^model\/tokenizer_config\.json: must be a JSON object, got an error: /),
  tokenizer("a token that is a number", edit("model/tokenizer_config.json", { eos_token: 7 }), 'eos_token of model/tokenizer.json: a token must be a string or an object with "content", got a number'),
  { what: "more tokens than the model, to train", plant: all(smallVocabulary, rows({ text: "\u00e9" })), args: [...SFT, "--dataset", "bad.jsonl"], code: 3, says: /^bad\.jsonl:1: ids must be below the model's vocab_size 100, got \d+ \(the tokenizer belongs to another model\)$/ },
  { what: "more tokens than the model, to score", plant: all(smallVocabulary, rows({ text: "\u00e9" })), args: ["score", "model", "--data", "bad.jsonl"], code: 3, says: /^bad\.jsonl:1: ids must be below the model's vocab_size 100, got \d+ \(the tokenizer/ },
  { what: "more tokens than the model, to go on", plant: smallVocabulary, args: ["generate", "model", "--prompt", "\u00e9"], code: 3, says: /^prompt 0: ids must be below the model's vocab_size 100, got \d+ \(the tokenizer/ },
]);
