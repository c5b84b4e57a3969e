import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { ConfigError } from "#lib/errors.js";
import { resolveConfig, resolveOptions } from "#lib/train/config.js";
import { mergeFlags, parseRunFile, readRunFile } from "#lib/train/config_file.js";
import { changedKeys, formatConfig } from "#lib/train/config_record.js";

const folders: string[] = [];
async function tempDir(): Promise<string> {
  folders.push(await mkdtemp(join(tmpdir(), "attune-config-")));
  return folders.at(-1)!;
}
afterAll(() => Promise.all(folders.map((dir) => rm(dir, { recursive: true, force: true }))));

const base = "model: m\ndataset: d.jsonl\n";

describe("a run file", () => {
  it("reads numbers as people write them", () => {
    const { values } = parseRunFile(
      "run.yaml",
      "a: 1e-6\nb: 2e-5\nc: 5.0e-06\nd: .5\ne: -1\nf: true\ng: null\nh: 8GB\n",
    );
    expect(values).toEqual({ a: 1e-6, b: 2e-5, c: 5e-6, d: 0.5, e: -1, f: true, g: null, h: "8GB" });
  });

  it("may be JSON, or empty", () => {
    expect(parseRunFile("run.json", '{"beta": 0.1}').values).toEqual({ beta: 0.1 });
    expect(parseRunFile("run.yaml", "# nothing\n").values).toEqual({});
  });

  it("is refused with its line where it is not YAML", () => {
    expect(() => parseRunFile("run.yaml", "model: m\nbeta: [1\nmore: 2\n")).toThrow(/^run\.yaml:\d+: must be YAML/);
    expect(() => parseRunFile("run.yaml", "beta: 1\nbeta: 2\n")).toThrow(/^run\.yaml:2: must be YAML.*unique/);
    expect(() => parseRunFile("run.yaml", "- a\n- b\n")).toThrow(/^run\.yaml: must be a YAML mapping/);
    expect(() => parseRunFile("run.yaml", "just words")).toThrow(ConfigError);
  });

  it("cannot blow up through aliases", () => {
    const levels = Array.from(
      { length: 12 },
      (_, i) => `a${i + 1}: &x${i + 1} [${Array(9).fill(`*x${i}`).join(", ")}]`,
    );
    expect(() => parseRunFile("run.yaml", `a0: &x0 [1]\n${levels.join("\n")}\n`)).toThrow(ConfigError);
  });

  it("that is not there is a ConfigError that says so", async () => {
    await expect(readRunFile("/no/such/run.yaml")).rejects.toThrow(
      /^\/no\/such\/run\.yaml: must be a YAML file.*no such file$/,
    );
    await expect(readRunFile(tmpdir())).rejects.toThrow(/got a folder$/);
  });

  it("is named in messages, with the line of the key", async () => {
    const path = join(await tempDir(), "run.yaml");
    await writeFile(path, `${base}betta: 1\nbeta: soft\n`);
    const { raw, label } = mergeFlags(await readRunFile(path), { seed: "x" });
    const call = () => resolveConfig("dpo", raw, { label });
    expect(call).toThrow(`${path}:3: betta: no such key (did you mean beta?)`);
    expect(call).toThrow(`${path}:4: beta: must be a number > 0, got "soft"`);
    expect(call).toThrow('--seed: must be a whole number >= 0 and <= 4294967295, got "x"');
  });
});

describe("flags", () => {
  const merged = (text: string, flags: Record<string, unknown>) =>
    resolveConfig("sft", mergeFlags(parseRunFile("run.yaml", base + text), flags).raw).config;

  it("override the file", () => expect(merged("seed: 1\n", { seed: 2 }).seed).toBe(2));

  it("take the place of the other spelling of the same thing in the file", () => {
    expect(
      merged("per_device_train_batch_size: 4\ngradient_accumulation_steps: 2\n", { batch_size: 3 }).batchSize,
    ).toBe(3);
    expect(merged("batch_size: 3\n", { gradient_accumulation_steps: 2 }).batchSize).toBe(16);
    expect(merged("per_device_train_batch_size: 4\n", { gradient_accumulation_steps: 2 }).batchSize).toBe(8);
    expect(merged("warmup_ratio: 0.5\n", { warmup_steps: 3 }).warmupSteps).toBe(3);
  });

  it("are enough without a file", () => {
    expect(resolveConfig("sft", mergeFlags(null, { model: "m", dataset: "d" }).raw).config.model).toBe("m");
  });
});

describe("config.yaml", () => {
  const odd = {
    model: 'a: "b"\n# c',
    dataset: "no",
    output_dir: "ünï",
    learning_rate: 1e-6,
    memory_limit: "8GB",
    resume: true,
  };

  it("reads back as the same configuration", () => {
    const { config } = resolveConfig("dpo", odd);
    const back = resolveConfig("dpo", parseRunFile("config.yaml", formatConfig(config)).values).config;
    expect(back).toEqual({ ...config, resume: false });
  });

  it("writes small numbers so that Python's YAML sees numbers", () => {
    const text = formatConfig(resolveConfig("dpo", odd).config);
    expect(text).toContain("learning_rate: 0.000001\n");
    expect(text).toContain("adam_epsilon: 1.0e-8\n");
    expect(text).toContain('dataset: "no"\n');
  });

  it("holds neither resume nor overwrite_output_dir, and no rows", () => {
    const { config } = resolveOptions("sft", { model: "m", outputDir: "runs/x", dataset: [{ text: "secret" }], resume: true });
    const text = formatConfig(config);
    expect(text).not.toMatch(/resume|overwrite|secret/);
  });
});

describe("a resumed run", () => {
  const config = (more: Record<string, unknown>) => resolveConfig("dpo", { model: "m", dataset: "d", ...more }).config;
  const changed = (a: Record<string, unknown>, b: Record<string, unknown>) => changedKeys("dpo", config(a), config(b));

  it("may change what does not alter the mathematics", () => {
    const free = {
      threads: 2,
      logging_steps: 1,
      save_steps: 7,
      resume: true,
      tokens_per_batch: 100,
      memory_limit: "1GB",
      output_dir: "o",
    };
    expect(changed({}, free)).toEqual([]);
  });

  it("may not change what does", () => {
    expect(changed({}, { learning_rate: 1, beta: 0.2, seed: 1, batch_size: 2 }).sort()).toEqual([
      "batch_size",
      "beta",
      "learning_rate",
      "seed",
    ]);
  });

  it("may become longer only where the schedule does not depend on its length", () => {
    expect(changed({ max_steps: 5 }, { max_steps: 9 })).toEqual(["max_steps"]);
    const constant = { lr_scheduler_type: "constant" };
    expect(changed({ ...constant, max_steps: 5 }, { ...constant, max_steps: 9 })).toEqual([]);
    const share = { lr_scheduler_type: "constant_with_warmup", warmup_ratio: 0.1 };
    expect(changed({ ...share, max_steps: 5 }, { ...share, max_steps: 9 })).toEqual(["max_steps"]);
  });
});
