// Ids and masks against transformers over recorded conversations (test/fixtures/data/make_templates.py): no difference is allowed.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { Json, JsonObject } from "#lib/data/json.js";
import { ChatTemplate, templateDate } from "#lib/data/template.js";
import { loadTokenizer } from "#lib/data/tokenizer.js";
import { encoderOf, fixture, numbers, positions, readFixture, sft } from "./fixtures.ts";

const recorded = readFixture("templates.json");
const conversations = recorded.get("conversations") as Json[];
const cases = recorded.get("cases") as JsonObject[];
const tools = recorded.get("tools")!;
const tokenizers = recorded.get("tokenizers") as Map<string, string>;
const templateText = (name: string): string => readFileSync(fixture(`templates/${name}.jinja`), "utf8");
const named = (c: JsonObject): string => `conversation ${c.get("c")} with ${c.get("template")}`;
const messagesOf = (c: JsonObject): Json => conversations[Number(c.get("c"))]!;
const of = (template: string, ask: boolean): JsonObject[] =>
  cases.filter((c) => c.get("template") === template && c.has("prompt") === ask);

describe("recorded conversations", () => {
  it("are at least 200, over marked and unmarked templates, with tools, wide characters and odd numbers", () => {
    expect(conversations.length).toBeGreaterThanOrEqual(200);
    expect(new Set(cases.map((c) => c.get("c"))).size).toBe(conversations.length);
    expect(cases.some((c) => c.has("mask"))).toBe(true);
    expect(cases.some((c) => c.has("ids") && !c.has("mask"))).toBe(true);
    expect(cases.some((c) => c.has("tools") && c.has("mask"))).toBe(true);
  });

  for (const [template, tokenizer] of tokenizers) {
    it(`give transformers' ids and masks with ${template}`, async () => {
      const all = of(template, false);
      const encoder = await encoderOf(
        tokenizer,
        { ...sft, assistantOnlyLoss: all.some((c) => c.has("mask")) },
        templateText(template),
      );
      const rows = all.map((c, row) => {
        const value: JsonObject = new Map([["messages", messagesOf(c)]]);
        if (c.has("tools")) value.set("tools", tools);
        if (c.has("kwargs")) value.set("chat_template_kwargs", c.get("kwargs")!);
        return { row, value };
      });
      const encoded = await encoder.encode(rows);
      all.forEach((c, i) => {
        const { tree, dropped } = encoded[i]!;
        if (c.has("error")) return expect(dropped, named(c)).toBe("template_error");
        expect([...tree.branches[0]!.ids], named(c)).toEqual(numbers(c.get("ids")));
        if (!c.has("mask")) return;
        const mask = positions(numbers(c.get("mask")) as [number, number][]).filter((at) => at > 0);
        expect(positions(tree.branches[0]!.trained), named(c)).toEqual(mask);
      });
    });

    it(`give transformers' ids up to the generation prompt with ${template}`, async () => {
      const tok = loadTokenizer(fixture(`tokenizers/${tokenizer}`));
      const chat = new ChatTemplate({
        sources: new Map([["default", templateText(template)]]),
        special: tok.special,
        date: templateDate(recorded.get("date") as string),
      });
      for (const c of of(template, true)) {
        const render = (): string =>
          chat.render({
            messages: messagesOf(c) as JsonObject[],
            tools: c.has("tools") ? tools : null,
            kwargs: (c.get("kwargs") as JsonObject | undefined) ?? new Map(),
            addGenerationPrompt: true,
          }).text;
        if (c.has("error")) {
          expect(render, named(c)).toThrow();
          continue;
        }
        const [encoded] = await tok.encode([{ text: render(), special: false }]);
        expect(encoded!.ids, named(c)).toEqual(numbers(c.get("ids")));
      }
    });
  }
});
