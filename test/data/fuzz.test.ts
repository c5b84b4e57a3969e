// Hostile input: whatever the bytes, templates, rows and tokenizer files fail with our typed errors or work, and nothing hangs.
// A second each here; `npm run test:fuzz` for a long run of every parser's, ATTUNE_FUZZ_SEED for another one.

import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { DataError } from "#lib/errors.js";
import { prepare } from "#lib/data/dataset.js";
import { RowEncoder } from "#lib/data/encode.js";
import type { EncodeOptions } from "#lib/data/encode.js";
import { JsonError, fromJs, parseJson } from "#lib/data/json.js";
import type { Json, JsonObject } from "#lib/data/json.js";
import { packStep } from "#lib/data/pack.js";
import { readRows } from "#lib/data/rows.js";
import { RowError } from "#lib/data/schema.js";
import { ChatTemplate, templateDate } from "#lib/data/template.js";
import { loadTokenizer } from "#lib/data/tokenizer.js";
import { dpo, fixture, readFixture, sft } from "./fixtures.ts";

const seconds = Number(process.env["ATTUNE_FUZZ_SECONDS"] ?? 1);
let state = BigInt(process.env["ATTUNE_FUZZ_SEED"] ?? 1);
const random = (n: number): number => {
  state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
  return Number((state >> 33n) % BigInt(n));
};
const pick = <T>(list: readonly T[]): T => list[random(list.length)]!;
const folder = mkdtempSync(join(tmpdir(), "attune-fuzz-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs `f` until the time is up, and `least` times; every failure must be of one of the kinds. */
async function fuzz(
  kinds: readonly (abstract new (...args: never[]) => Error)[],
  f: () => unknown,
  least = 20,
): Promise<{ runs: number; fine: number }> {
  const end = performance.now() + seconds * 1000;
  let [runs, fine] = [0, 0];
  while (runs < least || performance.now() < end) {
    runs++;
    const start = performance.now();
    try {
      await f();
      fine++;
    } catch (e) {
      if (!kinds.some((k) => e instanceof k)) throw e;
    }
    expect(performance.now() - start).toBeLessThan(20_000);
  }
  return { runs, fine };
}

/** Cuts, copies, moves and overwrites pieces. */
function mutate(text: string, others: readonly string[], scraps: readonly string[]): string {
  let out = text;
  for (let n = 1 + random(4); n > 0; n--) {
    const at = random(out.length + 1);
    const to = Math.min(out.length, at + random(pick([3, 20, 200])));
    const other = pick(others);
    const from = random(other.length + 1);
    const piece = pick([pick(scraps), other.slice(from, from + random(60)), out.slice(at, to), ""]);
    out = pick([true, false]) ? out.slice(0, at) + piece + out.slice(to) : out.slice(0, at) + piece + out.slice(at);
  }
  return out;
}

const templates = readdirSync(fixture("templates")).map((f) => readFileSync(fixture(`templates/${f}`), "utf8"));
const small = (readFixture("jinja.json").get("cases") as JsonObject[]).map((c) => c.get("template") as string);
const vars = readFixture("jinja.json").get("vars") as JsonObject;
const recorded = readFixture("templates.json");
const conversations = recorded.get("conversations") as Json[];
const chatml = loadTokenizer(fixture("tokenizers/chatml"));

describe("fuzzed", () => {
  const scraps = [
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "#}",
    "-%}",
    "{%-",
    "is",
    "not",
    "in",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "|",
    "'",
    '"',
    "\\",
    "**",
    "~",
    "generation",
    "endgeneration",
    "raw",
    "for",
    "if",
    "else",
    "set",
    "macro",
    "call",
    "loop",
    "range(9)",
    "none",
    "1e400",
    "0x",
    "__proto__",
    "constructor",
    "\u{1F600}",
    "\ud800",
    "\0",
  ];
  const all = [...templates, ...small];
  const mutant = (): string => mutate(pick(random(4) === 0 ? templates : small), all, scraps);

  it("templates fail with a DataError, rendering with a RowError", async () => {
    const { runs, fine } = await fuzz([DataError, RowError], () => {
      const source = mutant();
      const chat = new ChatTemplate({
        sources: new Map([["default", source]]),
        special: chatml.special,
        date: templateDate("2026-07-06"),
        limits: { steps: 100_000, text: 1 << 20 },
      });
      chat.render({
        messages: pick(conversations) as JsonObject[],
        tools: random(3) === 0 ? recorded.get("tools")! : null,
        kwargs: vars,
        addGenerationPrompt: random(2) === 0,
      });
    });
    expect(fine).toBeGreaterThan(0);
    expect(fine).toBeLessThan(runs);
  });

  it("templates in their worker fail with a DataError, and the worker ends", async () => {
    const dataset = join(folder, "talks.jsonl");
    const talks = conversations.slice(0, 20).map((c) => JSON.stringify(plain(new Map([["messages", c]]))));
    writeFileSync(dataset, talks.join("\n"));
    const chatTemplatePath = join(folder, "mutant.jinja");
    const options = { task: "sft", dataset, tokenizer: fixture("tokenizers/chatml"), chatTemplatePath } as const;
    await fuzz(
      [DataError],
      async () => {
        writeFileSync(chatTemplatePath, mutant());
        await prepare({ ...options, cache: false, templateSeconds: 2, workerMemory: 96, invalidRows: "drop" });
      },
      2,
    );
  });

  it("data files fail with a DataError", async () => {
    const lines = conversations.slice(0, 20).map((c) => JSON.stringify(plain(new Map([["messages", c]]))));
    const sources = [
      lines.join("\n"),
      `[${lines.join(",\n")}]`,
      '{"text": "a"}\r\n\r\n{"prompt": "b", "completion": "c"}',
      '{"a": 1}',
    ];
    const path = join(folder, "rows.jsonl");
    const scraps = [
      "\n",
      "\r\n",
      "[",
      "]",
      "{",
      "}",
      '"',
      "\\u",
      "\\ud800",
      ",",
      ":",
      "1e999",
      "-",
      "\ufeff",
      "\0",
      "null",
    ];
    const { fine } = await fuzz([DataError], async () => {
      const bytes = Buffer.from(mutate(pick(sources), sources, scraps));
      for (let n = random(3); n > 0 && bytes.length > 0; n--) bytes[random(bytes.length)] = random(256);
      writeFileSync(path, bytes);
      for await (const row of readRows(path)) expect(row.value).toBeInstanceOf(Map);
    });
    expect(fine).toBeGreaterThan(0);
  });

  it("rows of any shape become trees or reasons, and the trees pack", async () => {
    const keys = [
      "text",
      "messages",
      "prompt",
      "completion",
      "chosen",
      "rejected",
      "conversations",
      "role",
      "from",
      "value",
      "content",
      "tools",
      "tool_calls",
      "chat_template_kwargs",
      "type",
      "__proto__",
      "a",
    ];
    const texts = [
      "",
      "hello there",
      "user",
      "assistant",
      "human",
      "gpt",
      "system",
      "tool",
      "\n\nAssistant: x",
      "<|im_end|>",
      "\u{1F600}",
      "\ud800",
      "text",
      " ",
    ];
    const value = (depth: number): unknown => {
      const kind = random(depth > 4 ? 4 : 9);
      if (kind === 0) return pick([null, true, 3, 2.5, -0, 2n ** 70n]);
      if (kind < 4) return pick(texts);
      if (kind < 6) return Array.from({ length: random(4) }, () => value(depth + 1));
      if (kind === 6)
        return [
          { role: pick(["user", "assistant", "user", "wizard"]), content: pick(texts) },
          { role: "assistant", content: pick(texts) },
        ];
      return new Map(Array.from({ length: random(5) }, () => [pick(keys), value(depth + 1)]));
    };
    const options: EncodeOptions[] = [
      sft,
      dpo,
      { ...sft, assistantOnlyLoss: true },
      { ...sft, completionOnlyLoss: false, maxLength: 5 },
      { ...dpo, maxLength: 6 },
    ];
    const ends = { bos: null, eos: chatml.eos, stop: chatml.eos };
    const chats = templates.map(
      (source) =>
        new ChatTemplate({ sources: new Map([["default", source]]), special: chatml.special, date: new Date() }),
    );
    const reasons = new Set<string | null>();
    await fuzz(
      [],
      async () => {
        const encoder = new RowEncoder(chatml, random(5) === 0 ? null : pick(chats), ends, pick(options));
        const rows = Array.from({ length: 8 }, (_, row) => ({
          row,
          value: fromJs(new Map(Array.from({ length: 1 + random(3) }, () => [pick(keys), value(0)]))) as JsonObject,
        }));
        const encoded = await encoder.encode(rows);
        for (const e of encoded) {
          reasons.add(e.dropped);
          for (const b of e.tree.branches)
            for (const [from, to] of b.trained) {
              expect(from).toBeGreaterThan(0);
              expect(from).toBeGreaterThanOrEqual(e.tree.trunk.length);
              expect(to).toBeLessThanOrEqual(e.tree.trunk.length + b.ids.length);
            }
        }
        const kept = encoded.filter((e) => e.dropped === null).map((e) => e.tree);
        const packed = packStep(kept, { tokensPerBatch: 100_000 });
        expect(packed.reduce((n, m) => n + m.examples.length, 0)).toBe(kept.length);
      },
      200,
    );
    for (const reason of [null, "unknown_columns", "wrong_type", "unknown_role"]) expect(reasons).toContain(reason);
  });

  it("tokenizer folders fail with a DataError", async () => {
    const good = readFileSync(fixture("tokenizers/chatml/tokenizer.json"), "utf8");
    const config = readFileSync(fixture("tokenizers/metaspace/tokenizer_config.json"), "utf8");
    const scraps = ["null", "{}", "[]", '"', "1e99", "-1", "true", '"a"', ",", ":"];
    const { fine } = await fuzz([DataError], async () => {
      const which = random(2) === 0;
      writeFileSync(join(folder, "tokenizer.json"), which ? mutate(good, [good], scraps) : good);
      writeFileSync(join(folder, "tokenizer_config.json"), which ? config : mutate(config, [config, good], scraps));
      const tok = loadTokenizer(folder);
      await tok.encode([{ text: "hello \u{1F600}", special: true }]);
    });
    expect(fine).toBeGreaterThan(0);
  });

  it("JSON fails with a JsonError", async () => {
    const sources = [JSON.stringify({ a: [1, 2.5, "x\n", null, { b: true }] }), '"\\u00e9\\ud83d\\ude00"', "[[[[]]]]"];
    await fuzz([JsonError], () =>
      parseJson(mutate(pick(sources), sources, ["\\", "\\u", '"', "{", "[", "e", ".", "-", "9".repeat(30)])),
    );
  });
});

function plain(v: Json): unknown {
  if (typeof v === "bigint") return Number(v);
  return Array.isArray(v)
    ? v.map(plain)
    : v instanceof Map
      ? Object.fromEntries([...v].map(([k, x]) => [k, plain(x)]))
      : v;
}
