// Program bytes from anywhere: each gives a program or an error that says what is wrong, never a crash.
import { describe, expect, it } from "vitest";
import { DataError } from "#lib/errors.js";
import { encodeOne } from "#lib/program/encode.js";
import { loadAddon } from "#lib/runtime/addon.js";
import { Session } from "#lib/runtime/session.js";
import { assemble, at, f32, i32, inside, instruction, random, session, type Source } from "./tools.ts";

const N = { name: "N", capacity: 16 };
const good = assemble({
  dims: [N],
  buffers: { "inputs/x": f32(N, 8), "weights/w": f32(8), "outputs/y": f32(N, 8), "constants/i": i32(3), "weights/part": inside("weights/w", 0, f32(4)) },
  code: [
    ["fill", [at(0, f32(N, 8))], [2]],
    ["rms_norm", ["inputs/x", "weights/w", at(512, f32(N, 8)), at(1024, f32(N))], [1e-5]],
    ["add", [at(0, f32(N, 8)), at(512, f32(N, 8)), "outputs/y"]],
    ["reduce_sum", ["outputs/y", at(0, f32(N))], [[1]]],
  ],
});
const changed = (at: number, value: number): Uint8Array => {
  const bytes = good.slice();
  new DataView(bytes.buffer).setUint32(at, value, true);
  return bytes;
};

describe("program bytes", () => {
  const s = session({ device: "null" });
  const refused = async (bytes: Uint8Array, why: RegExp): Promise<void> => {
    await expect(s.load(bytes)).rejects.toThrow(DataError);
    await expect(s.load(bytes)).rejects.toThrow(why);
  };
  it("are checked field by field", async () => {
    await s.load(good);
    await refused(changed(0, 7), /not a program/);
    await refused(changed(4, 3), /version must be 2, got 3/);
    await refused(changed(12, 1e9), /at most 4096 dims/);
    await refused(changed(16, 1e9), /cut short|ends inside|no dim/);
    await refused(changed(20, 1e9), /cut short|ends inside/);
    await refused(changed(24, 64), /within 64 bytes/);
    await refused(changed(28, 0xffffffff), /arena is too large/);
    await refused(Uint8Array.of(...good, 0, 0, 0, 0), /4 bytes too many/);
  });
  it("have parts inside of a whole that stands before them", async () => {
    const whole = f32(64);
    const load = (buffers: Source["buffers"]): Promise<unknown> => s.load(assemble({ buffers, code: [] }));
    await load({ "cache/all": whole, "cache/a": inside("cache/all", 64, f32(48)) });
    const wrong: [Source["buffers"], RegExp][] = [
      [{ "cache/b": inside("cache/b", 0, f32(4)) }, /cache\/b: a part must follow what it lies in/],
      [{ "cache/b": inside("cache/z", 0, f32(4)), "cache/z": whole }, /a part must follow/],
      [{ "cache/all": whole, "cache/b": inside("cache/all", 32, f32(4)) }, /at a multiple of 64, got 32/],
      [{ "cache/all": whole, "cache/b": inside("cache/all", 128, f32(48)) }, /float32\[48\] must lie within cache\/all/],
      [{ "inputs/all": whole, "cache/b": inside("inputs/all", 0, f32(4)) }, /must be shared/],
      [{ "cache/all": whole, "cache/b": inside("cache/all", 0, f32(32)), "cache/c": inside("cache/b", 0, f32(4)) }, /no part itself/],
    ];
    for (const [buffers, why] of wrong) await expect(load(buffers)).rejects.toThrow(why);
  });
  it("cut anywhere are refused", async () => {
    for (let n = 0; n < good.length; n += 1) await expect(s.load(good.subarray(0, n))).rejects.toThrow(DataError);
  });
  it("with any word replaced by a hard one load or are refused, and still run", async () => {
    const words = [0, 1, 2, 3, 5, 63, 64, 255, 0x7fffffff, 0x80000000, 0xffffffff, 0xffffffc0];
    for (let offset = 0; offset < good.length; offset += 4) {
      for (const word of words) await tolerate(changed(offset, word));
    }
  });
  it("with random damage load or are refused, and still run", async () => {
    const r = random(11);
    for (let i = 0; i < 4000; i++) {
      const bytes = good.slice();
      for (let k = r(8); k >= 0; k--) bytes[r(bytes.length)] = r(3) ? r(256) : [0, 1, 255, 128][r(4)]!;
      await tolerate(bytes);
    }
  });

  let fresh: Session | undefined;
  let used = 0;
  async function tolerate(bytes: Uint8Array): Promise<void> {
    if (fresh === undefined || used++ % 50 === 0) {
      await fresh?.close();
      fresh = Session.create({ device: "null" });
    }
    try {
      const p = await fresh.load(bytes);
      const counts = Object.fromEntries(p.dims.map((d) => [d.name, Math.min(d.capacity, 1)]));
      const outputs = p.buffers.filter((b) => b.bytes < 1e6).map((b) => b.name);
      await fresh.run(p, { counts, outputs }).catch(known);
      await fresh.unload(p);
    } catch (error) {
      known(error);
    }
  }
  function known(error: unknown): void {
    const code = (error as { code?: string }).code ?? "";
    if (!["ERR_DATA", "ERR_SHAPE", "ERR_STATE", "ERR_MEMORY", "ERR_CONFIG"].includes(code)) throw error as Error;
  }
});

describe("one instruction for its scratch", () => {
  it("is checked as programs are", async () => {
    const addon = loadAddon();
    const r = random(5);
    const m = at(0, f32(64, 64));
    const bytes = encodeOne(instruction(["gemm", [m, m, undefined, undefined, m], [0, 1]]));
    expect(addon.scratch("cpu", bytes)).toBeGreaterThanOrEqual(0);
    expect(addon.scratch("null", bytes)).toBe(0);
    for (let n = 0; n < bytes.length; n++)
      expect(() => addon.scratch("null", bytes.subarray(0, n))).toThrow(/instruction/);
    for (let i = 0; i < 5000; i++) {
      const damaged = bytes.slice();
      damaged[r(damaged.length)] = r(256);
      try {
        addon.scratch("null", damaged);
      } catch (error) {
        expect((error as Error).message).toMatch(/^program: instruction/);
      }
    }
  });
});
