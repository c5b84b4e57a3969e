// Programs in a session: what they share, what is their own, counts, inputs and outputs, and every way to get it wrong.
import { describe, expect, it } from "vitest";
import { ConfigError, DataError, DeviceError, ShapeError, StateError } from "#lib/errors.js";
import { tableHash } from "#lib/program/encode.js";
import { cpuInfo, devices, peakRss } from "#lib/runtime/host.js";
import { Session } from "#lib/runtime/session.js";
import { addition, assemble, at, bf16, f32, i32, inside, long, session } from "./tools.ts";

describe("devices", () => {
  it("auto is the cpu here, with the cgroup's share of threads", async () => {
    await using s = Session.create();
    expect(s.device).toBe("cpu");
    expect(s.threads).toBe(cpuInfo().threads);
    expect(devices()).toEqual(["cpu", "null"]);
    expect(["baseline", "avx2", "avx512", "avx512_bf16"]).toContain(cpuInfo().level);
    expect(peakRss()).toBeGreaterThan(10 << 20);
  });
  it("cuda fails and says why", () => {
    expect(() => Session.create({ device: "cuda" })).toThrow(DeviceError);
    expect(() => Session.create({ device: "cuda" })).toThrow(/must be auto or cpu in this build, got "cuda" \(it has no CUDA backend; `attune build --cuda` builds one\)/);
    expect(() => Session.create({ device: "gpu" as "cuda" })).toThrow(/must be auto, cpu, cuda or null, got "gpu"/);
  });
  it("threads must be a whole number of at least one", () => {
    for (const threads of [0, -1, 1.5, NaN, 4096]) expect(() => Session.create({ threads })).toThrow(ConfigError);
  });
  it("an addon of another op table is refused with the command that mends it", () => {
    expect(() => Session.create({ tableHash: tableHash() ^ 1 })).toThrow(/op table.*npm run build/);
  });
  it("null runs everything but the arithmetic", async () => {
    await using s = Session.create({ device: "null" });
    const p = await s.load(addition(3));
    const three = Float32Array.of(1, 2, 3);
    expect(await s.run(p, { inputs: { "inputs/a": three, "inputs/b": three } })).toEqual({
      "outputs/y": new Float32Array(3),
    });
  });
});

describe("a program", () => {
  const s = session();
  it("adds two vectors", async () => {
    const p = await s.load(addition(3));
    const inputs = { "inputs/a": Float32Array.of(1, 2, 3), "inputs/b": Float32Array.of(10, 20, 30) };
    expect(await s.run(p, { inputs })).toEqual({ "outputs/y": Float32Array.of(11, 22, 33) });
    expect(p.instructions).toEqual([{ op: "add", name: "line.0/add" }]);
    expect(p.buffers.map((b) => [b.name, b.dtype, b.shape, b.bytes, b.private])).toEqual([
      ["inputs/a", "float32", [3], 12, true],
      ["inputs/b", "float32", [3], 12, true],
      ["outputs/y", "float32", [3], 12, true],
    ]);
  });
  it("keeps values in the arena between instructions, and lists and numbers reach the kernels", async () => {
    const t = f32(2, 3);
    const p = await s.load(
      assemble({
        buffers: { "inputs/x": t, "outputs/y": f32(2) },
        code: [
          ["fill", [at(64, t)], [2.5]],
          ["mul", ["inputs/x", at(64, t), at(0, t)]],
          ["reduce_sum", [at(0, t), "outputs/y"], [[1]]],
        ],
      }),
    );
    const y = await s.run(p, { inputs: { "inputs/x": Float32Array.of(1, 2, 3, 4, 5, 6) } });
    expect(y["outputs/y"]).toEqual(Float32Array.of(15, 37.5));
    expect(p.arenaBytes).toBe(128);
    expect(s.arenaBytes).toBeGreaterThanOrEqual(128);
  });
  it("works on the counts in use: inputs and outputs have that many elements", async () => {
    const p = await s.load(addition({ name: "N", capacity: 8 }));
    expect(p.dims).toEqual([{ name: "N", capacity: 8 }]);
    for (const n of [0, 1, 5, 8]) {
      const inputs = { "inputs/a": new Float32Array(n).fill(1), "inputs/b": new Float32Array(n).fill(n) };
      expect(await s.run(p, { counts: { N: n }, inputs })).toEqual({ "outputs/y": new Float32Array(n).fill(n + 1) });
    }
  });
  it("copies inputs when it is called: changing the array afterwards changes nothing", async () => {
    const p = await s.load(addition(2));
    const a = Float32Array.of(1, 2);
    const done = s.run(p, { inputs: { "inputs/a": a, "inputs/b": Float32Array.of(0, 0) } });
    a.fill(99);
    expect((await done)["outputs/y"]).toEqual(Float32Array.of(1, 2));
  });
  it("gives any of its buffers as an output", async () => {
    const p = await s.load(addition(2));
    const inputs = { "inputs/a": Float32Array.of(1, 2), "inputs/b": Float32Array.of(0, 0) };
    expect(await s.run(p, { inputs, outputs: ["inputs/a"] })).toEqual({ "inputs/a": Float32Array.of(1, 2) });
    expect(await s.run(p, { inputs, outputs: [] })).toEqual({});
  });
  it("writes an output into shared memory that is lent to it, and returns the part in use", async () => {
    const p = await s.load(addition({ name: "N", capacity: 8 }));
    const lent = new Float32Array(new SharedArrayBuffer(4 * 8)).fill(7);
    const three = Float32Array.of(1, 2, 3);
    const out = await s.run(p, { counts: { N: 3 }, inputs: { "inputs/a": three, "inputs/b": three }, into: { "outputs/y": lent } });
    expect([...out["outputs/y"]!]).toEqual([2, 4, 6]);
    expect(out["outputs/y"]!.buffer).toBe(lent.buffer);
    expect([...lent]).toEqual([2, 4, 6, 7, 7, 7, 7, 7]);
  });
  it("refuses memory that is too small, of another type, not shared, or for no output", async () => {
    const p = await s.load(addition(3));
    const three = Float32Array.of(1, 2, 3);
    const given = (into: Record<string, Float32Array | Int32Array>): Promise<unknown> => s.run(p, { inputs: { "inputs/a": three, "inputs/b": three }, into });
    const shared = new SharedArrayBuffer(12);
    await expect(given({ "outputs/y": new Float32Array(shared, 0, 2) })).rejects.toThrow(/outputs\/y: the array for it must have room for 12 bytes of float32, got 8 of float32/);
    await expect(given({ "outputs/y": new Int32Array(shared) })).rejects.toThrow(ShapeError);
    await expect(given({ "outputs/y": new Float32Array(3) })).rejects.toThrow(/must view a SharedArrayBuffer, got an ArrayBuffer/);
    await expect(given({ "inputs/a": new Float32Array(shared) })).rejects.toThrow(/into: must name outputs of the run \(outputs\/y\), got inputs\/a/);
    expect([...new Float32Array(shared)]).toEqual([0, 0, 0]);
  });
  it("can be unloaded, once", async () => {
    const before = s.bufferBytes;
    const p = await s.load(addition(1000));
    expect(s.bufferBytes).toBe(before + 12000);
    await s.unload(p);
    await expect(s.unload(p)).rejects.toThrow(StateError);
    expect(s.bufferBytes).toBe(before);
  });
  it("is timed per instruction, summed over profiled runs until reset", async () => {
    const p = await s.load(long(64, 5));
    await s.run(p);
    expect(await s.profile(p)).toEqual(new Float64Array(5));
    await s.run(p, { profile: true });
    const once = await s.profile(p);
    expect(once.every((ns) => ns > 0)).toBe(true);
    await s.run(p, { profile: true });
    const twice = await s.profile(p, { reset: true });
    expect(twice.every((ns, i) => ns > once[i]!)).toBe(true);
    expect(await s.profile(p)).toEqual(new Float64Array(5));
  });
});

describe("buffers", () => {
  it("are shared by name between programs; inputs and outputs are not", async () => {
    const s = session();
    const step = (value: number): Uint8Array =>
      assemble({
        buffers: { "inputs/x": f32(4), "grads/w": f32(4), "outputs/y": f32(4) },
        code: [
          ["fill", ["outputs/y"], [value]],
          ["add", ["grads/w", "inputs/x", "grads/w"]],
        ],
      });
    const [one, two] = [await s.load(step(1)), await s.load(step(2))];
    const x = new Float32Array(4).fill(3);
    expect((await s.run(one, { inputs: { "inputs/x": x } }))["outputs/y"]).toEqual(new Float32Array(4).fill(1));
    expect((await s.run(two, { inputs: { "inputs/x": x } }))["outputs/y"]).toEqual(new Float32Array(4).fill(2));
    expect(await s.read("grads/w")).toEqual(new Float32Array(4).fill(6));
    expect(s.buffers().map((b) => b.name)).toEqual(["grads/w"]);
  });
  it("of one name must have one type; a program that clashes leaves the session as it was", async () => {
    const s = session();
    const one = (t: ReturnType<typeof f32>, extra: Record<string, typeof t> = {}): Uint8Array =>
      assemble({ buffers: { ...extra, "cache/k": t }, code: [] });
    await s.load(one(f32(4, 8)));
    const bytes = s.bufferBytes;
    for (const [t, text] of [
      [f32(4, 9), "float32[4, 9]"],
      [bf16(4, 8), "bfloat16[4, 8]"],
      [f32(32), "float32[32]"],
    ] as const) {
      const clash = s.load(one(t, { "cache/new": t }));
      await expect(clash).rejects.toThrow(ShapeError);
      await expect(clash).rejects.toThrow(
        `cache/k: must have the type it has in this session, float32[4, 8], got ${text}`,
      );
    }
    expect(s.bufferBytes).toBe(bytes);
    await expect(s.read("cache/new")).rejects.toThrow(StateError);
  });
  it("follow a weight that is written: by the host, and by an instruction", async () => {
    const s = session();
    const w = f32(16, 16);
    const p = await s.load(
      assemble({
        buffers: { "inputs/x": f32(16, 16), "weights/w": w, "outputs/y": f32(16, 16) },
        code: [["gemm", ["inputs/x", "weights/w", undefined, undefined, "outputs/y"], [0, 1]]],
      }),
    );
    const set = await s.load(assemble({ buffers: { "weights/w": w }, code: [["fill", ["weights/w"], [3]]] }));
    const ones = new Float32Array(256).fill(1);
    const run = async (): Promise<number> => (await s.run(p, { inputs: { "inputs/x": ones } }))["outputs/y"]![17]!;
    expect(await run()).toBe(0);
    await s.write("weights/w", ones);
    expect(await run()).toBe(16);
    await s.run(set);
    expect(await run()).toBe(48);
    await s.zero("weights/w");
    expect(await run()).toBe(0);
    expect(s.derivedBytes).toBeGreaterThan(0); // gemm keeps a packed copy: that is what must not go stale
  });
  it("may be parts of another: one memory, whose writes every part's copies follow", async () => {
    const s = session();
    const w = inside("weights/all", 512, f32(16, 16));
    const p = await s.load(
      assemble({
        buffers: { "inputs/x": f32(16, 16), "weights/all": f32(4, 128), "weights/w": w, "outputs/y": f32(16, 16) },
        code: [["gemm", ["inputs/x", "weights/w", undefined, undefined, "outputs/y"], [0, 1]]],
      }),
    );
    expect(s.bufferBytes).toBe(4 * (3 * 256 + 256));
    expect(s.buffers().map((b) => [b.name, b.part])).toEqual([["weights/all", false], ["weights/w", true]]);
    const span = { ...inside("weights/all", 1024, f32(1, 128)) };
    const set = await s.load(assemble({ buffers: { "weights/all": f32(4, 128), "weights/b..c": span }, code: [["fill", ["weights/b..c"], [3]]] }));
    const ones = new Float32Array(256).fill(1);
    const run = async (): Promise<Float32Array> => (await s.run(p, { inputs: { "inputs/x": ones } }))["outputs/y"]! as Float32Array;
    await s.write("weights/w", ones);
    expect((await run())[17]).toBe(16);
    await s.run(set); // the second half of w, under another name
    expect([...(await run()).subarray(0, 16)]).toEqual([...Array<number>(8).fill(16), ...Array<number>(8).fill(48)]);
    expect(await s.read("weights/all")).toEqual(Float32Array.from({ length: 512 }, (_, i) => (i < 128 || i >= 384 ? 0 : i < 256 ? 1 : 3)));
    await s.zero("weights/all");
    expect((await run())[0]).toBe(0);
    expect(await s.read("weights/w")).toEqual(new Float32Array(256));
  });
  it("lie in one place of a session", async () => {
    const s = session();
    const load = (buffers: Parameters<typeof assemble>[0]["buffers"]): Promise<unknown> => s.load(assemble({ buffers, code: [] }));
    const all = f32(4, 128);
    await load({ "weights/all": all, "weights/w": inside("weights/all", 512, f32(8)), "weights/alone": f32(8) });
    const bytes = s.bufferBytes;
    await load({ "weights/all": all, "weights/w": inside("weights/all", 512, f32(8)) });
    const clash = async (buffers: Parameters<typeof load>[0], why: string): Promise<void> => {
      await expect(load(buffers)).rejects.toThrow(ShapeError);
      await expect(load(buffers)).rejects.toThrow(why);
    };
    await clash({ "weights/all": all, "weights/w": inside("weights/all", 1024, f32(8)) }, "weights/w: must lie where it lies in this session, byte 512 of weights/all, got byte 1024 of weights/all");
    await clash({ "weights/w": f32(8) }, "byte 512 of weights/all, got by itself");
    await clash({ "weights/all": all, "weights/alone": inside("weights/all", 0, f32(8)) }, "by itself, got byte 0 of weights/all");
    expect(s.bufferBytes).toBe(bytes);
  });
  it("have their place from the load on, and a dry session counts it all without taking it", async () => {
    const program = assemble({
      dims: [{ name: "rows", capacity: 300 }],
      buffers: { "inputs/x": f32({ name: "rows", capacity: 300 }, 64), "weights/w": f32(2048, 64), "outputs/y": f32({ name: "rows", capacity: 300 }, 2048) },
      code: [["gemm", ["inputs/x", "weights/w", undefined, undefined, "outputs/y"], [0, 1]]],
    });
    const s = session();
    const dry = session({ dry: true });
    for (const one of [s, dry]) await one.load(program);
    const sizes = ({ arenaBytes, bufferBytes, derivedBytes, threadBytes }: Session): number[] => [arenaBytes, bufferBytes, derivedBytes, threadBytes];
    const before = sizes(s);
    expect(before[2]).toBeGreaterThanOrEqual(4 * 2048 * 64);
    expect(sizes(dry)).toEqual(before);
    await s.run((await s.load(program)), { counts: { rows: 3 }, inputs: { "inputs/x": new Float32Array(3 * 64) } });
    expect(s.derivedBytes).toBe(before[2]);
    await expect(dry.read("weights/w")).rejects.toThrow("must be in a session that has memory, got a dry one");
    await expect(dry.run(await dry.load(program), { counts: { rows: 0 }, inputs: { "inputs/x": new Float32Array(0) } })).rejects.toThrow("run: must be in a session that has memory");
  });
  it("seen through two types are two things", async () => {
    const s = session();
    const part = { space: { buffer: "weights/w" }, offset: 0, type: f32(15, 16) };
    const p = await s.load(
      assemble({
        buffers: { "inputs/x": f32(1, 16), "weights/w": f32(16, 16), "outputs/y": f32(1, 16), "outputs/z": f32(1, 15) },
        code: [
          ["gemm", ["inputs/x", "weights/w", undefined, undefined, "outputs/y"], [0, 1]],
          ["gemm", ["inputs/x", part, undefined, undefined, "outputs/z"], [0, 1]],
          ["gemm", ["inputs/x", "weights/w", undefined, undefined, "outputs/y"], [0, 0]],
        ],
      }),
    );
    const x = Float32Array.from({ length: 16 }, (_, i) => i % 3);
    const w = Float32Array.from({ length: 256 }, (_, i) => i % 7);
    await s.write("weights/w", w);
    const dot = (n: number, at: (k: number) => number): number[] =>
      Array.from({ length: n }, (_, j) => x.reduce((sum, v, k) => sum + v * w[at(k) + (at(1) > 1 ? j : 16 * j)]!, 0));
    for (let times = 0; times < 2; times++) {
      const y = await s.run(p, { inputs: { "inputs/x": x } });
      expect([...y["outputs/z"]!]).toEqual(dot(15, (k) => k));
      expect([...y["outputs/y"]!]).toEqual(dot(16, (k) => 16 * k));
    }
  });
  it("that the system has no room for are refused as memory, and the session goes on", async () => {
    const s = session();
    const huge = assemble({ buffers: { "weights/w": f32(1 << 20, 1 << 20) }, code: [] });
    await expect(s.load(huge)).rejects.toMatchObject({ code: "ERR_MEMORY" });
    expect(s.bufferBytes).toBe(0);
    await s.load(addition(1));
  });
});

describe("misuse", () => {
  const s = session();
  const two = Float32Array.of(1, 2);
  const inputs = { "inputs/a": two, "inputs/b": two };
  it("of counts", async () => {
    const p = await s.load(addition({ name: "N", capacity: 8 }));
    await expect(s.run(p, { inputs })).rejects.toThrow("counts: must give N (0 to 8), got none");
    await expect(s.run(p, { inputs, counts: { N: 2, M: 1 } })).rejects.toThrow(
      "must name dims of the program (N), got M",
    );
    await expect(s.run(p, { inputs, counts: { N: 9 } })).rejects.toThrow("count N: must be 0 to 8, got 9");
    for (const n of [-1, 1.5, NaN, "2" as unknown as number]) {
      await expect(s.run(p, { inputs, counts: { N: n } })).rejects.toThrow(ConfigError);
    }
  });
  it("of inputs and outputs", async () => {
    const p = await s.load(addition(2));
    const run = (more: object, outputs?: string[]): Promise<unknown> =>
      s.run(p, { inputs: { ...inputs, ...more }, ...(outputs ? { outputs } : {}) });
    await expect(run({ "inputs/b": new Float32Array(3) })).rejects.toThrow(
      "input inputs/b: must be float32 with 2 elements (those in use of float32[2]), got float32 with 3",
    );
    await expect(run({ "inputs/b": new Int32Array(2) })).rejects.toThrow(ShapeError);
    await expect(run({ "inputs/c": two })).rejects.toThrow("input inputs/c: this program has no such input");
    await expect(s.run(p, { inputs: { "inputs/a": two } })).rejects.toThrow(
      "input inputs/b: must be given with every run",
    );
    await expect(run({ "inputs/b": [1, 2] })).rejects.toThrow("inputs/b: must be a Float32Array");
    await expect(run({ "inputs/b": new Float64Array(2) })).rejects.toThrow(ConfigError);
    await expect(run({}, ["outputs/z"])).rejects.toThrow("output outputs/z: this program has no such buffer");
  });
  it("of a detached array", async () => {
    const p = await s.load(addition(2));
    const gone = new Float32Array(2);
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    await expect(s.run(p, { inputs: { ...inputs, "inputs/a": gone } })).rejects.toThrow(
      /inputs\/a: its array is detached/,
    );
  });
  it("of a program of another session", async () => {
    const other = session();
    const p = await other.load(addition(2));
    await expect(s.run(p, { inputs })).rejects.toThrow("must be one that this session loaded");
  });
  it("of program bytes", async () => {
    await expect(s.load(new Uint8Array(3))).rejects.toThrow(DataError);
    await expect(s.load("x" as unknown as Uint8Array)).rejects.toThrow("program: must be a Uint8Array");
    const stale = addition(2);
    stale[8]! ^= 1;
    await expect(s.load(stale)).rejects.toThrow(/made for another op table.*npm run build/);
    const int = assemble({ buffers: { "constants/i": i32(4) }, code: [] });
    await expect(s.load(int.subarray(0, int.length - 4))).rejects.toThrow(DataError);
  });
  it("of a closed session: every call says so, and closing again is nothing", async () => {
    const c = Session.create({ device: "cpu", threads: 1 });
    const p = await c.load(addition(2));
    await c.close();
    expect(c.closed).toBe(true);
    expect(c.buffers()).toEqual([]);
    await c.close();
    const calls = [
      () => c.run(p, { inputs }),
      () => c.load(addition(2)),
      () => c.unload(p),
      () => c.read("x"),
      () => c.write("x", two),
      () => c.zero("x"),
      () => c.hash("x"),
      () => c.countNonfinite("x"),
      () => c.profile(p),
      () => c.readFiles([]),
      () => c.writeFiles([]),
    ];
    for (const call of calls) await expect(call()).rejects.toThrow("session: must be open, got a closed one");
    expect([c.arenaBytes, c.bufferBytes, c.derivedBytes]).toEqual([0, 0, 0]);
  });
});
