// Safetensors headers: files of transformers are read, our layout is what the format asks, and nothing hostile gets through.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DataError } from "#lib/errors.js";
import {
  layoutSafetensors,
  parseSafetensorsHeader,
  parseSafetensorsIndex,
  readSafetensorsHeader,
  type StoredTensor,
  type TensorSpec,
} from "#lib/io/safetensors.js";
import { fixtures, random, temporaryFolder } from "./tools.ts";

const valid = readFileSync(join(fixtures, "models/qwen2/model.safetensors"));
const headerLength = Number(valid.readBigUInt64LE(0));
const header = valid.subarray(8, 8 + headerLength);

/** A file's bytes from the JSON text of its header. */
function file(json: string, dataBytes: number): { header: Buffer; size: number } {
  const bytes = Buffer.from(json);
  return { header: bytes, size: 8 + bytes.length + dataBytes };
}

function parse({ header, size }: { header: Uint8Array; size: number }): Map<string, StoredTensor> {
  return parseSafetensorsHeader(header, size, "x.safetensors");
}

describe("reading", () => {
  it("finds every tensor of a file that transformers wrote", async () => {
    const tensors = await readSafetensorsHeader(join(fixtures, "models/qwen2/model.safetensors"));
    const json = JSON.parse(header.toString());
    delete json.__metadata__;
    expect([...tensors.keys()].sort()).toEqual(Object.keys(json).sort());
    for (const [name, t] of tensors) {
      expect({
        dtype: t.dtype,
        shape: t.shape,
        data_offsets: [t.offset, t.offset + t.bytes].map((x) => x - 8 - headerLength),
      }).toEqual(json[name]);
    }
  });

  it("accepts scalars, empty tensors and names that objects have of their own", () => {
    const json = `{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"__proto__":{"dtype":"F16","shape":[0,7],"data_offsets":[4,4]},
      "toString":{"dtype":"BF16","shape":[3],"data_offsets":[4,10]}}  `;
    const tensors = parse(file(json, 10));
    expect([...tensors.keys()].sort()).toEqual(["__proto__", "a", "toString"]);
    expect(tensors.get("a")!.bytes).toBe(4);
  });
});

const one = (entry: string) => `{"a":${entry}}`;
const refused: [why: string, json: string, dataBytes: number, must: RegExp][] = [
  ["is no object", "[]", 0, /begin with/],
  ["is not JSON", `{"a":`, 0, /must be JSON/],
  ["is not UTF-8", "", 0, /begin with/],
  ["holds a number for a tensor", one("7"), 0, /must be an object/],
  ["has an unknown dtype", one(`{"dtype":"F99","shape":[1],"data_offsets":[0,4]}`), 4, /dtype must be/],
  ["has a dtype that is an object's own name", one(`{"dtype":"constructor","shape":[1],"data_offsets":[0,4]}`), 4, /dtype must be/],
  ["has a negative size", one(`{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}`), 4, /shape must be/],
  ["has a fractional size", one(`{"dtype":"F32","shape":[0.5,2],"data_offsets":[0,4]}`), 4, /shape must be/],
  ["has a shape of strings", one(`{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}`), 4, /shape must be/],
  ["has too many dimensions", one(`{"dtype":"F32","shape":[${"1,".repeat(99)}1],"data_offsets":[0,4]}`), 4, /shape must be/],
  ["overflows 64 bits", one(`{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}`), 0, /must take/],
  ["takes more bytes than its shape", one(`{"dtype":"F32","shape":[1],"data_offsets":[0,8]}`), 8, /must take 4 bytes/],
  ["has offsets in reverse", one(`{"dtype":"F32","shape":[1],"data_offsets":[4,0]}`), 4, /data_offsets must be/],
  ["has offsets beyond 2^53", one(`{"dtype":"U8","shape":[1],"data_offsets":[9007199254740992,9007199254740993]}`), 1, /data_offsets must be/],
  ["lacks offsets", one(`{"dtype":"F32","shape":[1]}`), 4, /data_offsets must be/],
  ["reaches past the end of the file", one(`{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`), 4, /cut short/],
  ["leaves bytes at the end", one(`{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`), 5, /no tensor owns/],
  ["leaves a hole", one(`{"dtype":"F32","shape":[1],"data_offsets":[4,8]}`), 8, /leaves a hole/],
  ["overlaps", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8, /overlaps/],
  ["shares bytes", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, /overlaps/],
  ["names a tensor twice", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\\u0061":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, /once in the header/],
  ["gives a field twice", one(`{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}`), 4, /"shape" once/],
  ["has metadata that are no strings", `{"__metadata__":{"x":1}}`, 0, /__metadata__ must/],
  ["is nested without end", `{"a":${"[".repeat(1e5)}${"]".repeat(1e5)}}`, 0, /must be/],
]; // prettier-ignore

describe("a header is refused when it", () => {
  it.each(refused)("%s", (_why, json, dataBytes, must) => {
    expect(() => parse(file(json, dataBytes))).toThrow(DataError);
    expect(() => parse(file(json, dataBytes))).toThrow(must);
  });
});

describe("a file is refused when it", () => {
  const dir = temporaryFolder();
  const write = (name: string, bytes: Uint8Array) => {
    writeFileSync(join(dir, name), bytes);
    return join(dir, name);
  };
  const length = (n: bigint) => {
    const b = Buffer.alloc(8);
    b.writeBigUInt64LE(n);
    return b;
  };

  it.each<[string, Uint8Array]>([
    ["is empty", Buffer.alloc(0)],
    ["ends within the length", valid.subarray(0, 5)],
    ["ends within the header", valid.subarray(0, 100)],
    ["ends within the data", valid.subarray(0, valid.length - 1)],
    ["is longer than its tensors", Buffer.concat([valid, Buffer.alloc(1)])],
    ["claims a header of 2^64 - 1 bytes", Buffer.concat([length(2n ** 64n - 1n), valid.subarray(8)])],
    ["claims a header of no bytes", Buffer.concat([length(0n), valid.subarray(8)])],
    ["is a Git LFS pointer", Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12345\n")],
  ])("%s", async (name, bytes) => {
    const path = write(name.replaceAll(" ", "-"), bytes);
    await expect(readSafetensorsHeader(path)).rejects.toThrow(DataError);
    await expect(readSafetensorsHeader(path)).rejects.toThrow(path);
  });

  it("is missing, or a folder", async () => {
    await expect(readSafetensorsHeader(join(dir, "none"))).rejects.toThrow(/no such file/);
    mkdirSync(join(dir, "folder"));
    await expect(readSafetensorsHeader(join(dir, "folder"))).rejects.toThrow(DataError);
  });
});

const fuzzMs = Number(process.env["ATTUNE_FUZZ_SECONDS"] ?? 0) * 1000; // npm run test:fuzz; at least 2000 cases without
describe("fuzzed headers", () => {
  const next = random(3);
  const below = (n: number) => Math.floor(next() * n);
  const tokens = [
    "0",
    "-1",
    "1e99",
    "9007199254740993",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    '"',
    "\\",
    "null",
    "F64",
    "\u0000",
    "\ud83d\ude00",
    " ",
  ];

  // Two kinds of damage: raw bytes, which mostly ends in bad JSON, and entries with other numbers, which parse and must be weighed.
  function mutated(): { header: Uint8Array; size: number } {
    const size = next() < 0.8 ? valid.length : below(valid.length * 2);
    if (next() < 0.3) {
      const bytes = Buffer.from(header);
      for (let n = 0; n <= below(3); n++) bytes[below(bytes.length)] = below(256);
      return { header: next() < 0.2 ? bytes.subarray(0, below(bytes.length)) : bytes, size };
    }
    if (next() < 0.3) {
      const text = header.toString();
      const at = below(text.length);
      const bytes = Buffer.from(text.slice(0, at) + tokens[below(tokens.length)]! + text.slice(at + below(4)));
      return { header: bytes, size: size - header.length + bytes.length };
    }
    const json = JSON.parse(header.toString());
    const names = Object.keys(json).filter((name) => name !== "__metadata__");
    const entry = json[names[below(names.length)]!];
    const other = json[names[below(names.length)]!];
    switch (below(6)) {
      case 0: entry.shape[below(entry.shape.length)] = below(64); break;
      case 1: entry.data_offsets[below(2)] = below(valid.length); break;
      case 2: entry.data_offsets = other.data_offsets; break;
      case 3: entry.shape = [...entry.shape].reverse(); break;
      case 4: entry.dtype = ["F32", "BF16", "I8", "F4", "x"][below(5)]; break;
      default: delete json[names[below(names.length)]!];
    } // prettier-ignore
    const bytes = Buffer.from(JSON.stringify(json).padEnd(header.length));
    return { header: bytes, size: size - header.length + bytes.length };
  }

  it("give a DataError, or tensors that cover the data once", () => {
    const bits: Record<string, number> = { F4: 4, I8: 8, U8: 8, BOOL: 8, F8_E5M2: 8, F8_E4M3: 8, F16: 16, BF16: 16, I16: 16, U16: 16, F32: 32, I32: 32, U32: 32, F64: 64, I64: 64, U64: 64 }; // prettier-ignore
    let accepted = 0;
    let cases = 0;
    const end = performance.now() + fuzzMs;
    for (; cases < 2000 || performance.now() < end; cases++) {
      const candidate = mutated();
      let tensors;
      try {
        tensors = parse(candidate);
      } catch (error) {
        if (!(error instanceof DataError)) throw error;
        continue;
      }
      accepted++;
      const owned = new Uint8Array(candidate.size);
      for (const t of tensors.values()) {
        expect(t.bytes * 8).toBe(t.shape.reduce((a, b) => a * b, bits[t.dtype]!));
        for (let b = t.offset; b < t.offset + t.bytes; b++) owned[b]!++;
      }
      expect(owned.every((count, b) => count === (b < 8 + candidate.header.length ? 0 : 1))).toBe(true);
    }
    expect(accepted).toBeGreaterThan(cases / 50);
    expect(accepted).toBeLessThan(cases / 2);
  });
});

describe("an index", () => {
  it("names its files once, in order", () => {
    const { files } = parseSafetensorsIndex(
      { weight_map: { a: "m-2.safetensors", b: "m-1.safetensors", c: "m-2.safetensors" } },
      "i",
    );
    expect(files).toEqual(["m-2.safetensors", "m-1.safetensors"]);
  });

  it.each(["../m.safetensors", "/etc/m.safetensors", "a/b.safetensors", "a\\b.safetensors", "..safetensors", "m.bin", ".safetensors/", "", "m\0.safetensors", 7, null])(
    "must not name %j",
    (name) => expect(() => parseSafetensorsIndex({ weight_map: { a: name } }, "i")).toThrow(/plain file name in the same folder/),
  ); // prettier-ignore

  it.each([[null], [{}], [{ weight_map: [] }], [{ weight_map: {} }]])("must hold a weight_map, not %j", (value) => {
    expect(() => parseSafetensorsIndex(value, "i")).toThrow(DataError);
  });
});

describe("layout", () => {
  const specs: TensorSpec[] = [
    { name: "w", dtype: "F32", shape: [3, 2] },
    { name: "v", dtype: "BF16", shape: [5] },
    { name: "h", dtype: "F16", shape: [1, 1] },
  ];

  it("is one file whose header reads back", () => {
    const { shards, index } = layoutSafetensors(specs);
    expect(index).toBeNull();
    const [shard] = shards;
    expect(shard!.file).toBe("model.safetensors");
    expect(shard!.headerBytes.length % 8).toBe(0);
    expect(Buffer.from(shard!.headerBytes.subarray(8)).toString().trimEnd()).toBe(
      `{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},` +
        `"v":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]},"h":{"dtype":"F16","shape":[1,1],"data_offsets":[34,36]}}`,
    );
    const tensors = parseSafetensorsHeader(shard!.headerBytes.subarray(8), shard!.size, "f");
    for (const t of shard!.tensors)
      expect(tensors.get(t.name)).toMatchObject({ offset: t.offset, bytes: t.bytes, shape: t.shape });
  });

  it("is sharded above the limit, with an index that names every tensor", () => {
    const { shards, index } = layoutSafetensors(specs, { maxShardBytes: 12, stem: "optimizer" });
    expect(shards.map((s) => [s.file, ...s.tensors.map((t) => t.name)])).toEqual([
      ["optimizer-00001-of-00002.safetensors", "w"],
      ["optimizer-00002-of-00002.safetensors", "v", "h"],
    ]);
    const value = JSON.parse(index!);
    expect(value.metadata.total_size).toBe(36);
    expect([...parseSafetensorsIndex(value, "i").weightMap]).toEqual([
      ["w", "optimizer-00001-of-00002.safetensors"],
      ["v", "optimizer-00002-of-00002.safetensors"],
      ["h", "optimizer-00002-of-00002.safetensors"],
    ]);
  });

  it("holds nothing in one empty file", () => {
    const { shards } = layoutSafetensors([]);
    expect(parseSafetensorsHeader(shards[0]!.headerBytes.subarray(8), shards[0]!.size, "f").size).toBe(0);
  });
});
