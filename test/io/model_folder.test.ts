// Model folders: what transformers saved is opened, what does not belong together is refused, and what we save opens again.
import { readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DataError, WriteError } from "#lib/errors.js";
import { openModel, weightReads } from "#lib/io/model_folder.js";
import { layoutSafetensors } from "#lib/io/safetensors.js";
import { saveModelFiles, type SaveModelOptions } from "#lib/io/save_model.js";
import { parameters } from "#lib/models/config.js";
import { copyOfModel, fixtures, readBuffers, temporaryFolder, writeBuffers } from "./tools.ts";

const families = [
  ["llama", "float32"],
  ["mistral", "bfloat16"],
  ["qwen2", "float16"],
  ["qwen3", "float32"],
] as const;

function edit(path: string, change: (json: any) => void): void {
  const json = JSON.parse(readFileSync(path, "utf8"));
  change(json);
  writeFileSync(path, JSON.stringify(json));
}

/** Rewrites a single-file checkpoint with another list of tensors; new ones are zero. */
function rewrite(
  dir: string,
  change: (tensors: Map<string, { dtype: any; shape: number[]; bytes: Buffer }>) => void,
): void {
  const path = join(dir, "model.safetensors");
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const { __metadata__: _, ...json } = JSON.parse(file.subarray(8, start).toString());
  const tensors = new Map(
    Object.entries<any>(json).map(([name, t]) => [
      name,
      { dtype: t.dtype, shape: t.shape, bytes: file.subarray(start + t.data_offsets[0], start + t.data_offsets[1]) },
    ]),
  );
  change(tensors);
  const [shard] = layoutSafetensors([...tensors].map(([name, t]) => ({ name, ...t }))).shards;
  const out = Buffer.alloc(shard!.size);
  out.set(shard!.headerBytes);
  for (const t of shard!.tensors) out.set(tensors.get(t.name)!.bytes, t.offset);
  writeFileSync(path, out);
}

describe.each(families)("%s", (family, dtype) => {
  it("opens, with its dtype and its reads in row order", async () => {
    const model = await openModel(join(fixtures, "models", family));
    expect(model.checkpointDtype).toBe(dtype);
    expect(model.config.dtype).toBe(dtype);
    const list = parameters(model.config);
    const reads = weightReads(model, list);
    const query = reads.filter((r) => r.buffer === "weights/model.layers.0.self_attn.qkv_proj.weight");
    const { numAttentionHeads: h, numKeyValueHeads: k, headDim: d } = model.config;
    expect(query.map((r) => [r.rowStart, r.rows])).toEqual([[0, h * d], [h * d, k * d], [(h + k) * d, k * d]]); // prettier-ignore
    expect(readBuffers(reads, list).size).toBe(list.length);
  });

  it("saved again holds the same bytes under the same names, sharded or not", async () => {
    const model = await openModel(join(fixtures, "models", family));
    const list = parameters(model.config);
    const before = readBuffers(weightReads(model, list), list);
    for (const maxShardBytes of [5e9, 2000]) {
      const dir = temporaryFolder();
      const card = { task: "sft", baseModel: "org/base", version: "0.0.0" };
      const writes = await saveModelFiles(dir, {
        base: model,
        parameters: list,
        dtype,
        stopTokenIds: [3],
        card,
        maxShardBytes,
      });
      writeBuffers(writes, list, before);
      const saved = await openModel(dir);
      expect(readBuffers(weightReads(saved, list), list)).toEqual(before);
      expect([...saved.tensors.keys()].sort()).toEqual([...model.tensors.keys()].sort());
      expect(saved.config).toEqual({ ...model.config, warnings: saved.config.warnings });
      expect(readdirSync(dir).includes("model.safetensors.index.json")).toBe(maxShardBytes === 2000);
    }
  });
});

describe("opening refuses", () => {
  const cases: [what: string, family: string, damage: (dir: string) => void, must: RegExp][] = [
    ["a folder without config.json", "llama", (d) => rmSync(join(d, "config.json")), /must hold config.json/],
    ["a config.json that is not JSON", "llama", (d) => writeFileSync(join(d, "config.json"), "{"), /config.json: must be JSON/],
    ["no weights", "llama", (d) => rmSync(join(d, "model.safetensors")), /must hold model.safetensors or/],
    ["weights in another format", "llama", (d) => renameSync(join(d, "model.safetensors"), join(d, "pytorch_model.bin")), /pytorch_model.bin is another format/],
    ["a missing shard", "mistral", (d) => rmSync(join(d, "model-00002-of-00003.safetensors")), /got none named model-00002-of-00003.safetensors/],
    ["a shard outside the folder", "mistral", (d) => edit(join(d, "model.safetensors.index.json"), (j) => (j.weight_map["lm_head.weight"] = "../x.safetensors")), /plain file name/],
    ["a tensor that its shard lacks", "mistral", (d) => edit(join(d, "model.safetensors.index.json"), (j) => (j.weight_map["lm_head.weight"] = "model-00002-of-00003.safetensors")), /"lm_head.weight" must be in/],
    ["a missing tensor", "llama", (d) => rewrite(d, (t) => t.delete("model.norm.weight")), /must hold tensor model.norm.weight \[24\]/],
    ["a missing head", "llama", (d) => rewrite(d, (t) => t.delete("lm_head.weight")), /must hold tensor lm_head.weight/],
    ["another shape", "qwen3", (d) => edit(join(d, "config.json"), (j) => (j.intermediate_size = 24)), /must have shape \[24,12\] by config.json, got \[20,12\]/],
    ["another depth", "qwen3", (d) => edit(join(d, "config.json"), (j) => { j.num_hidden_layers = 1; j.layer_types.pop(); }), /and no others, got "model.layers.1/],
    ["biases that the config denies", "llama", (d) => edit(join(d, "config.json"), (j) => (j.mlp_bias = false)), /mlp.*bias/],
    ["integer weights", "qwen3", (d) => { const p = join(d, "model.safetensors"); const b = readFileSync(p); b.set(Buffer.from('"I32"'), b.indexOf('"F32"')); writeFileSync(p, b); }, /must be F32, BF16 or F16, got I32/],
    ["a file cut short", "qwen2", (d) => writeFileSync(join(d, "model.safetensors"), readFileSync(join(d, "model.safetensors")).subarray(0, 9000)), /cut short/],
    ["a tied head of another shape", "qwen2", (d) => rewrite(d, (t) => t.set("lm_head.weight", { dtype: "F16", shape: [18, 32], bytes: Buffer.alloc(18 * 64) })), /lm_head.weight must have shape/],
    ["a tied head with other values", "qwen2", (d) => rewrite(d, (t) => t.set("lm_head.weight", { dtype: "F16", shape: [19, 32], bytes: Buffer.alloc(19 * 64) })), /lm_head.weight must equal/],
  ]; // prettier-ignore
  it.each(cases)("%s", async (_what, family, damage, must) => {
    const dir = copyOfModel(family);
    await openModel(dir);
    damage(dir);
    const error = await openModel(dir).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DataError);
    expect((error as Error).message).toMatch(must);
    expect((error as Error).message).not.toContain("\n");
  });

  it("a path that is missing or a file", async () => {
    await expect(openModel("/nowhere/model")).rejects.toThrow(/no such folder/);
    await expect(openModel(join(fixtures, "make.py"))).rejects.toThrow(/got a file/);
  });
});

describe("opening follows", () => {
  it("the links of a hub cache's snapshot", async () => {
    const dir = temporaryFolder();
    for (const name of ["config.json", "model.safetensors"])
      symlinkSync(join(fixtures, "models/llama", name), join(dir, name));
    expect((await openModel(dir)).tensors.size).toBe(35);
  });
});

describe("opening passes over", () => {
  it("rotary tables of old checkpoints, and a tied head that repeats the embedding", async () => {
    const dir = copyOfModel("qwen2");
    rewrite(dir, (t) => {
      t.set("model.layers.0.self_attn.rotary_emb.inv_freq", { dtype: "F32", shape: [4], bytes: Buffer.alloc(16) });
      t.set("lm_head.weight", { ...t.get("model.embed_tokens.weight")! });
    });
    const model = await openModel(dir);
    expect(parameters(model.config).some((p) => p.name === "lm_head.weight")).toBe(false);
  });
});

describe("saving", () => {
  async function save(dir: string, options: Partial<SaveModelOptions>): Promise<string> {
    const base = await openModel(dir);
    const out = temporaryFolder();
    const card = {
      task: "dpo",
      baseModel: "/home/someone/private/my|model",
      version: "1.2.3",
      settings: [["beta", "0.1"]] as const,
    };
    await saveModelFiles(out, {
      base,
      parameters: parameters(base.config),
      dtype: "bfloat16",
      stopTokenIds: [5],
      card,
      ...options,
    });
    return out;
  }
  const text = (dir: string, name: string) => readFileSync(join(dir, name), "utf8");

  it("changes the dtype in config.json and not one other character, in either spelling", async () => {
    const modern = copyOfModel("llama");
    expect(text(await save(modern, {}), "config.json")).toBe(
      text(modern, "config.json").replace('"float32"', '"bfloat16"'),
    );
    const old = copyOfModel("llama");
    const before = text(old, "config.json")
      .replace('"dtype"', '"torch_dtype"')
      .replace('"rms_norm_eps": 1e-06', '"rms_norm_eps":1.0e-06');
    writeFileSync(join(old, "config.json"), before);
    expect(text(await save(old, {}), "config.json")).toBe(before.replace('"float32"', '"bfloat16"'));
  });

  it("adds dtype and architectures where the base names none", async () => {
    const dir = copyOfModel("qwen3");
    edit(join(dir, "config.json"), (j) => {
      delete j.dtype;
      delete j.architectures;
    });
    const config = JSON.parse(text(await save(dir, {}), "config.json"));
    expect(config).toMatchObject({ dtype: "bfloat16", architectures: ["Qwen3ForCausalLM"] });
  });

  it("writes the trained stop tokens into generation_config.json and keeps its other fields", async () => {
    const dir = copyOfModel("llama");
    edit(join(dir, "generation_config.json"), (j) => (j.temperature = 0.7));
    const kept = JSON.parse(text(dir, "generation_config.json"));
    expect(JSON.parse(text(await save(dir, {}), "generation_config.json"))).toEqual({ ...kept, eos_token_id: 5 });
    const several = await save(dir, { stopTokenIds: [5, 7] });
    expect(JSON.parse(text(several, "generation_config.json"))).toEqual({ ...kept, eos_token_id: [5, 7] });
    expect(text(await save(dir, { stopTokenIds: [] }), "generation_config.json")).toBe(
      text(dir, "generation_config.json"),
    );
    rmSync(join(dir, "generation_config.json"));
    expect(JSON.parse(text(await save(dir, {}), "generation_config.json"))).toEqual({
      bos_token_id: 1,
      eos_token_id: 5,
      pad_token_id: 0,
    });
  });

  it("copies tokenizer files, and puts a new chat template where the base keeps its own", async () => {
    const dir = copyOfModel("llama");
    writeFileSync(join(dir, "tokenizer.json"), "{}");
    writeFileSync(
      join(dir, "tokenizer_config.json"),
      `{"chat_template": "old", "model_max_length": 1000000000000000019884624838656}`,
    );
    expect(text(await save(dir, {}), "tokenizer_config.json")).toBe(text(dir, "tokenizer_config.json"));
    const inside = await save(dir, { chatTemplate: 'new "{{ x }}"' });
    expect(text(inside, "tokenizer_config.json")).toBe(
      `{"chat_template": "new \\"{{ x }}\\"", "model_max_length": 1000000000000000019884624838656}`,
    );
    expect(readdirSync(inside)).not.toContain("chat_template.jinja");
    writeFileSync(join(dir, "chat_template.jinja"), "file");
    expect(text(await save(dir, {}), "chat_template.jinja")).toBe("file");
    const beside = await save(dir, { chatTemplate: "new" });
    expect(text(beside, "chat_template.jinja")).toBe("new");
    expect(text(beside, "tokenizer_config.json")).toBe(text(dir, "tokenizer_config.json"));
  });

  it("writes a card with front matter and without the machine's paths", async () => {
    const card = text(await save(copyOfModel("llama"), {}), "README.md");
    expect(card).toMatch(
      /^---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n  - attune\n  - dpo\n---\n/,
    );
    expect(card).toContain("direct preference optimisation (DPO) with attune 1.2.3");
    expect(card).toContain("| beta | 0.1 |");
    expect(card).not.toContain("/home");
  });

  it("says that the folder is gone, as a WriteError", async () => {
    const base = await openModel(join(fixtures, "models/llama"));
    const card = { task: "sft", baseModel: null, version: "0" };
    const options = { base, parameters: parameters(base.config), dtype: "float32", stopTokenIds: [], card } as const;
    const dir = join(temporaryFolder(), "gone");
    await expect(saveModelFiles(dir, options)).rejects.toThrow(WriteError);
    await mkdir(dir);
    await saveModelFiles(dir, options);
  });
});
