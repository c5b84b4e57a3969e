// The work of a run, from its programs' own costs, and the rate at which this machine multiplies matrices: together a floor for its time.
import type { TreeTable } from "../data/tree_table.ts";
import { Session } from "../runtime/session.ts";
import type { LoadedModel } from "../engine/model.ts";
import type { Counts } from "../ir/types.ts";
import { compile } from "./compile.ts";

const SAMPLE = 64;

/**
 * Mean operations of an example in the program that `flops` counts, over some of the rows, each by itself: what attention and the head
 * cost depends on its length. `rows` names the dim that counts its trained tokens.
 */
export async function flopsPerExample(trees: TreeTable, shared: boolean, rows: string, flops: (counts: readonly Counts[]) => Promise<number[]>): Promise<number> {
  const step = Math.max(1, Math.floor(trees.length / SAMPLE));
  const counts = [];
  for (let i = 0; i < trees.length; i += step) counts.push({ tokens: trees.tokens(i, shared), [rows]: trees.trained(i) });
  const [fixed, ...each] = await flops([{}, ...counts]);
  return each.reduce((n, f) => n + f - fixed!, 0) / each.length;
}

const SIZE = 1024;

/** Operations per second of a matrix product on this device and dtype with the run's threads, measured now (about half a second). */
export async function measuredRate({ session: { device, threads }, spec: { dtype } }: LoadedModel): Promise<{ flops_per_second: number; measured_by: string }> {
  await using session = Session.create({ device: device as "cpu", threads });
  const program = await session.load((await compile(session.device, "squareProduct", SIZE, dtype)).bytes);
  const x = dtype === "float32" ? new Float32Array(SIZE * SIZE) : new Uint16Array(SIZE * SIZE);
  const times: number[] = [];
  for (const start = performance.now(); times.length < 3 || (performance.now() - start < 400 && times.length < 20); ) {
    await session.run(program, { inputs: { "inputs/x": x }, outputs: [], profile: true });
    times.push((await session.profile(program, { reset: true }))[0]!);
  }
  const best = Math.min(...times.slice(1)) / 1e9; // the first packs the weight
  return { flops_per_second: (2 * SIZE ** 3) / best, measured_by: `a product of ${SIZE} x ${SIZE} matrices in ${dtype} on ${threads} threads, measured now` };
}
