// metrics.jsonl: whole lines in order, and exactly the lines of a checkpoint's step after a kill.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { StateError, WriteError } from "#lib/errors.js";
import { JsonlWriter, truncateToStep } from "#lib/io/jsonl_writer.js";
import { temporaryFolder } from "./tools.ts";

describe("JsonlWriter", () => {
  it("keeps the order of calls that overlap, and appends to what is there", async () => {
    const path = join(temporaryFolder(), "metrics.jsonl");
    for (const from of [0, 50]) {
      const writer = await JsonlWriter.open(path);
      const calls = Array.from({ length: 50 }, (_, i) => writer.append({ step: from + i, text: "\u2028 new\nline" }));
      await writer.sync();
      await writer.close();
      await Promise.all(calls);
    }
    const lines = readFileSync(path, "utf8").trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line).step)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  it("refuses to write after it is closed, and closes twice", async () => {
    const writer = await JsonlWriter.open(join(temporaryFolder(), "m.jsonl"));
    await writer.close();
    await writer.close();
    await expect(writer.append({})).rejects.toThrow(StateError);
  });

  it.runIf(existsSync("/dev/full"))("raises WriteError on a full disk, for every line that is lost", async () => {
    const writer = await JsonlWriter.open("/dev/full");
    await expect(writer.append({ step: 1 })).rejects.toThrow(WriteError);
    await expect(writer.append({ step: 2 })).rejects.toThrow(/the disk is full/);
    await writer.close();
  });
});

describe("truncateToStep", () => {
  const lines = [
    `{"step":1,"loss":2}`,
    `{"step":2,"loss":1}`,
    `{"step":2,"eval_loss":1}`,
    `{"step":3,"loss":0.5}`,
    `{"step":3,"train_runtime":9}`,
  ];
  async function cut(text: string, step: number): Promise<[kept: number, text: string]> {
    const path = join(temporaryFolder(), "m.jsonl");
    writeFileSync(path, text);
    return [await truncateToStep(path, step), readFileSync(path, "utf8")];
  }
  const all = lines.join("\n") + "\n";
  const first = (n: number): [number, string] => [n, lines.slice(0, n).map((l) => l + "\n").join("")]; // prettier-ignore

  it("keeps the lines up to the step, without the summary", async () => {
    expect(await cut(all, -1)).toEqual(first(0));
    expect(await cut(all, 1)).toEqual(first(1));
    expect(await cut(all, 2)).toEqual(first(3));
    expect(await cut(all, 9)).toEqual(first(4));
  });

  it("drops a line that a kill left half-written, at every length", async () => {
    for (let n = 0; n < all.length; n++) {
      const [kept, text] = await cut(all.slice(0, n), 9);
      expect([kept, text]).toEqual(first(Math.min(4, all.slice(0, n).split("\n").length - 1)));
    }
  });

  it("cuts at damage, and leaves a missing file missing", async () => {
    expect(await cut(`${lines[0]}\n\0\0\0\n${lines[1]}\n`, 9)).toEqual(first(1));
    const path = join(temporaryFolder(), "none.jsonl");
    expect(await truncateToStep(path, 3)).toBe(0);
    expect(existsSync(path)).toBe(false);
  });
});
