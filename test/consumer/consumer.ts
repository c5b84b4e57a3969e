// A program of somebody else's, compiled against the package's published types with every strict option. It is never run.
import { AttuneError, ConfigError, DPOTrainer, openGenerator, scoreRows, SFTTrainer, type DpoOptions, type StepMetrics } from "attune";
import { attention, dpoLoss, gemm, rmsNorm, run, tensor, type Tensor } from "attune/kernels";

export async function train(signal: AbortSignal): Promise<number> {
  const options: DpoOptions = { model: "m", dataset: "pairs.jsonl", beta: 0.1, lossType: "sigmoid", learningRate: 1e-6, signal };
  await using trainer = await DPOTrainer.create(options);
  let last: StepMetrics | undefined;
  for await (const metrics of trainer) {
    last = metrics;
    if (metrics.step >= 3) break;
  }
  await trainer.save("out");
  const loss: number | undefined = last?.["loss"];
  return loss ?? NaN;
}

export async function rows(): Promise<void> {
  async function* given() {
    yield { prompt: "a", completion: " b" };
  }
  await using trainer = await SFTTrainer.create({ model: "m", dataset: given(), assistantOnlyLoss: false, maxSteps: 2 });
  const end: StepMetrics | undefined = await trainer.train();
  console.log(end?.step, trainer.step, trainer.totalSteps);
}

export async function answer(): Promise<string> {
  await using g = await openGenerator({ model: "m", device: "cpu" });
  for await (const { text, finishReason } of g.generate(["Once"], { maxNewTokens: 8, temperature: 0, topK: 0, topP: 1, seed: 1 })) {
    const why: "stop" | "length" = finishReason;
    return text + why;
  }
  return "";
}

export async function score(): Promise<number> {
  let sum = 0;
  for await (const { logp, logps } of scoreRows({ model: "m", data: "rows.jsonl" })) sum += logp + logps.length;
  return sum;
}

export async function kernels(q: Float32Array): Promise<Tensor> {
  const x = tensor(q, [2, 2, 8]);
  const { y, lse } = await run(attention, { q: x, k: x, v: x, end: Int32Array.of(2, 2) }, { scale: 0.3 }, { device: "cpu", threads: 1 });
  await run(attention, { q: x, k: x, v: x, end: Int32Array.of(2, 2), pos: Int32Array.of(0, 1) }, { scale: 0.3, window: 1 });
  const { y: normed } = await run(rmsNorm, { x: lse, w: q }, { eps: 1e-6 });
  await run(gemm, { a: y, b: normed }, { ta: true, dtype: "bfloat16" });
  return y;
}

export function mistakes(error: unknown): string {
  return error instanceof ConfigError ? error.code : error instanceof AttuneError ? error.message : "";
}

export async function refused(a: Float32Array): Promise<void> {
  // @ts-expect-error an unknown key
  await DPOTrainer.create({ model: "m", dataset: "d", betta: 0.1 });
  // @ts-expect-error not one of the losses
  await DPOTrainer.create({ model: "m", dataset: "d", lossType: "sigmoyd" });
  // @ts-expect-error beta is not an option of SFT
  await SFTTrainer.create({ model: "m", dataset: "d", beta: 0.1 });
  // @ts-expect-error w is missing
  await run(rmsNorm, { x: a });
  // @ts-expect-error no input is called weight
  await run(rmsNorm, { x: a, w: a, weight: a });
  // @ts-expect-error no attribute is called epsilon
  await run(rmsNorm, { x: a, w: a }, { epsilon: 1e-6 });
  // @ts-expect-error a boolean
  await run(gemm, { a, b: a }, { ta: 1 });
  // @ts-expect-error no output is called z
  const { z } = await run(dpoLoss, { chosen: a, rejected: a, ref_chosen: a, ref_rejected: a }, { beta: 0.1 });
  console.log(z);
}
