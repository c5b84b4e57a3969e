// On a device that records its runs, those that write over the gradients have a recording of their own.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { root } from "../runtime/tools.ts";
import { build, unbuildable } from "./build.ts";
import { clean, env, prepare, runFile, type Way } from "./runs.ts";

afterAll(clean);

interface Left {
  readonly micros: readonly boolean[];
  readonly steps: readonly (readonly [loss: number, norm: number])[];
}
async function train(way: Way, how: "written over" | "zeroed"): Promise<Left> {
  const args = [join(root, "test/train/zeroed.mjs"), way.task ?? "sft", runFile("over", way), how];
  const { stdout } = await promisify(execFile)(process.execPath, args, { env: { ...env, ...way.env } });
  return JSON.parse(stdout) as Left;
}

describe.skipIf(unbuildable !== null)("a step that writes over the gradients", () => {
  beforeAll(async () => {
    build();
    await prepare();
  }, 600_000);

  test.each([
    ["one micro-batch a step", [true, true, true], { tokens_per_batch: 400 }],
    ["two micro-batches", [true, false, true, false, true, false], { tokens_per_batch: 96 }],
    ["two, of pairs, in bf16", [true, false, true, false, true, false], { task: "dpo", dtype: "bfloat16", tokens_per_batch: 160 }],
  ] as const)("%s: the bits of gradients that were zeroed and added onto, from a graph and from a list", async (_, micros, way) => {
    const over = await train({ headSize: 32, ...way }, "written over");
    expect(over.micros).toEqual(micros);
    for (const [loss, norm] of over.steps) expect(Number.isFinite(loss) && norm > 0).toBe(true);
    expect(await train({ headSize: 32, ...way }, "zeroed")).toEqual(over);
    expect(await train({ headSize: 32, ...way, env: { ATTUNE_CUDA_BLOCKING: "1" } }, "written over")).toEqual(over);
  }, 300_000);
});
