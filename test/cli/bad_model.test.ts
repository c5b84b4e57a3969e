// Model folders that are wrong: weights that lie, shards that are missing, configurations of models that attune does not implement.
// Every rule of headers and configurations: test/io/safetensors.test.ts, test/models/config_refused.test.ts.

import { readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { all, DPO, edit, put, refused, SFT, weights, type Case, type Plant } from "./bad_input.ts";

const FILE = "model/model.safetensors";
const EMBED = "model.embed_tokens.weight";
const wrong = (what: string, plant: Plant, says: string | RegExp, args: readonly string[] = SFT): Case => ({ what, plant, args, code: 3, says });
const cut = (bytes: number): Plant => (dir) => truncateSync(join(dir, FILE), bytes);

refused("weights that are wrong", [
  wrong("a header cut short", cut(1000), /^model\/model\.safetensors: header length must be from 2 to 992 in a file of 1000 bytes, got \d+ \(it is cut short/),
  wrong("data cut short", cut(20_000), /^model\/model\.safetensors: must be \d+ bytes by its header, got 20000 \(it is cut short: download it again\)$/),
  wrong("an empty file", cut(0), "model/model.safetensors: must be a safetensors file of at least 8 bytes, got 0 (download it again)"),
  wrong("a header of 2^60 bytes", headerLength(2n ** 60n), /header length must be from 2 to \d+ .*, got 1152921504606846976 /),
  wrong("a header that ends early", headerLength(100n), /^model\/model\.safetensors \(header\): must be JSON, got an error: /),
  wrong("a Git LFS pointer", put(FILE, "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n"), /header length must be from 2 to \d+ .* \(it is cut short, or no safetensors file at all: download it again\)$/),
  wrong("tensors that overlap", weights((h) => void (h["model.norm.weight"]!.data_offsets = h["model.layers.0.input_layernorm.weight"]!.data_offsets)), /must begin at byte \d+, got \d+ \(it overlaps the tensor before it\)$/),
  wrong("a negative size", weights((h) => void (h[EMBED]!.shape = [-258, -16])), `model/model.safetensors: tensor "${EMBED}": shape must be a list of sizes, got [-258,-16]`),
  wrong("a negative place", weights((h) => void (h[EMBED]!.data_offsets = [-64, 16448])), /data_offsets must be \[begin, end\], got \[-64,16448\]$/),
  wrong("a size past all numbers", weights((h) => void (h[EMBED]!.shape = [2 ** 52, 2 ** 52])), /must take 81129638414606681695789005144064 bytes, got data_offsets/),
  wrong("a type that does not exist", weights((h) => void (h[EMBED]!.dtype = "F99")), /dtype must be one that safetensors has \(F32, BF16, F16, \.\.\.\), got "F99"$/),
  wrong("a type that is not read", weights((h) => void Object.assign(h[EMBED]!, { dtype: "F64", shape: [129, 16] })), /must be F32, BF16 or F16, got F64 \(quantised weights are not read\)$/),
  wrong("another shape", weights((h) => void (h[EMBED]!.shape = [129, 32])), /must have shape \[258,16\] by config\.json, got \[129,32\]$/),
  wrong("another name", weights((h) => renameTensor(h)), /^model: must hold tensor model\.embed_tokens\.weight \[258,16\] by its config\.json, got none$/),
  wrong("NaN, to train", notANumber, /^model: model\.norm\.weight must hold finite numbers, got 1 that are NaN or infinite \(is the file damaged/),
  wrong("NaN, to align", notANumber, /^model: model\.norm\.weight must hold finite numbers, got 1 /, DPO),
  wrong("NaN, to score", notANumber, /^model: model\.norm\.weight must hold finite numbers, got 1 /, ["score", "model", "--data", "texts.jsonl"]),
  wrong("NaN, to go on", notANumber, /^model: model\.norm\.weight must hold finite numbers, got 1 /, ["generate", "model", "--prompt", "x"]),
  wrong("another format", (dir) => renameSync(join(dir, FILE), join(dir, "model/pytorch_model.bin")), /must hold model\.safetensors or model\.safetensors\.index\.json, got neither \(pytorch_model\.bin is another format/),
  wrong("a shard outside the folder", shards({ [EMBED]: "../old/model.safetensors" }), /must be a plain file name in the same folder that ends in \.safetensors, got "\.\.\/old\/model\.safetensors"$/),
  wrong("a shard that is missing", shards({ [EMBED]: "model-00002-of-00002.safetensors" }), "model: must hold every shard of model.safetensors.index.json, got none named model-00002-of-00002.safetensors (download it)"),
  wrong("an index that breaks off", all(shards({}), put("model/model.safetensors.index.json", "{")), /^model\/model\.safetensors\.index\.json: must be JSON, got an error: /),
]);

refused("a model folder that is wrong", [
  wrong("another architecture", edit("model/config.json", { model_type: "gpt2", architectures: ["GPT2LMHeadModel"] }), 'model/config.json: model_type must be one of llama, mistral, qwen2, qwen3 (attune implements no other), got "gpt2"'),
  wrong("a field that changes the mathematics", edit("model/config.json", { final_logit_softcapping: 30 }), "model/config.json: final_logit_softcapping must be absent or 0 (attune does not implement it), got 30"),
  wrong("a field that may", edit("model/config.json", { my_attention_scale: 2 }), /^model\/config\.json: my_attention_scale must be absent: attune does not know this field and it may change the mathematics \(.*\), got 2$/),
  wrong("quantised weights", edit("model/config.json", { quantization_config: { quant_method: "gptq" } }), /quantization_config must be absent \(attune does not implement it\), got/),
  wrong("layers that have no weights", edit("model/config.json", { num_hidden_layers: 3 }), /^model: must hold tensor model\.layers\.2\.input_layernorm\.weight \[16\] by its config\.json, got none$/),
  wrong("weights that no layer has", edit("model/config.json", { num_hidden_layers: 1 }), /^model: must hold the tensors of its config\.json and no others, got .*and \d+ more \(do the two belong together\?\)$/),
  wrong("a size that is a text", edit("model/config.json", { hidden_size: "16" }), 'model/config.json: hidden_size must be a whole number from 1 to 131072, got "16"'),
  wrong("a configuration that breaks off", put("model/config.json", "{"), /^model\/config\.json: must be JSON, got an error: /),
  wrong("no configuration", (dir) => rmSync(join(dir, "model/config.json")), /^model: must hold config\.json \(a Hugging Face model folder\), got \[/),
  { what: "no such folder", args: [...SFT, "--model", "nosuch"], code: 3, says: "nosuch: must be a model folder, got no such folder" },
  { what: "a file for a folder", args: [...SFT, "--model", "texts.jsonl"], code: 3, says: "texts.jsonl: must be a model folder, got a file" },
  { what: "a reference that is not there", args: [...DPO, "--ref_model", "nosuch"], code: 3, says: "nosuch: must be a model folder, got no such folder" },
  { what: "a configuration without sizes, to init", plant: put("bad.json", '{"model_type": "llama"}'), args: ["init", "bad.json", "--output_dir", "new"], code: 3, says: /vocab_size must be a whole number from 1 to 16777216, got nothing$/ },
]);

function headerLength(length: bigint): Plant {
  return (dir) => {
    const bytes = readFileSync(join(dir, FILE));
    bytes.writeBigUInt64LE(length, 0);
    writeFileSync(join(dir, FILE), bytes);
  };
}

function renameTensor(header: Record<string, unknown>): void {
  header["model.embeddings.weight"] = header[EMBED];
  delete header[EMBED];
}

function notANumber(dir: string): void {
  weights((header, data) => void data.writeFloatLE(NaN, header["model.norm.weight"]!.data_offsets[0]))(dir);
}

/** The weights as a shard with an index, whose map `change` alters. */
function shards(change: Record<string, string>): Plant {
  return (dir) => {
    const shard = "model-00001-of-00002.safetensors";
    weights((header) => {
      const names = Object.keys(header).filter((name) => name !== "__metadata__");
      const weight_map = { ...Object.fromEntries(names.map((name) => [name, shard])), ...change };
      writeFileSync(join(dir, "model/model.safetensors.index.json"), JSON.stringify({ weight_map }));
    })(dir);
    renameSync(join(dir, FILE), join(dir, "model", shard));
  };
}
