// The update of all parameters at once, which is two ops, beside one op for each: the same bits, and zeros between them.
import { expect, test } from "vitest";
import "#lib/ops/index.js";
import { buffer, store, trace, type Graph } from "#lib/ir/graph.js";
import { bytes, type, type DType } from "#lib/ir/types.js";
import { adamwOp } from "#lib/ops/adamw.js";
import { updateProgram } from "#lib/optim/adamw.js";
import { compile } from "#lib/passes/compile.js";
import { encode } from "#lib/program/encode.js";
import { Session, type HostArray } from "#lib/runtime/session.js";

const parameters = [
  { name: "a", shape: [7, 33], decay: true },
  { name: "b", shape: [128], decay: true },
  { name: "bias", shape: [5], decay: false },
  { name: "norm", shape: [130], decay: false },
];
const adam = { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1 };
const scalars = { scale: 0.5, lr: 0.01, bias1: 0.19, bias2: 0.02 };

/** One op for each parameter, each buffer by itself. */
const apart = (dtype: DType): Graph =>
  trace(() => {
    const [scale, lr, bias1, bias2] = Object.keys(scalars).map((k) => buffer(`inputs/${k}`, type([])));
    for (const { name, shape, decay } of parameters) {
      const of = (cls: string, t: DType = "float32"): ReturnType<typeof buffer> => buffer(`${cls}/${name}`, type(shape, t));
      const master = dtype === "float32" ? undefined : of("optimizer/master");
      const r = adamwOp(
        { g: of("grads"), m: of("optimizer/m"), v: of("optimizer/v"), scale: scale!, lr: lr!, bias1: bias1!, bias2: bias2!, w: of("weights", dtype), master },
        { beta1: adam.beta1, beta2: adam.beta2, eps: adam.eps, decay: decay ? adam.weightDecay : 0 },
      );
      store(`weights/${name}`, r.w2);
      if (master) store(master.out, r.master2);
      store(`optimizer/m/${name}`, r.m2);
      store(`optimizer/v/${name}`, r.v2);
    }
  });

test.each(["float32", "bfloat16"] as const)("an update in %s", async (dtype) => {
  const classes = ["weights", "grads", "optimizer/m", "optimizer/v", ...(dtype === "float32" ? [] : ["optimizer/master"])];
  const after: Map<string, HostArray>[] = [];
  for (const graph of [apart(dtype), updateProgram(parameters, dtype, adam)]) {
    const plan = compile(graph);
    await using session = Session.create({ device: "cpu", threads: 2 });
    const program = await session.load(encode(plan));
    for (const [c, cls] of classes.entries())
      for (const { name } of parameters) {
        const now = await session.read(`${cls}/${name}`);
        await session.write(`${cls}/${name}`, now instanceof Uint16Array ? now.map((_, i) => 0x3f80 + i) : now.map((_, i) => (cls === "optimizer/v" ? 1 : Math.sin(c + i)) / (i + 1)));
      }
    await session.run(program, { inputs: Object.fromEntries(Object.entries(scalars).map(([k, v]) => [`inputs/${k}`, Float32Array.of(v)])) });
    const named = new Map<string, HostArray>();
    for (const cls of classes) for (const { name } of parameters) named.set(`${cls}/${name}`, await session.read(`${cls}/${name}`));
    after.push(named);
    const owned = session.buffers().reduce((n, b) => n + (b.part ? 0 : b.bytes), 0);
    if (graph.buffers.has("weights/a..b")) {
      expect(plan.instructions.map((i) => [i.def.name, i.slots[0]!.space, i.params.at(-1)])).toEqual([
        ["adamw", { buffer: "grads/a..b" }, 0.1],
        ["adamw", { buffer: "grads/bias..norm" }, 0],
      ]);
      expect(owned).toBe(classes.length * bytes(type([6, 128])) - (dtype === "float32" ? 0 : bytes(type([6, 64]))));
      for (const cls of classes) {
        const all = await session.read(`${cls}/all`);
        expect(all.length, cls).toBe(6 * 128);
        expect([...all.subarray(231, 256), ...all.subarray(389, 512), ...all.subarray(642)].every((x) => Object.is(x, 0)), cls).toBe(true);
      }
    }
  }
  expect(after[1]).toEqual(after[0]);
});
