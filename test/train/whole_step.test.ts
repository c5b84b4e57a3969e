// The whole lowered SFT and DPO step of a tiny Llama, tied and untied, in float64 from the same graph: the fp32 run must agree with it,
// and it with central differences. Packing, prompt trees and capacities must not matter.
import { describe, expect, test } from "vitest";
import "#lib/ops/index.js";
import { packStep, chunkRows, type MicroBatch } from "#lib/data/pack.js";
import type { Tree } from "#lib/data/types.js";
import { interpret } from "#lib/ir/interpret.js";
import { size } from "#lib/ir/types.js";
import { preferenceLosses, type PreferenceLossType } from "#lib/losses/preference.js";
import { inMemory, parameters, type TransformerConfig } from "#lib/models/config.js";
import { compile, lower } from "#lib/passes/compile.js";
import { encode } from "#lib/program/encode.js";
import { scratchOf } from "#lib/runtime/host.js";
import { Session } from "#lib/runtime/session.js";
import type { ModelSpec } from "#lib/engine/programs.js";
import { GRADIENTS, microStep, type Kept, type LossSpec, type Sizes } from "#lib/train/programs.js";
import { normals, uniform } from "../ops/material.ts";

const base: TransformerConfig = {
  family: "llama", vocabSize: 61, hiddenSize: 32, intermediateSize: 40, numHiddenLayers: 2, numAttentionHeads: 4, numKeyValueHeads: 2,
  headDim: 8, rmsNormEps: 1e-5, tieWordEmbeddings: true, qkvBias: false, oBias: false, mlpBias: false, qkNorm: false, windows: [0, 5],
  ropeFrequencies: [1, 0.1, 0.01, 0.001], maxPositionEmbeddings: 128, initializerRange: 0.02, eosTokenIds: [2], bosTokenId: null,
  padTokenId: null, dtype: "float32", unknownFields: [], warnings: [],
};
const models: Record<string, TransformerConfig> = {
  tied: base,
  untied: { ...base, tieWordEmbeddings: false, qkvBias: true },
  "with QK-norm": { ...base, qkNorm: true },
};
const spec = (config: TransformerConfig): ModelSpec => ({ config, parameters: inMemory(parameters(config)), dtype: "float32" });

function weights(config: TransformerConfig): Map<string, Float64Array> {
  return new Map(parameters(config).map((p, i) => {
    const n = p.shape.reduce((a, b) => a * b, 1);
    const w = normals(n, 100 + i).map((x) => Math.fround(p.init === "ones" ? 1 + 0.1 * x : 0.3 * x));
    return [`weights/${p.name}`, w];
  }));
}

const draw = uniform(9);
const ids = (n: number): Int32Array => Int32Array.from({ length: n }, () => Math.floor(draw() * 61));
const pair = (row: number, prompt: number, chosen: number, rejected: number): Tree => ({
  row,
  trunk: ids(prompt),
  branches: [chosen, rejected].map((n) => ({ ids: ids(n), trained: [[prompt, prompt + n]] as const })),
});
const pairs = [pair(0, 5, 4, 3), pair(1, 3, 2, 6), pair(2, 7, 1, 1)];
const sizes: Sizes = { tokens: 48, rows: 12, examples: 3, chunks: 2 };
const dpo: LossSpec = { kind: "dpo", lossType: "sigmoid", beta: 0.3, labelSmoothing: 0.1 };
const types = Object.keys(preferenceLosses) as PreferenceLossType[];
const losses: Record<string, LossSpec> = { sft: { kind: "sft" }, ...Object.fromEntries(types.map((lossType) => [lossType, { ...dpo, lossType }])) };

interface Feed { counts: Record<string, number>; inputs: Record<string, Int32Array | Float32Array> }
function feed(micro: MicroBatch, s: Sizes, loss: LossSpec, scale: number, align: boolean): Feed {
  const chunks = chunkRows(micro, { maxRows: s.rows, maxExamples: s.examples, align });
  expect(chunks.length).toBeLessThanOrEqual(s.chunks);
  const counts: Record<string, number> = { tokens: micro.tokens };
  const inputs: Feed["inputs"] = { "inputs/ids": micro.ids, "inputs/pos": micro.pos, "inputs/end": micro.end, "inputs/scale": Float32Array.of(scale) };
  for (let k = 0; k < s.chunks; k++) {
    const c = chunks[k] ?? { rowStart: 0, rowEnd: 0, exampleStart: 0, exampleEnd: 0 };
    counts[`rows.${k}`] = c.rowEnd - c.rowStart;
    inputs[`inputs/rows.${k}`] = micro.rows.subarray(c.rowStart, c.rowEnd);
    inputs[`inputs/targets.${k}`] = micro.targets.subarray(c.rowStart, c.rowEnd);
    if (loss.kind === "sft") continue;
    const [first, end] = align ? [c.exampleStart, c.exampleEnd] : [0, micro.examples.length];
    const branch = micro.branch.subarray(c.rowStart, c.rowEnd);
    inputs[`inputs/chosen.${k}`] = branch.map((b) => (b % 2 === 0 ? b / 2 - first : -1));
    inputs[`inputs/rejected.${k}`] = branch.map((b) => (b % 2 === 1 ? (b - 1) / 2 - first : -1));
    if (k > 0 && !align) continue;
    const examples = micro.examples.slice(first, end);
    counts[`pairs.${k}`] = examples.length;
    const of = (b: number, f: (length: number, row: number) => number): Float32Array =>
      Float32Array.from(examples, (e) => f(pairs[e.row]!.branches[b]!.ids.length, e.row));
    inputs[`inputs/ref_chosen.${k}`] = of(0, (n, i) => -3.9 * n - 0.2 * i);
    inputs[`inputs/ref_rejected.${k}`] = of(1, (n, i) => -4.1 * n + 0.1 * i);
    inputs[`inputs/chosen_length.${k}`] = of(0, (n) => n);
    inputs[`inputs/rejected_length.${k}`] = of(1, (n) => n);
  }
  return { counts, inputs };
}

type Result = { loss: number; hits: number; entropy: number; grads: Map<string, Float64Array> };
function collect(out: ReadonlyMap<string, Float64Array>, loss: LossSpec, scale: number): Result {
  const sum = (name: string): number => [...out].reduce((s, [k, v]) => s + (k.startsWith(`outputs/${name}.`) ? v.reduce((a, b) => a + b, 0) : 0), 0);
  return { loss: sum("loss") * (loss.kind === "sft" ? 1 : scale), hits: sum("hits"), entropy: sum("entropy"), grads: new Map([...out].filter(([k]) => k.startsWith("grads/"))) };
}

/** Interpret the lowered step over micro-batches, gradients carried from one to the next. */
function oracle(config: TransformerConfig, s: Sizes, loss: LossSpec, batches: MicroBatch[], scale: number, kept: Kept = "logits", w = weights(config)): Result {
  const g = lower(microStep(spec(config), s, loss, kept));
  const state = new Map([...g.buffers].filter(([k]) => k.startsWith("grads/")).map(([k, v]) => [k, new Float64Array(size(v.type))]));
  const total = { loss: 0, hits: 0, entropy: 0 };
  for (const micro of batches) {
    const f = feed(micro, s, loss, scale, kept !== "nothing" && loss.kind !== "sft");
    const given = new Map([...w, ...state, ...Object.entries(f.inputs).map(([k, a]) => [k, Float64Array.from(a)] as const)]);
    const r = collect(interpret(g, given, { counts: f.counts, checkSaved: true }), loss, scale);
    addTo(total, r);
    for (const [k, v] of r.grads) state.set(k, v);
  }
  return { ...total, grads: state };
}

async function device(config: TransformerConfig, s: Sizes, loss: LossSpec, batches: MicroBatch[], scale: number, kept: Kept = "logits", threads = 2): Promise<Result> {
  const session = Session.create({ device: "cpu", threads });
  try {
    const plan = compile(microStep(spec(config), s, loss, kept), scratchOf(session.device));
    const program = await session.load(encode(plan));
    for (const [k, v] of weights(config)) await session.write(k, Float32Array.from(v));
    const total = { loss: 0, hits: 0, entropy: 0 };
    await session.write(GRADIENTS, (await session.read(GRADIENTS)).fill(NaN));
    for (const [i, micro] of batches.entries()) {
      const f = feed(micro, s, loss, scale, kept !== "nothing" && loss.kind !== "sft");
      const out = await session.run(program, { ...f, overwrite: i === 0 ? GRADIENTS : "" });
      addTo(total, collect(new Map(Object.entries(out).map(([k, v]) => [k, Float64Array.from(v)])), loss, scale));
    }
    const grads = new Map<string, Float64Array>();
    for (const { name } of parameters(config)) grads.set(`grads/${name}`, Float64Array.from(await session.read(`grads/${name}`)));
    return { ...total, grads };
  } finally {
    await session.close();
  }
}

const scalars = ["loss", "hits", "entropy"] as const;
function addTo(total: Record<(typeof scalars)[number], number>, r: Result): void {
  for (const k of scalars) total[k] += r[k];
}
const relative = (a: Float64Array, b: Float64Array): number =>
  Math.sqrt(a.reduce((s, x, i) => s + (x - b[i]!) ** 2, 0) / (b.reduce((s, x) => s + x * x, 0) || 1));
function expectSame(a: Result, b: Result, lossTolerance: number, gradTolerance: number): void {
  for (const k of scalars) expect(Math.abs(a[k] - b[k]), k).toBeLessThanOrEqual(lossTolerance * Math.abs(b[k]));
  expect(b.entropy).toBeGreaterThan(0);
  expect([...a.grads.keys()].sort()).toEqual([...b.grads.keys()].sort());
  for (const [k, v] of a.grads) expect(relative(v, b.grads.get(k)!), k).toBeLessThanOrEqual(gradTolerance);
}

const whole = packStep(pairs, { tokensPerBatch: 48 });
const scale = 1 / 3;

describe.each(Object.entries(models))("a %s Llama", (_, config) => {
  test.each(Object.entries(losses))("%s: fp32 within 1e-4 of float64", async (_name, loss) => {
    expectSame(await device(config, sizes, loss, whole, scale), oracle(config, sizes, loss, whole, scale), 1e-4, 1e-4);
  });
  test.each(Object.keys(losses))("%s: float64 gradients within 1e-6 of central differences", (name) => {
    const loss = losses[name]!;
    const { grads } = oracle(config, sizes, loss, whole, scale);
    for (const [k, v] of weights(config)) {
      const direction = normals(v.length, 3);
      const at = (t: number): number =>
        oracle(config, sizes, loss, whole, scale, "logits", new Map([...weights(config), [k, v.map((x, i) => x + t * direction[i]!)]])).loss;
      const numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
      const analytic = grads.get(k.replace("weights/", "grads/"))!.reduce((s, x, i) => s + x * direction[i]!, 0);
      expect(Math.abs(analytic - numeric), k).toBeLessThanOrEqual(1e-6 * Math.max(1, Math.abs(numeric)));
    }
  });
});

describe("what must not matter", () => {
  const variants: [string, MicroBatch[], Sizes, Kept][] = [
    ["one example at a time", pairs.map((p) => packStep([p], { tokensPerBatch: 48 })[0]!), sizes, "logits"],
    ["prompts not shared", packStep(pairs, { tokensPerBatch: 60, sharePrompt: false }), { ...sizes, tokens: 60 }, "logits"],
    ["tokens_per_batch 12, the longest example", packStep(pairs, { tokensPerBatch: 12 }), { ...sizes, tokens: 12 }, "logits"],
    ["tokens_per_batch 21, prompts not shared", packStep(pairs, { tokensPerBatch: 21, sharePrompt: false }), { ...sizes, tokens: 21 }, "logits"],
    ["larger capacities", whole, { tokens: 200, rows: 40, examples: 7, chunks: 3 }, "logits"],
    ["logits computed twice, examples cut across chunks", whole, { ...sizes, rows: 7, chunks: 4 }, "nothing"],
    ["shares of the softmax kept", whole, sizes, "shares"],
  ];
  const usuals = new Map<string, { exact: Result; run: Result }>();
  const crossed = ["sigmoid", "sft"].flatMap((loss) => ["tied", "untied"].map((model) => [`${loss}, ${model}`, losses[loss]!, models[model]!] as const));
  test.each(crossed.flatMap((c) => variants.map((v) => [...c, ...v] as const)))("%s, %4$s: float64 to 1e-12, fp32 losses to 1e-6 and gradients to 1e-5", async (name, loss, model, _what, batches, s, kept) => {
    const usual = usuals.get(name) ?? { exact: oracle(model, sizes, loss, whole, scale), run: await device(model, sizes, loss, whole, scale) };
    usuals.set(name, usual);
    expectSame(oracle(model, s, loss, batches, scale, kept), usual.exact, 1e-12, 1e-12);
    expectSame(await device(model, s, loss, batches, scale, kept), usual.run, 1e-6, 1e-5);
  });
  test("threads: the same bits with 1, 2 and 3", async () => {
    const [one, two, three] = [await device(base, sizes, dpo, whole, scale, "logits", 1), await device(base, sizes, dpo, whole, scale), await device(base, sizes, dpo, whole, scale, "logits", 3)];
    for (const [k, v] of one.grads) {
      expect(two.grads.get(k), k).toEqual(v);
      expect(three.grads.get(k), k).toEqual(v);
    }
    expect([two.loss, three.loss]).toEqual([one.loss, one.loss]);
  });
});
