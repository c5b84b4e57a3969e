// The lowered SFT and DPO step of a tiny Llama and their plans as text, so that a change of memory, of kernels or of their number shows in
// review. `npx vitest run test/passes -u` writes them anew. Scratch, which follows the device, is left out.
import { describe, expect, test } from "vitest";
import "#lib/ops/index.js";
import { printGraph } from "#lib/ir/print.js";
import { show } from "#lib/ir/types.js";
import { inMemory, parameters, type TransformerConfig } from "#lib/models/config.js";
import { lower } from "#lib/passes/compile.js";
import { plan } from "#lib/passes/plan.js";
import { printProgram } from "#lib/program/program.js";
import { microStep, type LossSpec } from "#lib/train/programs.js";

const config: TransformerConfig = {
  family: "llama", vocabSize: 61, hiddenSize: 32, intermediateSize: 40, numHiddenLayers: 1, numAttentionHeads: 4, numKeyValueHeads: 2,
  headDim: 8, rmsNormEps: 1e-5, tieWordEmbeddings: true, qkvBias: false, oBias: false, mlpBias: false, qkNorm: false, windows: [0],
  ropeFrequencies: [1, 0.1, 0.01, 0.001], maxPositionEmbeddings: 128, initializerRange: 0.02, eosTokenIds: [2], bosTokenId: null,
  padTokenId: null, dtype: "float32", unknownFields: [], warnings: [],
};
const spec = { config, parameters: inMemory(parameters(config)), dtype: "bfloat16" as const };
const sizes = { tokens: 48, rows: 12, examples: 3, chunks: 1 };
const losses: LossSpec[] = [{ kind: "sft" }, { kind: "dpo", lossType: "sigmoid", beta: 0.1, labelSmoothing: 0 }];

describe.each(losses)("$kind", (loss) => {
  const graph = lower(microStep(spec, sizes, loss, "logits"));
  test("the lowered graph", () => expect(`${printGraph(graph)}\n`).toMatchFileSnapshot(`snapshots/${loss.kind}_graph.txt`));
  test("the plan", () => {
    const p = plan(graph);
    const buffers = [...p.buffers].map(([name, t]) => `${name} ${show(t)}${t.within ? ` at ${t.within.offset} of ${t.within.buffer}` : ""}`);
    const head = [`${p.instructions.length} instructions`, `arena ${p.arenaBytes} bytes, ${p.liveBytes} alive at most`, ...buffers].join("\n");
    return expect(`${head}\n${printProgram(p)}\n`).toMatchFileSnapshot(`snapshots/${loss.kind}_plan.txt`);
  });
});
