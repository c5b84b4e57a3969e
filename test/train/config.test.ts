import { describe, expect, it } from "vitest";
import { ConfigError } from "#lib/errors.js";
import { dpoSchema, resolveConfig, resolveOptions, sftSchema, warmupSteps } from "#lib/train/config.js";
import { parseBytes } from "#lib/train/config_bytes.js";
import { camel, snake } from "#lib/train/config_schema.js";

const sft = (more: Record<string, unknown> = {}) => resolveConfig("sft", { model: "m", dataset: "d.jsonl", ...more });
const dpo = (more: Record<string, unknown> = {}) => resolveConfig("dpo", { model: "m", dataset: "d.jsonl", ...more });

/** The lines of the ConfigError that `call` throws. */
function problems(call: () => unknown): string[] {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message.split("\n");
  }
  throw new Error("nothing was thrown");
}

describe("defaults", () => {
  // Read from TRL 1.13's SFTConfig and DPOConfig (dataclass fields), transformers 5.18.
  const trl = {
    outputDir: "trainer_output",
    lrSchedulerType: "linear",
    warmupSteps: 0,
    numTrainEpochs: 3,
    maxSteps: -1,
    batchSize: 8,
    weightDecay: 0,
    adamBeta1: 0.9,
    adamBeta2: 0.999,
    adamEpsilon: 1e-8,
    maxGradNorm: 1,
    maxLength: 1024,
    seed: 42,
    loggingSteps: 10,
    saveSteps: 500,
    saveStrategy: "steps",
    saveTotalLimit: null,
    chatTemplatePath: null,
  };

  it("are TRL's for sft", () => {
    const more = { learningRate: 2e-5, assistantOnlyLoss: false, completionOnlyLoss: null };
    expect(sft().config).toMatchObject({ ...trl, ...more });
  });

  it("are TRL's for dpo", () => {
    const more = { learningRate: 1e-6, beta: 0.1, labelSmoothing: 0, lossType: "sigmoid" };
    expect(dpo().config).toMatchObject({ ...trl, ...more });
  });

  it("are attune's where TRL has no such key", () => {
    expect(dpo().config).toMatchObject({
      device: "auto",
      dtype: null,
      threads: null,
      memoryLimit: null,
      tokensPerBatch: null,
      shuffle: true,
      saveDtype: "auto",
      gradDtype: "float32",
      invalidRows: "error",
      specialTokensInContent: "warn",
      resume: false,
      overwriteOutputDir: false,
      promptTrees: true,
    });
  });

  it("say nothing to somebody who wrote nothing", () => expect(sft().notices).toEqual([]));
});

describe("batch_size", () => {
  it("is the product of TRL's two keys", () => {
    expect(sft({ per_device_train_batch_size: 2, gradient_accumulation_steps: 3 }).config.batchSize).toBe(6);
    expect(sft({ gradient_accumulation_steps: 4 }).config.batchSize).toBe(32);
    expect(sft({ per_device_train_batch_size: 2 }).config.batchSize).toBe(2);
  });

  it("may be given beside them when they agree, and not otherwise", () => {
    const both = { per_device_train_batch_size: 2, gradient_accumulation_steps: 3 };
    expect(sft({ ...both, batch_size: 6 }).config.batchSize).toBe(6);
    expect(problems(() => sft({ ...both, batch_size: 8 }))).toEqual([
      "batch_size: must equal per_device_train_batch_size 2 x gradient_accumulation_steps 3 = 6, got 8 (give one or the other)",
    ]);
  });

  it("leaves neither of TRL's keys in the configuration", () => {
    const { config } = sft({ gradient_accumulation_steps: 4 });
    expect(Object.keys(config)).not.toContain("gradientAccumulationSteps");
  });
});

describe("warm-up", () => {
  it("is a number of steps, or a share rounded up", () => {
    expect(warmupSteps(sft({ warmup_steps: 7 }).config, 100)).toBe(7);
    expect(warmupSteps(sft({ warmup_ratio: 0.1 }).config, 101)).toBe(11);
    expect(warmupSteps(sft({ warmup_steps: 0.5 }).config, 10)).toBe(5);
    expect(warmupSteps(sft({ warmup_ratio: 1 }).config, 10)).toBe(10);
    expect(warmupSteps(sft({ warmup_steps: 1 }).config, 10)).toBe(1);
  });

  it("is given once, and in whole steps", () => {
    expect(problems(() => sft({ warmup_steps: 3, warmup_ratio: 0.1 }))[0]).toMatch(/^warmup_ratio: must be alone, got/);
    expect(problems(() => sft({ warmup_steps: 2.5 }))[0]).toMatch(/^warmup_steps: must be a whole number of steps/);
  });
});

describe("wrong values", () => {
  const cases: [string, Record<string, unknown>, RegExp][] = [
    ["a text for a number", { learning_rate: "1e-6" }, /^learning_rate: must be a number >= 0, got "1e-6" .*quotes/],
    ["a number that is too small", { learning_rate: -1 }, /^learning_rate: must be a number >= 0, got -1$/],
    ["not a number", { learning_rate: Number.NaN }, /^learning_rate: must be a number >= 0, got NaN$/],
    ["a fraction of a step", { logging_steps: 0.5 }, /^logging_steps: must be a whole number >= 1, got 0.5/],
    ["no steps at all", { max_steps: 0 }, /^max_steps: must be a whole number >= 1, or -1, got 0$/],
    ["a word for a boolean", { shuffle: "yes" }, /^shuffle: must be true or false, got "yes" \(write true\)$/],
    ["an unknown choice", { lr_scheduler_type: "cosin" }, /got "cosin" \(did you mean cosine\?\)$/],
    ["an unknown device", { device: "tpu" }, /^device: must be one of auto, cpu, cuda, simt, got "tpu"/],
    ["an unknown dtype", { dtype: "float16" }, /^dtype: must be one of float32, bfloat16 or null, got "float16"/],
    ["a mapping", { model: { a: 1 } }, /^model: must be a text that is not empty, got a mapping$/],
    ["an empty text", { model: "" }, /^model: must be a text that is not empty, got ""$/],
    ["a list", { learning_rate: [1, 2] }, /^learning_rate: must be a number >= 0, got \[1, 2\]$/],
    ["null without meaning", { learning_rate: null }, /got null \(leave the key out for its default\)$/],
    ["a beta of one", { adam_beta1: 1 }, /^adam_beta1: must be a number >= 0 and < 1, got 1$/],
    ["a size without sense", { memory_limit: "8 apples" }, /^memory_limit: must be a size such as "8GB"/],
    ["a date without sense", { chat_template_date: "today" }, /^chat_template_date: must be a date such as 2026-01-31/],
    ["another task", { task: "dpo" }, /^task: must be sft, got "dpo"$/],
    ["eval_steps alone", { eval_steps: 5 }, /^eval_steps: must come with eval_dataset, got none/],
  ];
  it.each(cases)("%s is refused", (_, more, said) => {
    const found = problems(() => sft(more));
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(said);
  });

  it("are refused where two keys do not go together", () => {
    expect(problems(() => dpo({ loss_type: "ipo", label_smoothing: 0.1 }))).toEqual([
      "label_smoothing: must be 0 with loss_type ipo, got 0.1",
    ]);
  });

  it("are all listed", () => {
    const keys = problems(() => resolveConfig("dpo", { beta: 0, seed: -1, lr: 1 })).map((line) => line.split(":")[0]);
    expect(keys.sort()).toEqual(["beta", "dataset", "lr", "model", "seed"]);
  });

  it("say what a missing key is for", () => {
    expect(problems(() => resolveConfig("sft", { dataset: "d" }))[0]).toMatch(
      /^model: must be given: folder of the model/,
    );
  });
});

describe("unknown keys", () => {
  it("get the closest one", () => {
    expect(problems(() => sft({ lerning_rate: 1 }))).toEqual([
      "lerning_rate: no such key (did you mean learning_rate?)",
    ]);
    expect(problems(() => dpo({ btea: 1 }))).toEqual(["btea: no such key (did you mean beta?)"]);
    expect(problems(() => sft({ learningRate: 1 }))).toEqual([
      "learningRate: no such key (did you mean learning_rate?)",
    ]);
    expect(problems(() => sft({ qqqqqq: 1 }))[0]).toBe("qqqqqq: no such key (see --help)");
  });

  it("of the other task say so", () => {
    expect(problems(() => sft({ beta: 0.1 }))[0]).toMatch(/belongs to dpo/);
    expect(problems(() => dpo({ assistant_only_loss: true }))[0]).toMatch(/belongs to sft/);
  });

  it("of TRL say what to write instead", () => {
    expect(problems(() => sft({ bf16: true }))).toEqual(["bf16: no such key (write dtype: bfloat16)"]);
    expect(problems(() => sft({ gradient_checkpointing: true }))[0]).toMatch(/leave it out/);
  });

  it("that every object has are unknown too", () => {
    const raw = JSON.parse('{"model": "m", "dataset": "d", "__proto__": 1, "constructor": 2, "toString": 3}');
    expect(problems(() => resolveConfig("sft", raw))).toHaveLength(3);
  });
});

describe("keys for TRL's sake", () => {
  it("are accepted, explained and dropped", () => {
    const { config, notices } = dpo({ packing: true, precompute_ref_log_probs: false, loss_type: ["hinge"] });
    expect(config.lossType).toBe("hinge");
    expect(Object.keys(config)).not.toContain("packing");
    expect(notices).toHaveLength(2);
    expect(notices[0]).toMatch(/^packing: has no effect/);
    expect(notices[1]).toMatch(/^precompute_ref_log_probs: has no effect/);
  });
});

describe("the library's spelling", () => {
  it("is camelCase, of the same keys", () => {
    const { config } = resolveOptions("dpo", {
      model: "m",
      dataset: "d",
      learningRate: 1e-3,
      adamBeta2: 0.95,
      memoryLimit: "2GiB",
    });
    expect(config).toMatchObject({ learningRate: 1e-3, adamBeta2: 0.95, memoryLimit: 2 ** 31 });
  });

  it("gives what a file gives", () => {
    expect(resolveOptions("sft", { model: "m", dataset: "d", gradientAccumulationSteps: 2 }).config).toEqual(
      resolveConfig("sft", { model: "m", dataset: "d", gradient_accumulation_steps: 2 }).config,
    );
  });

  it("is used in messages", () => {
    const wrong = { model: "m", dataset: "d", learning_rate: 1, learningRat: 1, batchSize: 0 };
    expect(problems(() => resolveOptions("sft", wrong as never))).toEqual([
      "learning_rate: no such key (did you mean learningRate?)",
      "learningRat: no such key (did you mean learningRate?)",
      "batchSize: must be a whole number >= 1, got 0",
    ]);
  });

  it("takes rows as objects, a signal and a logger", () => {
    const rows = [{ text: "a" }];
    const { signal } = new AbortController();
    const options = resolveOptions("sft", {
      model: "m",
      dataset: rows,
      evalDataset: rows,
      evalSteps: 3,
      signal,
      logger: console,
    });
    expect(options.config.dataset).toBe(rows);
    expect(options.config.evalDataset).toBe(rows);
    expect(options.signal).toBe(signal);
    expect(options.logger).toBe(console);
    expect(options.config).not.toHaveProperty("signal");
  });

  it("goes both ways for every key", () => {
    for (const key of [...Object.keys(sftSchema.shape), ...Object.keys(dpoSchema.shape)])
      expect(snake(camel(key))).toBe(key);
  });

  it("takes undefined for an option that was left out", () => {
    expect(resolveOptions("sft", { model: "m", dataset: "d", evalSteps: undefined }).config.evalSteps).toBe(null);
  });
});

describe("sizes", () => {
  it("are decimal with B and binary with iB", () => {
    expect(parseBytes("8GB")).toBe(8e9);
    expect(parseBytes("1.5 GiB")).toBe(1.5 * 2 ** 30);
    expect(parseBytes("512mb")).toBe(512e6);
    expect(parseBytes("1000")).toBe(1000);
    expect(parseBytes(123)).toBe(123);
  });

  it("that are none are undefined", () => {
    for (const size of ["", "GB", "-1GB", "1e3", "8 apples", "0", 0, -1, Number.NaN])
      expect(parseBytes(size)).toBeUndefined();
  });
});
