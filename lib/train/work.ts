// The work of a run, from its programs' own costs, and the rate at which this machine multiplies matrices: together a floor for its time.
import { buffer, store, trace } from "../ir/graph.ts";
import { resolve, type, type Counts } from "../ir/types.ts";
import { linear } from "../ops/gemm.ts";
import type { TreeTable } from "../data/tree_table.ts";
import type { Plan } from "../passes/plan.ts";
import { costOf, encode } from "../program/encode.ts";
import { Session } from "../runtime/session.ts";
import { compileFor, type LoadedModel } from "./engine.ts";

/** Floating-point operations of a program with `counts` in use (capacities where none is given). */
export function flopsOf(p: Plan, counts: Counts = {}): number {
  const used = p.instructions.map((c) => ({ ...c, slots: c.slots.map((s) => s && { ...s, type: resolve(s.type, counts) }) }));
  return used.reduce((n, c) => n + costOf(c).flops, 0);
}

const SAMPLE = 64;

/**
 * Mean operations of an example in a program, over some of the rows, each by itself: what attention and the head cost depends on its length.
 * `rows` names the dim that counts its trained tokens.
 */
export function flopsPerExample(p: Plan, trees: TreeTable, shared: boolean, rows: string): number {
  const step = Math.max(1, Math.floor(trees.length / SAMPLE));
  const none = Object.fromEntries(p.dims.map((d) => [d.name, 0]));
  const fixed = flopsOf(p, none);
  let sum = 0;
  let n = 0;
  for (let i = 0; i < trees.length; i += step, n++) sum += flopsOf(p, { ...none, tokens: trees.tokens(i, shared), [rows]: trees.trained(i) }) - fixed;
  return sum / n;
}

const SIZE = 1024;

/** Operations per second of a matrix product on this device and dtype with the run's threads, measured now (about half a second). */
export async function measuredRate({ session: { device, threads }, spec: { dtype } }: LoadedModel): Promise<{ flops_per_second: number; measured_by: string }> {
  await using session = Session.create({ device: device as "cpu", threads });
  const graph = trace(() => store("outputs/y", linear(buffer("inputs/x", type([SIZE, SIZE], dtype)), buffer("weights/w", type([SIZE, SIZE], dtype)))));
  const program = await session.load(encode(compileFor(session, graph)));
  const x = dtype === "float32" ? new Float32Array(SIZE * SIZE) : new Uint16Array(SIZE * SIZE);
  const times: number[] = [];
  for (const start = performance.now(); times.length < 3 || (performance.now() - start < 400 && times.length < 20); ) {
    await session.run(program, { inputs: { "inputs/x": x }, outputs: [], profile: true });
    times.push((await session.profile(program, { reset: true }))[0]!);
  }
  const best = Math.min(...times.slice(1)) / 1e9; // the first packs the weight
  return { flops_per_second: (2 * SIZE ** 3) / best, measured_by: `a product of ${SIZE} x ${SIZE} matrices in ${dtype} on ${threads} threads, measured now` };
}
