// A folder with a tokenizer of single bytes, a chat template and a random Llama of a few thousand weights.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { attune } from "./attune.ts";

/** A fresh folder that is removed after the tests of the file. */
export async function tempDir(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "attune-cli-"));
  folders.push(dir);
  return dir;
}
const folders: string[] = [];
afterAll(() => Promise.all(folders.map((dir) => rm(dir, { recursive: true, force: true }))));

/** GPT-2's printable characters for bytes: those that print stand for themselves, the others come after U+0100. */
function byteCharacters(): string[] {
  const prints = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(prints(b) ? b : next++));
}

const SPECIAL = ["<|im_start|>", "<|im_end|>"];
const TEMPLATE =
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}" +
  "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}" +
  "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

async function writeTokenizer(dir: string): Promise<void> {
  const pieces = [...SPECIAL, ...byteCharacters()];
  const vocab = Object.fromEntries(pieces.map((piece, id) => [piece, id]));
  const added = SPECIAL.map((content, id) => {
    return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  });
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const model = { type: "BPE", vocab, merges: [], fuse_unk: false, byte_fallback: false, ignore_merges: false };
  const tokenizer = { version: "1.0", added_tokens: added, pre_tokenizer: bytes, decoder: bytes, model };
  await writeFile(join(dir, "tokenizer.json"), JSON.stringify(tokenizer));
  const config = { tokenizer_class: "PreTrainedTokenizerFast", eos_token: "<|im_end|>", chat_template: TEMPLATE };
  await writeFile(join(dir, "tokenizer_config.json"), JSON.stringify(config));
}

const CONFIG = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 258,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 512,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: true,
  eos_token_id: 1,
  torch_dtype: "float32",
};

/** A folder with `model/` in it, made by `attune init`; the cache of its runs goes into it, too. */
export async function tinyModel(): Promise<{ dir: string; env: NodeJS.ProcessEnv }> {
  const dir = await tempDir();
  await writeTokenizer(dir);
  await writeFile(join(dir, "config.json"), JSON.stringify(CONFIG));
  const made = await attune(["init", "config.json", "--output_dir", "model", "--seed", "1"], { cwd: dir });
  if (made.code !== 0) throw new Error(made.stderr);
  return { dir, env: { XDG_CACHE_HOME: join(dir, "cache") } };
}

/** Writes rows as JSON lines. */
export async function writeRows(path: string, rows: readonly unknown[]): Promise<void> {
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
}

export const PAIRS = Array.from({ length: 12 }, (_, i) => ({
  prompt: [{ role: "user", content: `Question ${i}?` }],
  chosen: [{ role: "assistant", content: `Yes, ${"indeed ".repeat(i % 4)}${i}.` }],
  rejected: [{ role: "assistant", content: `No${"!".repeat(i % 5)}` }],
}));

export const TEXTS = Array.from({ length: 12 }, (_, i) => ({ text: `Line ${i} of ${"a text ".repeat(1 + (i % 5))}.` }));
