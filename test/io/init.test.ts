// Random models: transformers' initialisation, the same for a seed however it is cut into chunks, saved as a folder that opens.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ConfigError } from "#lib/errors.js";
import { bfloat16, float16, floatBytes } from "#lib/io/float_bytes.js";
import { initialValues, initModel } from "#lib/io/init.js";
import { openModel, weightReads } from "#lib/io/model_folder.js";
import { normals, philox, streamOf } from "#lib/io/philox.js";
import { parameters, parseConfig, type Parameter, type TransformerConfig } from "#lib/models/config.js";
import { fixtures, readBuffers, temporaryFolder } from "./tools.ts";

const json = { model_type: "llama", vocab_size: 300, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 1, num_attention_heads: 8, pad_token_id: 7, attention_bias: true, initializer_range: 0.05, tokenizer_class: "x" }; // prettier-ignore
const config = parseConfig(json, "m");
const list = parameters(config);
const named = (name: string): Parameter => list.find((p) => p.name === name)!;

function values(c: TransformerConfig, parameter: Parameter, seed: number, chunk?: number): number[] {
  const out: number[] = [];
  for (const { start, values: v } of initialValues(c, parameter, seed, chunk)) {
    expect(start).toBe(out.length);
    out.push(...v);
  }
  return out;
}

describe("philox", () => {
  const words = (c: number[], k: number[]) => {
    const out = new Uint32Array(4);
    philox(out, c[0]!, c[1]!, c[2]!, c[3]!, k[0]!, k[1]!);
    return [...out].map((w) => w.toString(16).padStart(8, "0")).join(" ");
  };

  it("gives the known answers of its authors", () => {
    const ones = 0xffffffff;
    expect(words([0, 0, 0, 0], [0, 0])).toBe("6627e8d5 e169c58d bc57ac4c 9b00dbd8");
    expect(words([ones, ones, ones, ones], [ones, ones])).toBe("408f276d 41c83b0e a20bc7c6 6d5451fd");
    expect(words([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toBe(
      "d16cfe09 94fdcceb 5001e420 24126ea1",
    );
  });

  it("gives normal values: moments, tails and neighbours", () => {
    const n = 400_000;
    const x = new Float32Array(n);
    normals(x, 0, 1, 123, streamOf("w"));
    const mean = (f: (v: number, i: number) => number) => x.reduce((sum, v, i) => sum + f(v, i), 0) / n;
    expect(Math.abs(mean((v) => v))).toBeLessThan(0.008);
    expect(Math.abs(mean((v) => v * v) - 1)).toBeLessThan(0.012);
    expect(Math.abs(mean((v) => v ** 3))).toBeLessThan(0.03);
    expect(Math.abs(mean((v) => v ** 4) - 3)).toBeLessThan(0.09);
    for (const lag of [1, 2, 3, 4, 64]) expect(Math.abs(mean((v, i) => v * (x[i + lag] ?? 0)))).toBeLessThan(0.008);
    expect(mean((v) => (Math.abs(v) > 3 ? 1 : 0))).toBeCloseTo(0.0027, 3);
  });
});

describe("initial values", () => {
  it("are normal(0, initializer_range), ones and zeros, with a padding row of zeros", () => {
    const embed = values(config, named("model.embed_tokens.weight"), 1);
    expect(embed.slice(7 * 64, 8 * 64).every((v) => v === 0)).toBe(true);
    for (const chunk of [100, 448, 460]) {
      expect(values(config, named("model.embed_tokens.weight"), 1, chunk)).toEqual(embed);
    }
    const rest = embed.filter((v) => v !== 0);
    expect(rest).toHaveLength(299 * 64);
    const deviation = Math.sqrt(rest.reduce((sum, v) => sum + v * v, 0) / rest.length);
    expect(Math.abs(deviation / 0.05 - 1)).toBeLessThan(0.03);
    expect(values(config, named("model.norm.weight"), 1)).toEqual(Array.from({ length: 64 }, () => 1));
    expect(values(config, named("model.layers.0.self_attn.qkv_proj.bias"), 1)).toEqual(
      Array.from({ length: 192 }, () => 0),
    );
  });

  it("depend on seed and tensor, not on the chunks", () => {
    const qkv = named("model.layers.0.self_attn.qkv_proj.weight");
    const one = values(config, qkv, 5);
    for (const chunk of [4, 100, 4096 + 8]) expect(values(config, qkv, 5, chunk)).toEqual(one);
    expect(values(config, qkv, 6)).not.toEqual(one);
    expect(values(config, qkv, 5 + 2 ** 32)).not.toEqual(one);
    expect(one.slice(0, 64 * 64)).not.toEqual(one.slice(64 * 64, 2 * 64 * 64));
    // a fused part is what its own tensor would be
    const key = { name: "k", shape: [64, 64], decay: true, init: "normal", parts: [qkv.parts[1]!] } as const;
    expect(values(config, key, 5)).toEqual(one.slice(64 * 64, 2 * 64 * 64));
  });

  it.each([-1, 0.5, 2 ** 53, NaN])("refuse seed %d", (seed) => {
    expect(() => values(config, named("model.norm.weight"), seed)).toThrow(ConfigError);
  });
});

describe("rounding to 16 bits", () => {
  const f32 = new Float32Array(1);
  const u32 = new Uint32Array(f32.buffer);
  const bitsOf = (x: number) => ((f32[0] = x), u32[0]!);
  const half = (h: number): number => {
    const exponent = (h >> 10) & 31;
    const size = exponent === 0 ? (h & 1023) * 2 ** -24 : (1 + (h & 1023) / 1024) * 2 ** (exponent - 15);
    return h & 0x8000 ? -size : size;
  };

  it("of float16 keeps every half, and takes the nearer of two, even on a tie", () => {
    for (let h = 0; h < 0x7c00; h++) {
      expect(float16(bitsOf(half(h)))).toBe(h);
      expect(float16(bitsOf(-half(h)))).toBe(h | 0x8000);
      const above = h + 1 === 0x7c00 ? 65536 : half(h + 1);
      const tie = (half(h) + above) / 2;
      expect(float16(bitsOf(tie))).toBe(h % 2 === 0 ? h : h + 1);
      const bits = bitsOf(tie);
      expect([float16(bits - 1), float16(bits + 1)]).toEqual([h, h + 1]);
    }
    expect([Infinity, -Infinity, 1e30].map((x) => float16(bitsOf(x)))).toEqual([0x7c00, 0xfc00, 0x7c00]);
    expect(float16(bitsOf(NaN)) & 0x7fff).toBeGreaterThan(0x7c00);
  });

  it("of bfloat16 does the same", () => {
    for (let h = 0; h < 0x7f80; h++) {
      const bits = h * 65536;
      expect(bfloat16(bits)).toBe(h);
      expect(bfloat16(bits + 0x8000)).toBe(h % 2 === 0 ? h : h + 1);
      expect([bfloat16(bits + 0x7fff), bfloat16(bits + 0x8001)]).toEqual([h, h + 1]);
    }
    expect(bfloat16(0x7f800001) & 0x7fff).toBeGreaterThan(0x7f80);
    expect([...floatBytes(new Float32Array([1, -2]), "bfloat16")]).toEqual([0x80, 0x3f, 0x00, 0xc0]);
    expect([...floatBytes(new Float32Array([1]), "float32")]).toEqual([0, 0, 0x80, 0x3f]);
  });
});

describe("initModel", () => {
  it.each(["float32", "bfloat16", "float16"] as const)(
    "writes a %s folder that opens and holds the values",
    async (dtype) => {
      const dir = temporaryFolder();
      const configPath = join(dir, "base.json");
      writeFileSync(configPath, JSON.stringify(json));
      writeFileSync(join(dir, "tokenizer.json"), "{}");
      const outputDir = join(dir, "out", "model");
      let last = 0;
      const options = { configPath, tokenizerDir: dir, outputDir, seed: 9, dtype, version: "0.0.0" };
      const count = await initModel({ ...options, onProgress: (done, total) => (last = done / total) });
      expect(last).toBe(1);
      const names = ["README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
      expect(readdirSync(outputDir).sort()).toEqual(names);
      const model = await openModel(outputDir);
      expect(model.checkpointDtype).toBe(dtype);
      expect(count).toBe(parameters(model.config).reduce((sum, p) => sum + p.shape.reduce((a, b) => a * b, 1), 0));
      const buffers = readBuffers(weightReads(model, list), list);
      for (const p of list) {
        expect(
          buffers.get(`weights/${p.name}`)!.equals(floatBytes(new Float32Array(values(config, p, 9)), dtype)),
        ).toBe(true);
      }
    },
  );

  it("leaves nothing of a model behind when it is stopped", async () => {
    const outputDir = temporaryFolder();
    writeFileSync(join(outputDir, "notes.txt"), "mine");
    const stop = new AbortController();
    const run = initModel({ configPath: join(fixtures, "models/llama/config.json"), tokenizerDir: null, outputDir, seed: 0, version: "0", signal: stop.signal, onProgress: () => stop.abort() }); // prettier-ignore
    await expect(run).rejects.toThrow(/abort/);
    expect(readdirSync(outputDir)).toEqual(["notes.txt"]);
    expect(readFileSync(join(outputDir, "notes.txt"), "utf8")).toBe("mine");
  });
});
