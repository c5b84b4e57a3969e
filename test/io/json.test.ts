// JSON files and their text, and hashes of files off the main thread.
import { mkdirSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DataError } from "#lib/errors.js";
import { hashFiles, hashParts } from "#lib/io/hash.js";
import { readJson, readJsonIfPresent } from "#lib/io/json.js";
import { duplicateKey, members, withMember } from "#lib/io/json_text.js";
import { random, temporaryFolder } from "./tools.ts";

describe("readJson", () => {
  const dir = temporaryFolder();
  const put = (name: string, text: string | Uint8Array) => {
    writeFileSync(join(dir, name), text);
    return join(dir, name);
  };

  it("reads a file with or without a byte order mark", async () => {
    expect((await readJson(put("a", '{"x": [1]}'))).value).toEqual({ x: [1] });
    expect((await readJson(put("b", '\ufeff{"x": 1}'))).text).toBe('{"x": 1}');
    expect(await readJsonIfPresent(join(dir, "none"))).toBeNull();
  });

  it("names the file in every refusal", async () => {
    mkdirSync(join(dir, "folder"));
    const bad = [
      put("c", "{"),
      put("d", ""),
      put("e", new Uint8Array([0x22, 0xff, 0x22])),
      put("f", "[NaN]"),
      join(dir, "none"),
      join(dir, "folder"),
    ];
    for (const path of bad) {
      await expect(readJson(path)).rejects.toThrow(DataError);
      await expect(readJson(path)).rejects.toThrow(path);
    }
    await expect(readJson(put("g", "[1,2,3]"), { maxBytes: 4 })).rejects.toThrow(/at most 4 bytes, got 7/);
    await expect(readJson(put("h", "[".repeat(3e6)))).rejects.toThrow(DataError);
  });
});

describe("the text of an object", () => {
  it("is cut into members, whatever they hold", () => {
    const text = ' {"a" : 1.50e-3 , "b\\"}":{"x":[{"}":"]"}]},"c":"\\\\","":null\n,"d":[ ]}';
    expect(members(text).map((m) => [m.key, text.slice(m.start, m.end)])).toEqual([
      ["a", "1.50e-3"],
      ['b"}', '{"x":[{"}":"]"}]}'],
      ["c", '"\\\\"'],
      ["", "null"],
      ["d", "[ ]"],
    ]);
    expect(members("{ }")).toEqual([]);
    expect([duplicateKey('{"a":{"a":1},"b":2}'), duplicateKey('{"a":1,"\\u0061":1}')]).toEqual([null, "a"]);
  });

  it("agrees with JSON.parse on random objects, and changes in one member only", () => {
    const next = random(5);
    const key = () => ['"', "\\", "{", "]", ",", ":", "é", "k"][Math.floor(next() * 8)]! + Math.floor(next() * 100);
    const value = (depth: number): unknown => {
      const kind = Math.floor(next() * 7);
      if (kind < 5) return [null, true, next() * 100, key(), ""][kind];
      const many = Array.from({ length: depth > 3 ? 0 : Math.floor(next() * 4) }, () => value(depth + 1));
      return kind === 5 ? many : Object.fromEntries(many.map((v) => [key(), v]));
    };
    for (let i = 0; i < 500; i++) {
      const object = { first: value(0), dtype: value(0), last: value(0) };
      const text = JSON.stringify(object, null, i % 3);
      expect(members(text).map((m) => [m.key, JSON.parse(text.slice(m.start, m.end))])).toEqual(Object.entries(object));
      const after = withMember(text, "dtype", "new");
      expect(JSON.parse(after)).toEqual({ ...object, dtype: "new" });
      expect(after.startsWith(text.slice(0, members(text)[1]!.start))).toBe(true);
      expect(after.endsWith(text.slice(members(text)[1]!.end))).toBe(true);
      expect(JSON.parse(withMember(text, "more", [1, { a: 2 }]))).toEqual({ ...object, more: [1, { a: 2 }] });
    }
    expect(withMember("{}", "a", 1)).toBe('{\n  "a": 1\n}\n');
  });
});

describe("hashFiles", () => {
  it("gives sizes and SHA-256 sums in order, while the event loop runs on", async () => {
    const dir = temporaryFolder();
    const contents = [Buffer.alloc(0), Buffer.from("abc"), Buffer.alloc(9_000_001, 7)];
    const paths = contents.map((c, i) => (writeFileSync(join(dir, String(i)), c), join(dir, String(i))));
    const hashes = await hashFiles(paths);
    expect(hashes).toEqual(
      contents.map((c, i) => ({
        path: paths[i],
        size: c.length,
        sha256: createHash("sha256").update(c).digest("hex"),
      })),
    );
    expect(await hashFiles([])).toEqual([]);
  });

  it("names a file that is missing, and stops when told", async () => {
    await expect(hashFiles(["/nowhere/file"])).rejects.toThrow(/\/nowhere\/file: must be readable, got no such file/);
    const stop = new AbortController();
    const run = hashFiles(["/dev/zero"], { signal: stop.signal });
    setTimeout(() => stop.abort(new Error("stop")), 20);
    await expect(run).rejects.toThrow("stop");
  });

  it("tells lists of parts apart", () => {
    expect(
      new Set([hashParts(["ab", "c"]), hashParts(["a", "bc"]), hashParts(["abc"]), hashParts(["a,b", "c"])]).size,
    ).toBe(4);
  });
});
