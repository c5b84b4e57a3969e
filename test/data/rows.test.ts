// Reading data files: JSON lines and JSON arrays, numbers kept as written, errors with file and line.

import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { JsonError, fromJs, parseJson } from "#lib/data/json.js";
import type { Json } from "#lib/data/json.js";
import { DataError } from "#lib/errors.js";
import { readRows } from "#lib/data/rows.js";
import type { Row } from "#lib/data/rows.js";

const folder = mkdtempSync(join(tmpdir(), "attune-rows-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function rowsOf(bytes: string | Uint8Array, name = "data.jsonl"): Promise<Row[]> {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  const out: Row[] = [];
  for await (const row of readRows(path)) out.push(row);
  return out;
}
/** What a descriptor of this process stands for; nothing where it is closed by now. */
function linkOf(fd: string): string {
  try {
    return readlinkSync(join("/proc/self/fd", fd));
  } catch {
    return "";
  }
}
const values = async (bytes: string | Uint8Array): Promise<unknown> =>
  (await rowsOf(bytes)).map((r) => r.value.get("a"));

describe("JSON lines", () => {
  it("are one object a line, empty lines skipped, with or without a last line end", async () => {
    const rows = await rowsOf('{"a": 1}\n\n  \n{"a": 2}');
    expect(rows.map((r) => [r.row, r.line, r.value.get("a")])).toEqual([
      [0, 1, 1n],
      [1, 4, 2n],
    ]);
  });

  it("may end in CRLF and begin with a BOM", async () => {
    expect(await values('\ufeff{"a": "x\\r"}\r\n{"a": "y"}\r\n')).toEqual(["x\r", "y"]);
  });

  it("do not end at other line separators", async () => {
    expect(await values('{"a": "\u2028\u0085"}\n')).toEqual(["\u2028\u0085"]);
  });

  it("may be longer than what is read at once, with characters cut in the middle", async () => {
    const long = "\u{1F600}".repeat(600_000);
    expect(await values(`{"a": "${long}"}\n{"a": "${long}!"}\n`)).toEqual([long, `${long}!`]);
  });

  it("name file and line where they are not JSON", async () => {
    await expect(rowsOf('{"a": 1}\n\n{"a": }\n')).rejects.toThrow(
      /^data\.jsonl:3: a row must be a JSON object: a value must follow, got "}" \(column 7\)/,
    );
  });

  it("name file and line where they are not objects", async () => {
    await expect(rowsOf('{"a": 1}\n"x"\n')).rejects.toThrow(
      /^data\.jsonl:2: a row must be a JSON object, got a string/,
    );
  });

  it("must be UTF-8, and the first bad byte is named", async () => {
    const bad = Buffer.concat([Buffer.from('{"a": 1}\n{"a": "x'), Buffer.from([0xc3, 0x28]), Buffer.from('"}\n')]);
    await expect(rowsOf(bad)).rejects.toThrow(/^data\.jsonl:2: text must be UTF-8, got byte 0x28 at byte 10/);
  });

  it("are not UTF-16 or gzip", async () => {
    await expect(rowsOf(Buffer.from("\ufeff{}", "utf16le"))).rejects.toThrow(/must be UTF-8, got UTF-16/);
    await expect(rowsOf(Buffer.from([0x1f, 0x8b, 8, 0]))).rejects.toThrow(/must be UTF-8, got a gzip file/);
  });

  it("may be none at all", async () => {
    expect(await rowsOf("")).toEqual([]);
  });

  it.runIf(existsSync("/proc/self/fd"))("leave no file open, where a row is wrong or the reader stops", async () => {
    const open = (): string[] => readdirSync("/proc/self/fd").flatMap((fd) => (linkOf(fd).startsWith(folder) ? [linkOf(fd)] : []));
    await expect(rowsOf('{"a": 1}\n{"a": \n')).rejects.toThrow(DataError);
    await expect(rowsOf('{"a": 1}\n[1]\n')).rejects.toThrow(DataError);
    for await (const row of readRows(join(folder, "data.jsonl"))) if (row.row === 0) break;
    await expect.poll(open).toEqual([]); // closing is under way
  });
  it("must be a file that can be read", async () => {
    const read = async (): Promise<void> => {
      for await (const _ of readRows(join(folder, "missing.jsonl")));
    };
    await expect(read()).rejects.toThrow(/missing\.jsonl: must be a data file, \.jsonl or \.json, got no such file/);
  });
});

describe("a JSON array", () => {
  it("gives its objects, each with the line it begins on", async () => {
    const rows = await rowsOf('\n[\n {"a": 1},\n\n {"a":\n 2}\n]\n');
    expect(rows.map((r) => [r.row, r.line, r.value.get("a")])).toEqual([
      [0, 3, 1n],
      [1, 5, 2n],
    ]);
  });

  it("may be empty or on one line", async () => {
    expect(await rowsOf("[]")).toEqual([]);
    expect(await values('[{"a": 1}, {"a": 2}]')).toEqual([1n, 2n]);
  });

  it("names line and column of what is wrong", async () => {
    await expect(rowsOf('[\n{"a": 1},\n{"a": 1} {"a": 2}]')).rejects.toThrow(
      /^data\.jsonl:3: .*"," or "\]" must follow a row \(column 10\)/,
    );
    await expect(rowsOf("[\n1]")).rejects.toThrow(/^data\.jsonl:2: a row must be a JSON object, got a number/);
    await expect(rowsOf('[{"a": 1}]\n{}')).rejects.toThrow(/^data\.jsonl:2: .*nothing must follow/);
  });
});

describe("JSON values", () => {
  it("keep integers exact and floats floats", () => {
    expect(parseJson("[12345678901234567890, 2.0, 1e-07, -0, -0.0, 1E2]")).toEqual([
      12345678901234567890n,
      2,
      1e-7,
      0n,
      -0,
      100,
    ]);
  });

  it("keep the order of keys, numbers among them, and the last of two alike", () => {
    expect([...(parseJson('{"b": 1, "10": 2, "2": 3, "b": 4, "__proto__": 5}') as Map<string, Json>)]).toEqual([
      ["b", 4n],
      ["10", 2n],
      ["2", 3n],
      ["__proto__", 5n],
    ]);
  });

  it("read every escape", () => {
    expect(parseJson('"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00"')).toBe('"\\/\b\f\n\r\t\u00e9\u{1F600}');
  });

  const bad = [
    "",
    "{",
    "[1,]",
    '{"a"}',
    '{"a":1,}',
    "01",
    "1.",
    ".5",
    "+1",
    "NaN",
    "tru",
    '"a',
    '"\n"',
    '"\\x"',
    '"\\u12"',
    "[1]]",
    "1 2",
    "'a'",
    "[".repeat(1000),
    '{"a":'.repeat(1000),
    "1" + "0".repeat(5000),
  ];
  for (const text of bad)
    it(`refuse ${JSON.stringify(text.slice(0, 20))}`, () => expect(() => parseJson(text)).toThrow(JsonError));

  it("agree with JSON.parse on random texts, well formed and broken", () => {
    let seed = 9;
    const random = (n: number): number => (seed = (seed * 48271) % 2147483647) % n;
    const pieces = [
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      '"a"',
      '"\\n"',
      "1",
      "-2.5e3",
      "true",
      "null",
      " ",
      '"\\u00e9"',
      "0",
      "\n",
    ];
    const plain = (v: Json): unknown =>
      typeof v === "bigint"
        ? Number(v)
        : Array.isArray(v)
          ? v.map(plain)
          : v instanceof Map
            ? Object.fromEntries([...v].map(([k, x]) => [k, plain(x)]))
            : v;
    const attempt = (f: () => unknown): unknown => {
      try {
        return f();
      } catch {
        return "refused";
      }
    };
    let fine = 0;
    for (let i = 0; i < 20_000; i++) {
      const text = Array.from({ length: 1 + random(7) }, () => pieces[random(pieces.length)]).join("");
      const expected = attempt(() => JSON.parse(text));
      if (expected !== "refused") fine++;
      expect(
        attempt(() => plain(parseJson(text))),
        text,
      ).toEqual(expected);
    }
    expect(fine).toBeGreaterThan(500);
  });

  it("come from JavaScript values too", () => {
    expect(fromJs({ a: 2, b: 2.5, c: [undefined, null], d: undefined, e: 2n ** 70n })).toEqual(
      new Map<string, Json>([
        ["a", 2n],
        ["b", 2.5],
        ["c", [null, null]],
        ["e", 2n ** 70n],
      ]),
    );
    const cycle: unknown[] = [];
    cycle.push(cycle);
    for (const value of [cycle, () => 1, Symbol("x"), NaN, new Map([[1, 2]])])
      expect(() => fromJs(value)).toThrow(JsonError);
  });
});
