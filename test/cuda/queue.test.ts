// On a device that queues, a run's inputs are written and its calls queued while the run before it computes. The emulator does what is queued as late as
// the order allows, or at once (ATTUNE_SIMT_STREAMS=early), and says when a graph is queued and when it is done.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { root } from "../runtime/tools.ts";
import { build, unbuildable } from "./build.ts";
import { clean, env, prepare, run } from "./runs.ts";

afterAll(clean);

/** `q` for each graph that was queued, `d` for each that was done, in their order. */
const graphs = (stderr: string): string => [...stderr.matchAll(/^simt: graph (.)/gm)].map((m) => m[1]).join("");

/** How often the device was left without work. */
function idle(events: string): number {
  let underWay = 0;
  return [...events].filter((e) => (underWay += e === "q" ? 1 : -1) === 0).length;
}

describe.skipIf(unbuildable !== null)("runs that are queued", () => {
  beforeAll(async () => {
    build();
    await prepare();
  }, 600_000);

  test.each(["late", "early"])("each have their own inputs and outputs, streams being %s", async (streams) => {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [join(root, "test/cuda/queue_child.mjs")], { env: { ...env, ATTUNE_SIMT_STREAMS: streams, ATTUNE_SIMT_GRAPHS: "1" } });
    const { whole, aborted, closed } = JSON.parse(stdout) as Record<string, string[]>;
    expect(whole).toEqual(["0", "2", "4", "6", "8", "10"]);
    expect(graphs(stderr).slice(0, 10)).toBe(streams === "late" ? "qqdqdqdqdd" : "qdqdqdqdqd"); // the first run is a list
    expect(aborted).toEqual(["0", "2", "4", "6", "aborted", "10"]);
    const begun = closed!.filter((r) => !r.startsWith("StateError: session: closed before this began"));
    expect(begun).toEqual(whole!.slice(0, begun.length)); // what is under way ends
    expect([2, 3, 4]).toContain(begun.length);
  });

  test("are a step's micro-batches and its norm: while one computes, the next stands behind it", async () => {
    const { code, stderr } = await run("queued", { headSize: 32, max_steps: 4, batch_size: 8, tokens_per_batch: 64, env: { ATTUNE_SIMT_GRAPHS: "1" } });
    expect(code, stderr).toBe(0);
    const seen = graphs(stderr); // seven or eight micro-batches a step; the first of all, the first norm and the first update are lists
    expect(seen.length).toBeGreaterThan(2 * 30);
    // The update waits for the norm's value, and the next step for the update: 1 time in the first step and 2 in each other. On a busy machine
    // JavaScript may come late now and then; if runs did not overlap it would be all 35.
    expect(idle(seen), seen).toBeLessThanOrEqual(7 + 8);
  }, 120_000);
});
