// A step's first micro-batch writes over the gradients, the others add onto them: what comes of it, and which programs allow it.
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { HostArray } from "#lib/runtime/addon.js";
import { inMemory, parameters, type TransformerConfig } from "#lib/models/config.js";
import { compile } from "#lib/passes/compile.js";
import { encode } from "#lib/program/encode.js";
import { Session } from "#lib/runtime/session.js";
import { GRADIENTS, microStep, type Kept, type LossSpec } from "#lib/train/programs.js";
import { train } from "./zeroed.mjs";

const oracle = new URL("../fixtures/oracle/steps/", import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), "attune-overwrite-"));
beforeAll(() => {
  process.env["XDG_CACHE_HOME"] = join(dir, "cache");
  for (const part of ["models/tied", "tokenizers/plain"]) cpSync(join(oracle, part), join(dir, "model"), { recursive: true });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe.each(["sft", "dpo"] as const)("%s", (task) => {
  test.each([
    ["one micro-batch a step", 4096],
    ["several", 256],
  ])("%s: the bits of gradients that were zeroed and added onto, whatever they held", async (_, tokens) => {
    const raw = { model: join(dir, "model"), dataset: join(oracle, `${task}.jsonl`), output_dir: join(dir, "out"), batch_size: 4, learning_rate: 1e-3, max_length: 256, tokens_per_batch: tokens, device: "cpu", dtype: "float32" };
    const [over, zeroed] = [await train(task, raw, "written over"), await train(task, raw, "zeroed")];
    expect(over).toEqual(zeroed);
    expect(over.micros.filter(Boolean)).toHaveLength(3);
    expect(over.micros[0]).toBe(true);
    expect(over.micros.length > 3).toBe(tokens === 256);
    for (const [loss, norm] of over.steps) expect(Number.isFinite(loss) && norm > 0).toBe(true);
  });
});

describe("the step of every kind of model starts every gradient by writing it", () => {
  const base: TransformerConfig = {
    family: "llama", vocabSize: 61, hiddenSize: 32, intermediateSize: 40, numHiddenLayers: 2, numAttentionHeads: 4, numKeyValueHeads: 2,
    headDim: 8, rmsNormEps: 1e-5, tieWordEmbeddings: true, qkvBias: false, oBias: false, mlpBias: false, qkNorm: false, windows: [0, 5],
    ropeFrequencies: [1, 0.1, 0.01, 0.001], maxPositionEmbeddings: 128, initializerRange: 0.02, eosTokenIds: [2], bosTokenId: null,
    padTokenId: null, dtype: "float32", unknownFields: [], warnings: [],
  };
  const models = [{}, { tieWordEmbeddings: false, qkNorm: true }, { qkvBias: true, oBias: true, mlpBias: true }, { tieWordEmbeddings: false, qkvBias: true }].map((m) => ({ ...base, ...m }));
  const losses: LossSpec[] = [{ kind: "sft" }, { kind: "dpo", lossType: "sigmoid", beta: 0.3, labelSmoothing: 0.1 }];
  const arrays = { float32: Float32Array, bfloat16: Uint16Array, int32: Int32Array };

  test.each(["logits", "shares", "nothing"] as const)("keeping %s of the head", async (kept: Kept) => {
    for (const config of models)
      for (const loss of losses)
        for (const dtype of ["float32", "bfloat16"] as const) {
          await using session = Session.create({ device: "null", threads: 1 });
          const graph = microStep({ config, parameters: inMemory(parameters(config)), dtype }, { tokens: 48, rows: 12, examples: 3, chunks: 2 }, loss, kept);
          const program = await session.load(encode(compile(graph)));
          const counts = Object.fromEntries(program.dims.map((d) => [d.name, d.capacity]));
          const given = program.buffers.filter((b) => b.name.startsWith("inputs/"));
          const inputs = Object.fromEntries(given.map((b): [string, HostArray] => [b.name, new arrays[b.dtype](b.shape.reduce((n, d) => n * d, 1))]));
          await session.run(program, { counts, inputs, outputs: [], overwrite: GRADIENTS });
        }
  });
});
