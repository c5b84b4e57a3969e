// Twenty optimiser steps as TRL takes them in float64, recorded by test/fixtures/oracle/make_steps.py: every number it logs, from the
// same files. SFT and DPO, constant and cosine with warm-up and weight decay, accumulation 1 and 4, tied and untied, with BOS and without.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { resolveConfig, type Task } from "#lib/train/config.js";
import { Trainer, type StepMetrics } from "#lib/train/trainer.js";

interface Step extends Record<string, number | readonly number[] | undefined> {
  /** DPO: reward margins of the step's pairs. */
  readonly margins?: readonly number[];
}
interface Case {
  readonly task: Task;
  readonly model: string;
  readonly tokenizer: string;
  readonly accumulation: number;
  readonly config?: Record<string, unknown>;
  readonly settings: Record<string, unknown>;
  readonly log: readonly Step[];
}
const oracle = new URL("../fixtures/oracle/", import.meta.url).pathname;
const cases = JSON.parse(readFileSync(join(oracle, "steps.json"), "utf8")) as Case[];

const dir = mkdtempSync(join(tmpdir(), "attune-steps-"));
beforeAll(() => void (process.env["XDG_CACHE_HOME"] = join(dir, "cache")));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function modelOf(c: Case): string {
  const model = mkdtempSync(join(dir, "model-"));
  cpSync(join(oracle, "steps/models", c.model), model, { recursive: true });
  cpSync(join(oracle, "steps/tokenizers", c.tokenizer), model, { recursive: true });
  const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8")) as object;
  writeFileSync(join(model, "config.json"), JSON.stringify({ ...config, ...c.config }));
  return model;
}
async function train(c: Case): Promise<StepMetrics[]> {
  const raw = {
    model: modelOf(c), dataset: join(oracle, `steps/${c.task}.jsonl`), output_dir: join(dir, "out"), max_steps: 20, learning_rate: 1e-3, max_length: 256,
    per_device_train_batch_size: 2, gradient_accumulation_steps: c.accumulation, shuffle: false, device: "cpu", dtype: "float32", threads: 1,
    ...(c.task === "sft" ? { assistant_only_loss: true } : { beta: 0.1 }), ...c.settings,
  };
  const hooks = { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined };
  await using trainer = await Trainer.create(c.task, resolveConfig(c.task, raw).config, hooks);
  const log: StepMetrics[] = [];
  for await (const m of trainer) log.push(m);
  return log;
}

/** How far each number may be off; a reward is beta times a difference of log-probabilities, which fp32 gives to 1e-6 of their size. */
function allowed(key: string, want: Step): number {
  const value = Math.abs(want[key] as number);
  const size = (side: string): number => Math.max(1e-4 * Math.abs(want[`rewards/${side}`] as number), 0.1 * 1e-6 * Math.abs(want[`logps/${side}`] as number));
  if (key === "grad_norm") return 5e-4 * value;
  if (key === "rewards/margins") return size("chosen") + size("rejected");
  if (key.startsWith("rewards/")) return size(key.slice(8));
  if (key.startsWith("logits/")) return Math.max(1e-4 * value, 1e-6); // a mean over the vocabulary, of logits of about 1, near 0
  return 1e-4 * value;
}
const averaged = new Set(["entropy", "logits/chosen", "logits/rejected", "mean_token_accuracy"]); // over micro-batches there, over tokens here
const nameOf = (c: Case): string => [c.task, c.model, c.tokenizer, `x${c.accumulation}`, ...Object.values(c.settings), ...(c.config ? ["pad is eos"] : [])].join(" ");

describe("twenty steps beside TRL's in float64", () => {
  const worst = new Map<string, number>();
  afterAll(() => console.log([...worst].map(([k, v]) => `${k} ${v.toFixed(3)}`).join(", "), "of what is allowed"));
  test.each(cases.map((c) => [nameOf(c), c] as const))("%s", async (_name, c) => {
    const log = await train(c);
    expect(log.length).toBe(c.log.length);
    const problems: string[] = [];
    c.log.forEach((want, i) => {
      const got = log[i]!;
      for (const key of Object.keys(want)) {
        if (key === "margins" || (c.accumulation > 1 && averaged.has(key))) continue;
        const [a, b] = [got[key]!, want[key] as number];
        let limit = allowed(key, want);
        if (key === "rewards/accuracies") {
          const close = want.margins!.filter((m) => Math.abs(m) <= allowed("rewards/margins", want)).length;
          limit = close / want.margins!.length; // such pairs may fall on either side
        }
        if (key === "mean_token_accuracy" || key === "num_tokens") limit = 1e-9 * Math.abs(b);
        worst.set(key, Math.max(worst.get(key) ?? 0, Math.abs(a - b) / (limit || 1e-12)));
        if (!(Math.abs(a - b) <= limit)) problems.push(`step ${i + 1}: ${key} ${b} recorded, got ${a}, off by ${(Math.abs(a - b) / Math.abs(b)).toExponential(1)}`);
      }
    });
    expect(problems).toEqual([]);
  });
});
