// Steps that are timed: in graphs of repeats, or as they come, a step computes the same bits, since what an op changes in place is put back.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { root } from "../runtime/tools.ts";
import { build, unbuildable } from "./build.ts";
import { clean, command, env, prepare, runFile } from "./runs.ts";

afterAll(clean);

interface Timed {
  readonly losses: readonly number[];
  readonly hashes: Readonly<Record<string, string>>;
  readonly timings: readonly (readonly [op: string, nanoseconds: number])[];
  readonly peak: number;
}
/** Two steps, the second timed. */
async function steps(timed: boolean | "repeats", more: NodeJS.ProcessEnv = {}): Promise<Timed> {
  const file = runFile(`timed-${timed}`, { headSize: 32, batch_size: 2, dtype: "bfloat16", max_steps: 2 });
  const { stdout } = await promisify(execFile)(process.execPath, [join(root, "test/cuda/profile_child.mjs"), file, JSON.stringify(timed)], { env: { ...env, ...more } });
  return JSON.parse(stdout) as Timed;
}

describe.skipIf(unbuildable !== null)("a profile", () => {
  let plain: Timed;
  beforeAll(async () => {
    build();
    await prepare();
    plain = await steps(false);
  }, 600_000);

  test.each([true, "repeats"] as const)("that is taken (%s) times every op and changes no bit", async (how) => {
    const timed = await steps(how);
    expect(timed.losses).toEqual(plain.losses);
    expect(timed.hashes).toEqual(plain.hashes);
    expect(plain.timings.every(([, ns]) => ns === 0)).toBe(true);
    expect(timed.timings.filter(([, ns]) => !(ns > 0))).toEqual([]);
    expect(timed.timings.map(([op]) => op)).toContain("adamw");
  }, 120_000);

  test("keeps what an op changes in host memory where the device has no room for a copy", async () => {
    const { losses, hashes } = await steps("repeats", { ATTUNE_SIMT_MEMORY: String(plain.peak + 2 ** 16) });
    expect({ losses, hashes }).toEqual({ losses: plain.losses, hashes: plain.hashes });
  }, 120_000);

  test.each([
    ["lost:500", /DeviceError: run: simt says cudaErrorLaunchFailure, .*; the device is lost to this process/],
    ["launch:500", /DeviceError: \w+ \([\w./]+\): \w+: cudaErrorLaunchOutOfResources/],
  ])("whose repeats fail (%s) says which error it was", async (fail, said) => {
    expect((await steps(false, { ATTUNE_SIMT_FAIL: fail })).hashes).toEqual(plain.hashes); // as many kernels are in the repeats alone
    await expect(steps("repeats", { ATTUNE_SIMT_FAIL: fail })).rejects.toThrow(said);
  }, 120_000);

  test("shows the sum of its ops beside the real step, and the rest", async () => {
    const way = { headSize: 32, batch_size: 2 };
    const { step_ms, ops_ms, other_ms, ops, shapes } = await command<Record<"step_ms" | "ops_ms" | "other_ms", number> & Record<"ops" | "shapes", { ms: number; calls: number; op: string }[]>>("profile", way, "--steps", "1");
    expect(step_ms - ops_ms).toBeCloseTo(other_ms, 6);
    for (const rows of [ops, shapes]) expect(rows.reduce((n, r) => n + r.ms, 0)).toBeCloseTo(ops_ms, 6);
    expect(ops.every((r) => r.ms > 0)).toBe(true);
    expect(ops.find((r) => r.op === "adamw")!.calls).toBeGreaterThan(0);
  }, 120_000);
});
