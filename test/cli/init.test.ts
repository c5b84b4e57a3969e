import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { attune, MAIN } from "./attune.ts";
import { tempDir } from "./tiny_model.ts";

const CONFIG = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 64,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 128,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: true,
  torch_dtype: "float32",
};

async function folder(): Promise<string> {
  const dir = await tempDir();
  await writeFile(join(dir, "config.json"), JSON.stringify(CONFIG));
  return dir;
}

const hash = async (path: string): Promise<string> =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

describe("attune init", () => {
  it("prints one JSON value and nothing else with --json; the same seed gives the same bytes", async () => {
    const dir = await folder();
    const sums: string[] = [];
    for (const [out, seed] of [
      ["a", "1"],
      ["b", "1"],
      ["c", "2"],
    ] as const) {
      const ran = await attune(["init", "config.json", "--output_dir", out, "--seed", seed, "--json"], { cwd: dir });
      expect(ran).toMatchObject({ code: 0, stderr: "" });
      expect(ran.stdout.split("\n")).toHaveLength(2);
      expect(JSON.parse(ran.stdout)).toMatchObject({ output_dir: out, seed: Number(seed) });
      sums.push(await hash(join(dir, out, "model.safetensors")));
    }
    expect(sums[0]).toBe(sums[1]);
    expect(sums[2]).not.toBe(sums[0]);
  });

  it("counts the parameters", async () => {
    const dir = await folder();
    const { stdout } = await attune(["init", "--config", dir, "--output_dir", join(dir, "out"), "--json"]);
    const layer = 16 * (16 + 8 + 8) + 16 * 16 + 3 * 16 * 32 + 2 * 16;
    expect(JSON.parse(stdout)).toMatchObject({ parameters: 64 * 16 + 2 * layer + 16 });
  });

  it("does not replace a model unless told to", async () => {
    const dir = await folder();
    const args = ["init", "--config", dir, "--output_dir", join(dir, "out"), "--seed", "1"];
    expect((await attune(args)).code).toBe(0);
    const before = await hash(join(dir, "out", "model.safetensors"));
    const again = await attune([...args, "--seed", "2"]);
    expect(again.code).toBe(2);
    expect(again.stderr).toMatch(
      /^attune: error: --output_dir: must hold no model yet, got .*--overwrite_output_dir.*\n$/,
    );
    expect(await hash(join(dir, "out", "model.safetensors"))).toBe(before);
    expect((await attune([...args, "--seed", "2", "--overwrite-output-dir"])).code).toBe(0);
    expect(await hash(join(dir, "out", "model.safetensors"))).not.toBe(before);
  });

  it("refuses what is no config with exit code 3, and an output that cannot be written with 2", async () => {
    const dir = await folder();
    await writeFile(join(dir, "broken.json"), "{");
    expect((await attune(["init", "broken.json", "--output_dir", "out"], { cwd: dir })).code).toBe(3);
    await writeFile(join(dir, "file"), "");
    const ran = await attune(["init", "config.json", "--output_dir", "file/out"], { cwd: dir });
    expect(ran.code).toBe(2);
    expect(ran.stderr).toMatch(/^attune: error: --output_dir: must be a folder that can be written/);
  });
});

describe("stdout that nobody reads", () => {
  it("is no error", async () => {
    const child = spawn("sh", ["-c", `"${process.execPath}" "${MAIN}" dpo --help | true`], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stderr = "";
    child.stderr.on("data", (data) => (stderr += String(data)));
    await new Promise((resolve) => child.on("close", resolve));
    expect(stderr).toBe("");
  });
});
