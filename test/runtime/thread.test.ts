// Calls to another thread: answers, errors as the classes they were, and how a thread ends.
import { spawnSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { AttuneError, NumericError, StateError } from "#lib/errors.js";
import { SharedThread, Thread, type ThreadOptions } from "#lib/thread.js";
import { root } from "./tools.ts";

type Functions = {
  add(a: number, b: number): number;
  moved(n: number): Float32Array;
  length(x: Float32Array): number;
  refuse(): void;
  crash(): void;
  read(path: string): void;
  place(): number;
  fill(): void;
  wait(): Promise<void>;
};
const module = new URL("./thread_worker.mjs", import.meta.url);
const open: Thread<Functions>[] = [];
function thread(options: Partial<ThreadOptions> = {}): Thread<Functions> {
  const t = new Thread<Functions>(module, { name: "test", ...options });
  open.push(t);
  return t;
}
afterEach(() => Promise.all(open.splice(0).map((t) => t.close())));

describe("a call", () => {
  test("is answered, several at a time", async () => {
    const t = thread();
    expect(await Promise.all([t.call("add", [1, 2]), t.call("add", [3, 4])])).toEqual([3, 7]);
  });

  test("moves the buffers that it is told to, both ways", async () => {
    const t = thread();
    const x = await t.call("moved", [1000]);
    expect(x).toEqual(new Float32Array(1000).fill(1));
    expect(await t.call("length", [x], [x.buffer as ArrayBuffer])).toBe(1000);
    expect(x.length).toBe(0);
  });

  test("rejects with the class, code and message that were thrown", async () => {
    const error = await thread().call("refuse", []).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(NumericError);
    expect(error).toMatchObject({ code: "ERR_LOSS", message: "loss: must be finite, got NaN" });
  });

  test("rejects with a system's error and its code", async () => {
    await expect(thread().call("read", ["/does/not/exist"])).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("rejects with a plain error, its stack kept, where the worker has a bug", async () => {
    const error = (await thread().call("crash", []).catch((e: unknown) => e)) as Error;
    expect(error).not.toBeInstanceOf(AttuneError);
    expect(error.stack).toContain("thread_worker.mjs");
  });
});

describe("a thread", () => {
  test("hears what it is told, and notes", async () => {
    const heard = new Promise((resolve) => thread({ onNote: resolve }).tell("this"));
    const t = open[0]!;
    await t.call("add", [0, 0]);
    expect(await heard).toEqual({ heard: "this" });
  });

  test("that is closed rejects what is in flight, and every later call", async () => {
    const t = thread();
    const waiting = t.call("wait", []).catch((e: unknown) => e);
    await t.close(new StateError("stopped"));
    expect(await waiting).toMatchObject({ name: "StateError", message: "stopped" });
    await expect(t.call("add", [1, 1])).rejects.toThrow("stopped");
  });

  test("ends at the limit of its heap", async () => {
    await expect(thread({ heap: 32 }).call("fill", [])).rejects.toMatchObject({ code: "ERR_WORKER_OUT_OF_MEMORY" });
  });

  test("does not keep the process alive", () => {
    const code = `const { Thread } = await import("#lib/thread.js");
      const t = new Thread(new URL(${JSON.stringify(module.href)}), { name: "test" });
      console.log(await t.call("add", [1, 2]));`;
    const { stdout, status } = spawnSync(process.execPath, ["--input-type=module", "-e", code], { cwd: root, encoding: "utf8", timeout: 60_000 });
    expect([stdout, status]).toEqual(["3\n", 0]);
  });
});

describe("a shared thread", () => {
  test("is one for all who call, and another after it has been idle", { timeout: 20_000 }, async () => {
    const shared = new SharedThread<Functions>(module, "test");
    const [a, b] = await Promise.all([shared.call("place", []), shared.call("place", [])]);
    expect(b).toBe(a);
    expect(await shared.call("place", [])).toBe(a);
    await sleep(3000);
    expect(await shared.call("place", [])).not.toBe(a);
  });

  test("does not keep the process alive", () => {
    const code = `const { SharedThread } = await import("#lib/thread.js");
      console.log(await new SharedThread(new URL(${JSON.stringify(module.href)}), "test").call("add", [1, 2]));`;
    const { stdout, status } = spawnSync(process.execPath, ["--input-type=module", "-e", code], { cwd: root, encoding: "utf8", timeout: 60_000 });
    expect([stdout, status]).toEqual(["3\n", 0]);
  });
});
