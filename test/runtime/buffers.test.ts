// Host access to shared buffers: whole or by rows, fingerprints, and files in every float type.
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DataError, ShapeError, StateError, WriteError } from "#lib/errors.js";
import { assemble, bf16, f32, i32, random, session, temporaryFolder } from "./tools.ts";

const dir = temporaryFolder();

const floats = (bits: Uint32Array): Float32Array => new Float32Array(bits.buffer);

/** The value of a float16, as a double. */
function half(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const [e, m] = [(h >> 10) & 31, h & 1023];
  if (e === 31) return m ? NaN : sign * Infinity;
  return sign * (e ? (1 + m / 1024) * 2 ** (e - 15) : m * 2 ** -24);
}
/** The code of the nearest of the non-negative values `of(0) <= of(1) <= ... <= of(most)`, ties to the even code. */
function nearest(x: number, of: (code: number) => number, most: number): number {
  let [low, high] = [0, most];
  while (low < high) {
    const mid = (low + high + 1) >> 1;
    if (of(mid) <= x) low = mid;
    else high = mid - 1;
  }
  if (low === most) return low;
  const [below, above] = [x - of(low), of(low + 1) - x];
  return below < above || (below === above && low % 2 === 0) ? low : low + 1;
}
/** Like `half`, but the step past the largest number is a number: where rounding to infinity begins. */
const halfGrown = (h: number): number => (h === 0x7c00 ? 65536 : half(h));
const bfGrown = (h: number): number => (h === 0x7f80 ? 2 ** 128 : floats(Uint32Array.of(h << 16))[0]!);

/** Random bits, and all the numbers where something changes. */
function hardFloats(): Float32Array {
  const r = random(7);
  const edges = [0, 1, 0x7f800000, 0x7f7fffff, 0x477fe000, 0x477fefff, 0x477ff000, 0x477fffff, 0x38800000, 0x387fffff];
  edges.push(
    0x33000000,
    0x33000001,
    0x32ffffff,
    0x33800000,
    0x3f800000,
    0x3f808000,
    0x3f818000,
    0x3f801000,
    0x3f803000,
  );
  const bits = [...edges, ...edges.map((e) => (e | 0x80000000) >>> 0)];
  for (let i = 0; i < 20000; i++) bits.push(r(2 ** 32));
  for (let i = 0; i < 20000; i++) bits.push((0x33000000 + r(0x15000000)) >>> 0); // where float16 lives
  return floats(Uint32Array.from(bits));
}

describe("reading and writing", () => {
  const s = session();
  it("starts at zero, goes by whole rows", async () => {
    await s.load(
      assemble({ buffers: { "weights/w": f32(3, 2), "weights/h": bf16(4), "constants/i": i32() }, code: [] }),
    );
    expect(await s.read("weights/w")).toEqual(new Float32Array(6));
    await s.write("weights/w", Float32Array.of(1, 2, 3, 4), { rowStart: 1 });
    expect(await s.read("weights/w")).toEqual(Float32Array.of(0, 0, 1, 2, 3, 4));
    expect(await s.read("weights/w", { rowStart: 2, rows: 1 })).toEqual(Float32Array.of(3, 4));
    expect(await s.read("weights/w", { rowStart: 3 })).toEqual(new Float32Array(0));
    await s.write("weights/h", Uint16Array.of(1, 2, 3, 65535));
    expect(await s.read("weights/h")).toEqual(Uint16Array.of(1, 2, 3, 65535));
    await s.write("constants/i", Int32Array.of(-5));
    expect(await s.read("constants/i")).toEqual(Int32Array.of(-5));
    await s.zero("weights/w");
    expect(await s.read("weights/w")).toEqual(new Float32Array(6));
  });
  it("refuses what does not fit", async () => {
    const wrong = [new Float32Array(3), new Float32Array(8), new Int32Array(6), new Uint16Array(6)];
    for (const array of wrong) await expect(s.write("weights/w", array)).rejects.toThrow(ShapeError);
    await expect(s.write("weights/w", new Float32Array(4), { rowStart: 2 })).rejects.toThrow("at most 1 from row 2");
    await expect(s.write("weights/w", new Float32Array(0), { rowStart: 4 })).rejects.toThrow(
      "rows must lie within its 3",
    );
    await expect(s.read("weights/w", { rowStart: 1, rows: 3 })).rejects.toThrow(ShapeError);
    await expect(s.read("weights/w", { rowStart: -1 })).rejects.toThrow(/rowStart: must be a whole number/);
    await expect(s.read("weights/none")).rejects.toThrow(StateError);
  });
  it("hands over a large buffer whole", async () => {
    await s.load(assemble({ buffers: { "weights/large": f32(1000, 1000) }, code: [] }));
    const x = Float32Array.from({ length: 1e6 }, (_, i) => i);
    await s.write("weights/large", x);
    const back = await s.read("weights/large");
    expect(back).toBeInstanceOf(Float32Array);
    expect(Buffer.compare(new Uint8Array(back.buffer), new Uint8Array(x.buffer))).toBe(0);
  });
  it("fingerprints with XXH64 (figures of the reference implementation)", async () => {
    const known = {
      0: "ef46db3751d8e999",
      1: "3aefa6fd5cf2deb4",
      2: "b617e10f4a256a10",
      3: "cb7d0c3a25f94b5e",
      7: "8299d3eb041c77ab",
      8: "3dd0543edf5f34f7",
      9: "d19a31382146abcd",
      15: "d9233afeef13d479",
      17: "919ceef5812622db",
      1000: "25c4a2d99d72f1e8",
    };
    for (const [n, hash] of Object.entries(known)) {
      await s.load(assemble({ buffers: { [`constants/${n}`]: i32(Number(n)) }, code: [] }));
      await s.write(
        `constants/${n}`,
        Int32Array.from({ length: Number(n) }, (_, i) => Math.imul(i, 2654435761)),
      );
      expect(await s.hash(`constants/${n}`)).toBe(hash);
    }
  });
  it("counts NaN and infinity", async () => {
    await s.write("weights/w", Float32Array.of(1, NaN, Infinity, -Infinity, 3e38, 0));
    await s.write("weights/h", Uint16Array.of(0x7f80, 0x7fc0, 0x7f7f, 0xff80));
    expect(await s.countNonfinite("weights/w")).toBe(3);
    expect(await s.countNonfinite("weights/h")).toBe(3);
    expect(await s.countNonfinite("constants/i")).toBe(0);
  });
});

describe("files", () => {
  const s = session();
  const hard = hardFloats();
  const n = hard.length;
  it("every float16 becomes the same float32, and back", async () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const file = join(dir, "half");
    writeFileSync(file, all);
    await s.load(assemble({ buffers: { "weights/all": f32(65536) }, code: [] }));
    await s.readFiles([{ buffer: "weights/all", path: file, fileDtype: "float16" }]);
    const got = (await s.read("weights/all")) as Float32Array;
    for (let h = 0; h < 65536; h++) {
      if (!Object.is(got[h], half(h))) throw new Error(`${h}: ${got[h]} is not ${half(h)}`);
    }
    await s.writeFiles([{ buffer: "weights/all", path: file, fileDtype: "float16" }]);
    const back = new Uint16Array(readFileSync(file).buffer.slice(0, 131072));
    all.forEach((h, i) => {
      // A NaN's own bits pass through JavaScript unchanged except that a signalling one becomes quiet.
      if (back[i] !== (Number.isNaN(half(h)) ? h | 0x200 : h)) throw new Error(`${h} came back as ${back[i]}`);
    });
  });
  it.each([
    ["float16", halfGrown, 0x7c00],
    ["bfloat16", bfGrown, 0x7f80],
  ] as const)("float32 to %s rounds to nearest, ties to even", async (fileDtype, of, most) => {
    const file = join(dir, fileDtype);
    await s.load(assemble({ buffers: { "weights/hard": f32(n) }, code: [] }));
    await s.write("weights/hard", hard);
    await s.writeFiles([{ buffer: "weights/hard", path: file, fileDtype }]);
    const got = new Uint16Array(new Uint8Array(readFileSync(file)).buffer);
    expect(got.length).toBe(n);
    hard.forEach((x, i) => {
      const g = got[i]!;
      if (Number.isNaN(x)) {
        if ((g & 0x7fff) <= most) throw new Error(`NaN became ${g}`);
        return;
      }
      const sign = Object.is(Math.sign(x), -0) || x < 0 ? 0x8000 : 0;
      const want = sign | nearest(Math.abs(x), of, most);
      if (g !== want) throw new Error(`${x}: ${g.toString(16)} is not ${want.toString(16)}`);
    });
  });
  it("bfloat16 buffers take and give every float type", async () => {
    await s.load(assemble({ buffers: { "weights/h": bf16(4) }, code: [] }));
    const bits = Uint16Array.of(0x3f80, 0xc000, 0x3f81, 0x0000); // 1, -2, 1.0078125, 0
    await s.write("weights/h", bits);
    for (const fileDtype of ["float32", "float16", "bfloat16"] as const) {
      const path = join(dir, `h.${fileDtype}`);
      await s.writeFiles([{ buffer: "weights/h", path, fileDtype }]);
      expect(statSync(path).size).toBe(fileDtype === "float32" ? 16 : 8);
      await s.zero("weights/h");
      await s.readFiles([{ buffer: "weights/h", path, fileDtype }]);
      expect(await s.read("weights/h")).toEqual(bits);
    }
    expect(new Float32Array(new Uint8Array(readFileSync(join(dir, "h.float32"))).buffer)).toEqual(
      Float32Array.of(1, -2, 1.0078125, 0),
    );
  });
  it("rows go to and come from their places, several buffers in one call, by path or descriptor", async () => {
    await s.load(assemble({ buffers: { "weights/a": f32(4, 2), "weights/b": f32(2) }, code: [] }));
    await s.write("weights/a", Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8));
    await s.write("weights/b", Float32Array.of(9, 10));
    const path = join(dir, "places");
    writeFileSync(path, new Uint8Array(40).fill(255));
    await s.writeFiles([
      { buffer: "weights/a", rowStart: 1, rows: 2, path, fileOffset: 8, fileDtype: "float32" },
      { buffer: "weights/b", path, fileOffset: 24, fileDtype: "float32" },
    ]);
    const bytes = readFileSync(path);
    expect(bytes.length).toBe(40); // never cut
    expect([...bytes.subarray(0, 8), ...bytes.subarray(32)].every((b) => b === 255)).toBe(true);
    expect(new Float32Array(new Uint8Array(bytes.subarray(8, 32)).buffer)).toEqual(Float32Array.of(3, 4, 5, 6, 9, 10));
    const fd = openSync(path, "r");
    await s.readFiles([{ buffer: "weights/a", rowStart: 3, rows: 1, fd, fileOffset: 24, fileDtype: "float32" }]);
    closeSync(fd);
    expect(await s.read("weights/a")).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6, 9, 10));
  });
  it("larger than one piece", async () => {
    const count = 2_500_001;
    await s.load(assemble({ buffers: { "weights/long": f32(count) }, code: [] }));
    await s.write(
      "weights/long",
      Float32Array.from({ length: count }, (_, i) => i % 251),
    );
    const hash = await s.hash("weights/long");
    for (const fileDtype of ["float32", "bfloat16"] as const) {
      const path = join(dir, `long.${fileDtype}`);
      await s.writeFiles([{ buffer: "weights/long", path, fileDtype }]);
      await s.zero("weights/long");
      await s.readFiles([{ buffer: "weights/long", path, fileDtype }]);
      expect(await s.hash("weights/long")).toBe(hash);
    }
  });
  it("a short file is an error, wherever it ends", async () => {
    const path = join(dir, "short");
    writeFileSync(path, new Uint8Array(31));
    for (const fileDtype of ["float32", "bfloat16"] as const) {
      const read = s.readFiles([{ buffer: "weights/a", path, fileOffset: 20, fileDtype }]);
      await expect(read).rejects.toThrow(DataError);
      await expect(read).rejects.toThrow(/short: the file is cut short.*byte 31/);
    }
  });
  it("a full disk, a missing file and a folder are told apart by their codes", async () => {
    const write = (path: string): Promise<void> => s.writeFiles([{ buffer: "weights/a", path, fileDtype: "float32" }]);
    await expect(write("/dev/full")).rejects.toThrow(WriteError);
    await expect(write("/dev/full")).rejects.toThrow(/ENOSPC: .*\(write\)/);
    await expect(write(dir)).rejects.toThrow(/EISDIR/);
    const read = (path: string): Promise<void> => s.readFiles([{ buffer: "weights/a", path, fileDtype: "float32" }]);
    await expect(read(join(dir, "none"))).rejects.toThrow(/none: must be readable, got ENOENT: .*\(open\)/);
    await expect(read(join(dir, "none"))).rejects.toThrow(DataError);
    await expect(s.readFiles([{ buffer: "weights/a", fd: 987654, fileDtype: "float32" }])).rejects.toThrow(/EBADF/);
  });
  it("wrong slices are refused", async () => {
    const path = join(dir, "half");
    const read = (more: object): Promise<void> =>
      s.readFiles([{ buffer: "weights/a", path, fileDtype: "float32", ...more }]);
    await expect(read({ fileDtype: "int32" })).rejects.toThrow("a file of int32 does not convert to or from float32");
    await expect(read({ fileDtype: "float64" })).rejects.toThrow(
      "fileDtype: must be float32, bfloat16, float16 or int32",
    );
    await expect(read({ rowStart: 3, rows: 2 })).rejects.toThrow(ShapeError);
    await expect(read({ fileOffset: -1 })).rejects.toThrow(/fileOffset: must be a whole number/);
    await expect(read({ buffer: "weights/none" })).rejects.toThrow(StateError);
    await expect(read({ path: undefined })).rejects.toThrow("must have a path or an fd");
    await expect(read({ path: "a\0b" })).rejects.toThrow(/file: must be a path/);
  });
  it("a pipe that ends is a file that ends", async () => {
    const path = join(dir, "pipe");
    execFileSync("mkfifo", [path]);
    const fd = openSync(path, "r+");
    await expect(s.readFiles([{ buffer: "weights/a", fd, fileDtype: "float32" }])).rejects.toThrow(/ESPIPE/);
    closeSync(fd);
  });
});
