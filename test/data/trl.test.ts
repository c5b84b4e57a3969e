// Tokens, masks and truncation against TRL 1.13 (test/fixtures/data/make_trl.py).

import { describe, expect, it } from "vitest";
import type { JsonObject } from "#lib/data/json.js";
import type { EncodedRow } from "#lib/data/encode.js";
import { encoderOf, numbers, positions, readFixture, sft } from "./fixtures.ts";

const recorded = readFixture("trl.json");
const cases = recorded.get("cases") as JsonObject[];
const template = recorded.get("template") as string;

const option = <T>(c: JsonObject, name: string, fallback: T): T =>
  ((c.get("options") as JsonObject).get(name) ?? fallback) as T;

async function encode(c: JsonObject): Promise<EncodedRow[]> {
  const maxLength = option<bigint | null>(c, "max_length", null);
  const encoder = await encoderOf(
    c.get("tokenizer") as string,
    {
      ...sft,
      task: c.get("task") as "sft" | "dpo",
      maxLength: maxLength === null ? null : Number(maxLength),
      assistantOnlyLoss: option(c, "assistant_only_loss", false),
      completionOnlyLoss: option<boolean | null>(c, "completion_only_loss", null),
      untrainedRows: "drop",
    },
    template,
  );
  return encoder.encode((c.get("rows") as JsonObject[]).map((value, row) => ({ row, value })));
}

const say = (c: JsonObject): string =>
  [c.get("data"), c.get("tokenizer"), ...[...(c.get("options") as JsonObject)].map(([k, v]) => `${k}=${v}`)].join(" ");

/** Rows whose prompt and completion share a token: TRL trains on a hybrid there, and we do not. */
const merged = (e: EncodedRow): boolean => e.warnings.includes("boundary_merge");

describe("TRL's tokens and masks", () => {
  for (const c of cases)
    it(say(c), async () => {
      const encoded = await encode(c);
      const kept = encoded.filter((e) => e.dropped === null);
      const wanted = c.get("kept") as JsonObject[];
      expect(kept.map((e) => e.row)).toEqual(wanted.map((w) => Number(w.get("row"))));
      expect(kept.filter(merged).length).toBeLessThanOrEqual(1);
      kept.forEach((e, i) => {
        if (merged(e)) return;
        const w = wanted[i]!;
        const sides = c.get("task") === "dpo" ? ([w.get("chosen"), w.get("rejected")] as JsonObject[]) : [w];
        sides.forEach((side, b) => {
          const branch = e.tree.branches[b]!;
          expect([...e.tree.trunk, ...branch.ids], `row ${e.row}`).toEqual(numbers(side.get("ids")));
          expect(positions(branch.trained), `row ${e.row}`).toEqual(numbers(side.get("trained")));
        });
      });
    });
});

describe("where TRL drops rows that are cut to nothing", () => {
  const cut = cases.find((c) => c.get("data") === "prompt-completion" && option(c, "max_length", null) !== null)!;

  it("there is such a row among the recorded ones", () => {
    expect((cut.get("kept") as JsonObject[]).length).toBeLessThan((cut.get("rows") as JsonObject[]).length);
  });

  it("SFT rows stay with `untrainedRows: keep`, without a loss and with a warning", async () => {
    const encoder = await encoderOf(
      cut.get("tokenizer") as string,
      { ...sft, maxLength: Number(option(cut, "max_length", 0n)) },
      template,
    );
    const encoded = await encoder.encode((cut.get("rows") as JsonObject[]).map((value, row) => ({ row, value })));
    expect(encoded.every((e) => e.dropped === null)).toBe(true);
    const bare = encoded.filter((e) => e.warnings.includes("no_trained_tokens_left"));
    expect(bare.length).toBeGreaterThan(0);
    for (const e of bare) expect(e.tree.branches[0]!.trained).toEqual([]);
  });
});
