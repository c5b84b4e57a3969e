// Bad input, end to end: a folder in which one thing is wrong, a command, and what must hold of every refusal.

import { cpSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { attune } from "./attune.ts";
import { PAIRS, tempDir, TEXTS, tinyModel, writeRows } from "./tiny_model.ts";

/** Makes something wrong in a folder that holds model/, texts.jsonl, pairs.jsonl, chats.jsonl, sft.yaml and dpo.yaml. */
export type Plant = (dir: string) => void;

export interface Case {
  /** What is wrong. */
  readonly what: string;
  readonly plant?: Plant;
  readonly args: readonly string[];
  /** Exit code. */
  readonly code: number;
  /** The whole sentence, or what it matches. */
  readonly says: string | RegExp;
  /** Files that may be new afterwards: a run that got under way keeps what it has. */
  readonly leaves?: RegExp;
  readonly env?: NodeJS.ProcessEnv;
}

export const SFT = ["sft", "sft.yaml"];
export const DPO = ["dpo", "dpo.yaml"];

/**
 * Runs every case with --json, several at a time, each in a folder of its own, and holds it to: its exit code; one sentence on stderr that
 * says what must hold and what was given; JSON lines or nothing on stdout; every file as it was, and none left behind.
 */
export function refused(title: string, cases: readonly Case[], prepare?: (dir: string) => Promise<void>): void {
  describe(title, () => {
    let base: string;
    let room: string;
    beforeAll(async () => {
      base = (await tinyModel()).dir;
      room = await tempDir();
      await writeRows(join(base, "pairs.jsonl"), PAIRS);
      await writeRows(join(base, "texts.jsonl"), TEXTS);
      await writeRows(join(base, "chats.jsonl"), CHATS);
      const common = "model: model\nmax_steps: 2\nthreads: 1\noutput_dir: out\n";
      writeFileSync(join(base, "sft.yaml"), `${common}dataset: texts.jsonl\n`);
      writeFileSync(join(base, "dpo.yaml"), `${common}dataset: pairs.jsonl\n`);
      await prepare?.(base);
    }, 60_000);

    it.concurrent.each(cases)("$what: $code", async ({ plant, args, code, says, leaves, env }) => {
      const dir = mkdtempSync(join(room, "case-"));
      cpSync(base, dir, { recursive: true });
      plant?.(dir);
      const before = contents(dir);
      const ran = await attune([...args, "--json"], { cwd: dir, env: { XDG_CACHE_HOME: join(dir, "cache"), ...env } });
      const said = /^attune: error: (.+)\n$/.exec(ran.stderr)?.[1] ?? `(not one sentence) ${ran.stderr}`;
      if (typeof says === "string") expect(said).toBe(says);
      else expect(said).toMatch(says);
      expect(said).toMatch(/\bmust\b.* got |: no such (key|flag|command) \(/);
      expect(said).not.toMatch(/undefined|\[object |\) \(|^\s*at /);
      expect(ran.code).toBe(code);
      for (const line of ran.stdout.split("\n").filter((l) => l !== "")) JSON.parse(line);
      const after = contents(dir);
      for (const [name, bytes] of before) expect(after.get(name)?.equals(bytes), name).toBe(true);
      expect([...after.keys()].filter((name) => !before.has(name) && !leaves?.test(name))).toEqual([]);
    });
  });
}

const CHATS = [0, 1].map((i) => ({
  messages: [
    { role: "user", content: `Question ${i}?` },
    { role: "assistant", content: `Answer ${i}.` },
  ],
}));

/** Every file of a folder with its bytes, the cache apart. */
export function contents(dir: string): Map<string, Buffer> {
  const names = readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => join(e.parentPath, e.name).slice(dir.length + 1));
  return new Map(names.filter((n) => !n.startsWith("cache/")).map((n) => [n, readFileSync(join(dir, n))]));
}

/** Puts a file in place. */
export const put =
  (name: string, text: string | Uint8Array): Plant =>
  (dir) =>
    writeFileSync(join(dir, name), text);

/** Puts bad.jsonl in place: objects as JSON, texts as they are, one a line. */
export const rows = (...all: readonly unknown[]): Plant =>
  put("bad.jsonl", all.map((row) => `${typeof row === "string" ? row : JSON.stringify(row)}\n`).join(""));

/** Changes fields of a JSON file; undefined takes one out. */
export const edit =
  (name: string, fields: object): Plant =>
  (dir) =>
    put(name, JSON.stringify({ ...(JSON.parse(readFileSync(join(dir, name), "utf8")) as object), ...fields }))(dir);

export const all =
  (...plants: readonly Plant[]): Plant =>
  (dir) => {
    for (const plant of plants) plant(dir);
  };

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** Rewrites the header of model.safetensors, or its data. */
export const weights =
  (change: (header: Header, data: Buffer) => Buffer | void): Plant =>
  (dir) => {
    const path = join(dir, "model/model.safetensors");
    const bytes = readFileSync(path);
    const end = 8 + Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, end).toString()) as Header;
    const data = change(header, bytes.subarray(end)) ?? bytes.subarray(end);
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(path, Buffer.concat([length, text, data]));
  };

/** The model with the first 100 rows of its vocabulary: the tokenizer has ids past it. */
export const smallVocabulary: Plant = all(
  edit("model/config.json", { vocab_size: 100 }),
  weights((header, data) => {
    const { __metadata__: _, ...tensors } = header;
    const [at] = tensors["model.embed_tokens.weight"]!.data_offsets;
    const cut = 158 * 16 * 4;
    for (const t of Object.values(tensors)) {
      const [from, to] = t.data_offsets;
      t.data_offsets = [from > at ? from - cut : from, from >= at ? to - cut : to];
    }
    tensors["model.embed_tokens.weight"]!.shape = [100, 16];
    return Buffer.concat([data.subarray(0, at + 100 * 64), data.subarray(at + 258 * 64)]);
  }),
);
