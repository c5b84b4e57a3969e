// Ends of all kinds: cancelling, closing in the middle, garbage collection, worker threads, the end of the process.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { StateError } from "#lib/errors.js";
import { Session } from "#lib/runtime/session.js";
import { addition, assemble, f32, lasting, long, root, session, short, temporaryFolder } from "./tools.ts";

const module = pathToFileURL(join(root, "dist/runtime/session.js")).href;
const dir = temporaryFolder();
const [looping, endless] = [await lasting(0.4), long(384, 20000)]; // the second is never waited for
const start = `
  const { Session } = await import(${JSON.stringify(module)});
  const bytes = new Uint8Array((await import("node:fs")).readFileSync(process.env.PROGRAM));
  const session = Session.create({ device: "cpu", threads: 2 });
  const program = await session.load(bytes);`;

/** Runs a script in a process of its own. */
function child(
  script: string,
  program: Uint8Array,
  flags: string[] = [],
): { status: number | null; out: string; seconds: number } {
  const file = join(dir, "program");
  writeFileSync(file, program);
  const began = performance.now();
  const run = spawnSync(process.execPath, [...flags, "--input-type=module", "-e", start + script], {
    env: { ...process.env, PROGRAM: file },
    encoding: "utf8",
    timeout: 20000,
  });
  return { status: run.status, out: run.stdout + run.stderr, seconds: (performance.now() - began) / 1000 };
}

describe("a signal", () => {
  it("stops a run before its next instruction, with its own reason; the session goes on", async () => {
    const s = session();
    const p = await s.load(endless);
    const stop = new AbortController();
    const run = s.run(p, { signal: stop.signal });
    setTimeout(() => stop.abort(new Error("enough")), 50);
    await expect(run).rejects.toThrow("enough");
    const after = await s.load(addition(1));
    const one = Float32Array.of(1);
    expect(await s.run(after, { inputs: { "inputs/a": one, "inputs/b": one } })).toEqual({
      "outputs/y": Float32Array.of(2),
    });
  });
  it("stops a run that waits its turn, and no other", async () => {
    const s = session();
    const [a, b] = [await s.load(endless), await s.load(long(384, 1))];
    const [stopA, stopB] = [new AbortController(), new AbortController()];
    const first = s.run(a, { signal: stopA.signal }).catch((e: unknown) => e);
    const second = s.run(b, { signal: stopB.signal }).catch((e: unknown) => e);
    const third = s.run(b);
    stopB.abort();
    await sleep(30);
    stopA.abort();
    expect(await first).toMatchObject({ name: "AbortError" });
    expect(await second).toMatchObject({ name: "AbortError" });
    expect(Object.keys(await third)).toEqual(["outputs/y"]);
  });
  it("aborted before the call runs nothing", async () => {
    const s = session();
    const p = await s.load(short);
    await expect(s.run(p, { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: "AbortError" });
  });
  it("aborted after the run changes nothing", async () => {
    const s = session();
    const p = await s.load(short);
    const stop = new AbortController();
    await s.run(p, { signal: stop.signal });
    stop.abort();
    await s.run(p);
  });
});

describe("closing", () => {
  it("in the middle of a run rejects it and what waits, and resolves", async () => {
    const s = Session.create({ device: "cpu", threads: 2 });
    const p = await s.load(endless);
    const settled = Promise.allSettled([s.run(p), s.run(p), s.read("constants/a")]);
    await sleep(50);
    await Promise.all([s.close(), s.close()]);
    const reasons = (await settled).map((r) => (r.status === "rejected" ? (r.reason as Error) : undefined));
    for (const reason of reasons) expect(reason).toBeInstanceOf(StateError);
    expect(reasons.map((r) => r!.message)).toEqual([
      "session: closed while this ran",
      "session: closed before this began",
      "session: closed before this began",
    ]);
  });
  it("straight after opening is fine", async () => {
    for (let i = 0; i < 50; i++) await Session.create({ device: "cpu", threads: 3 }).close();
  });
  // AddressSanitizer keeps freed memory for a while.
  it.skipIf(process.env["ASAN_OPTIONS"])("gives the memory back, two hundred times over", () => {
    const t = f32(1 << 19); // 2 MiB each, and scratch for two threads
    const program = assemble({
      buffers: { "outputs/y": t, "weights/w": t },
      code: ["outputs/y", "weights/w"].map((b) => ["fill", [b], [1]] as const),
    });
    const script = `
      const rss = [];
      for (let i = 0; i < 200; i++) {
        const s = Session.create({ device: "cpu", threads: 2 });
        await s.run(await s.load(bytes));
        await s.close();
        gc();
        rss.push(process.memoryUsage().rss);
      }
      console.log((rss[199] - rss[49]) / 2 ** 20);
      await session.close();`;
    const { status, out } = child(script, program, ["--expose-gc"]);
    expect(status).toBe(0);
    expect(out).toMatch(/^-?[0-9.]+\n$/);
    expect(Number(out)).toBeLessThan(6); // MiB; each session had 4 of buffers alone
  });
});

describe("the event loop", () => {
  it("turns while a program runs", async () => {
    const s = session();
    const p = await s.load(endless);
    const delay = monitorEventLoopDelay({ resolution: 1 });
    await sleep(20);
    delay.enable();
    await expect(s.run(p, { signal: AbortSignal.timeout(500) })).rejects.toMatchObject({ name: "TimeoutError" });
    delay.disable();
    // This machine's other work may hold up a turn now and then; a blocked loop would hold up all of them.
    expect(delay.percentile(90) / 1e6).toBeLessThan(25);
    expect(delay.count).toBeGreaterThan(20);
  });
});

describe("a process", () => {
  it("ends by itself with an idle session that nobody closed", () => {
    const { status, seconds, out } = child("await session.run(program);", short);
    expect(out).toBe("");
    expect(status).toBe(0);
    expect(seconds).toBeLessThan(10);
  });
  it("does not end before a pending run has", () => {
    const { status, out } = child('session.run(program).then(() => console.log("done"));', looping);
    expect([status, out]).toEqual([0, "done\n"]);
  });
  it("may call process.exit in the middle of a run", () => {
    const { status, seconds } = child("session.run(program); setTimeout(() => process.exit(3), 100);", endless);
    expect(status).toBe(3);
    expect(seconds).toBeLessThan(10);
  });
  it("may throw in the middle of a run", () => {
    const { status, out } = child(
      'session.run(program); setTimeout(() => { throw new Error("oops"); }, 100);',
      endless,
    );
    expect(status).toBe(1);
    expect(out).toContain("oops");
  });
  it("warns of a session that was collected without close, and frees it", () => {
    const script = `
      const make = async () => { for (let i = 0; i < 20; i++) await Session.create({ device: "cpu", threads: 2 }).load(bytes); };
      await make();
      for (let i = 0; i < 20; i++) { gc(); await new Promise((done) => setTimeout(done, 10)); }
      const fs = await import("node:fs");
      console.log("threads", fs.readdirSync("/proc/self/task").length);`;
    const { status, out } = child(script, short, ["--expose-gc"]);
    expect(status).toBe(0);
    expect(out).toContain("a session on cpu was garbage-collected without close()");
    expect(Number(/threads (\d+)/.exec(out)![1])).toBeLessThan(30); // 20 sessions would have 40 more
  });
  it("keeps a session whose run is pending, though nobody holds it", () => {
    const script = `
      const pending = (async () => { const s = Session.create({ device: "cpu", threads: 1 }); return s.run(await s.load(bytes)); })();
      const again = setInterval(() => gc(), 5);
      console.log(Object.keys(await pending)[0]);
      clearInterval(again);
      await session.close();`;
    const { status, out } = child(script, looping, ["--expose-gc"]);
    expect(status).toBe(0);
    expect(out).toContain("outputs/y");
  });
});

describe("worker threads", () => {
  const script = `
    const { parentPort, workerData } = require("node:worker_threads");
    (async () => {
      const { Session } = await import(workerData.module);
      const session = Session.create({ device: "cpu", threads: 2 });
      const program = await session.load(workerData.bytes);
      const before = session.run(program);
      parentPort.postMessage("running");
      await before;
      parentPort.postMessage(await session.hash("constants/a"));
      if (workerData.close) await session.close();
    })();`;
  const worker = (bytes: Uint8Array, close: boolean): Worker =>
    new Worker(script, { eval: true, workerData: { module, bytes, close } });
  const ended = (w: Worker): Promise<number> =>
    new Promise((done, fail) => {
      w.on("exit", done);
      w.on("error", fail);
    });

  it("have sessions of their own, and end by themselves", async () => {
    const workers = [true, false, true, false].map((close) => worker(short, close));
    const said = workers.map(() => [] as string[]);
    workers.forEach((w, i) => w.on("message", (m: string) => said[i]!.push(m)));
    expect(await Promise.all(workers.map(ended))).toEqual([0, 0, 0, 0]);
    for (const s of said) expect(s).toEqual(["running", said[0]![1]]);
  });
  it("can be terminated in the middle of a run", async () => {
    for (let i = 0; i < 4; i++) {
      const w = worker(endless, false);
      await new Promise((done) => w.once("message", done));
      await sleep(i * 20);
      await w.terminate();
    }
  });
});
