// A Hugging Face model folder, opened: config.json, safetensors headers, tokenizer files, generation_config.json. Opening checks that the
// tensors are exactly those that the configuration needs; no weight is read here.
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { DataError } from "../errors.ts";
import { parameters, parseConfig, type Parameter, type TransformerConfig, type WeightDtype } from "../models/config.ts";
import { errorCode, readError, readJson, readJsonIfPresent, show, type JsonFile } from "./json.ts";
import { parseSafetensorsIndex, readSafetensorsHeader, type FloatDtype, type StoredTensor } from "./safetensors.ts";

export interface OpenedModel {
  readonly dir: string;
  /** config.json as read: its text is what saving edits. */
  readonly configJson: JsonFile;
  readonly config: TransformerConfig;
  /** Every tensor of the checkpoint by name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** The dtype that most of the weights' bytes have on disk. */
  readonly checkpointDtype: WeightDtype;
  /** Names of the tokenizer and chat template files in the folder. */
  readonly tokenizerFiles: readonly string[];
  readonly generationConfig: JsonFile | null;
}

/** One native read: `rows` rows from `rowStart` of a buffer; a row is what follows the first dimension (one element in a vector). */
export interface WeightTransfer {
  readonly buffer: string;
  readonly rowStart: number;
  readonly rows: number;
  readonly path: string;
  readonly fileOffset: number;
  readonly fileDtype: WeightDtype;
}

export const floatNames = { F32: "float32", BF16: "bfloat16", F16: "float16" } as const satisfies Record<
  FloatDtype,
  WeightDtype
>;
export const floatDtypes = { float32: "F32", bfloat16: "BF16", float16: "F16" } as const satisfies Record<
  WeightDtype,
  FloatDtype
>;

const tokenizerNames =
  `tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt
  tokenizer.model chat_template.jinja chat_template.json`.split(/\s+/);

/** Tensors that old checkpoints carry and that follow from the configuration. */
const derivedTensor = /(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$/;

/** Opens and checks a model folder. Throws DataError that names the file, field or tensor. */
export async function openModel(dir: string): Promise<OpenedModel> {
  const names = await listFolder(dir);
  if (!names.includes("config.json")) {
    throw new DataError(`${dir}: must hold config.json (a Hugging Face model folder), got ${show(names.slice(0, 8))}`);
  }
  const configJson = await readJson(join(dir, "config.json"), { maxBytes: 2 ** 22 });
  const config = parseConfig(configJson.value, dir);
  const tensors = await readCheckpoint(dir, names);
  const needed = parameters(config);
  checkTensors(dir, config, needed, tensors);
  await checkTiedHead(dir, config, tensors);
  return {
    dir,
    configJson,
    config,
    tensors,
    checkpointDtype: mostCommonDtype(needed, tensors),
    tokenizerFiles: tokenizerNames.filter((name) => names.includes(name)),
    generationConfig: await readJsonIfPresent(join(dir, "generation_config.json"), { maxBytes: 2 ** 22 }),
  };
}

/** Tokenizer and chat template files of a folder, which need not be a whole model. Throws DataError where there is no folder. */
export async function tokenizerFilesOf(dir: string): Promise<string[]> {
  const names = await listFolder(dir);
  return tokenizerNames.filter((name) => names.includes(name));
}

async function listFolder(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (errorCode(error) === "ENOENT")
      throw new DataError(`${dir}: must be a model folder, got no such folder`, { cause: error });
    if (errorCode(error) === "ENOTDIR")
      throw new DataError(`${dir}: must be a model folder, got a file`, { cause: error });
    throw readError(dir, error);
  }
}

/** All headers of a folder, single file or shards. As in transformers, model.safetensors wins over an index beside it. */
export async function readCheckpoint(dir: string, names: readonly string[]): Promise<Map<string, StoredTensor>> {
  if (names.includes("model.safetensors")) return readSafetensorsHeader(join(dir, "model.safetensors"));
  const indexName = "model.safetensors.index.json";
  if (!names.includes(indexName)) {
    const other = names.find((name) => /\.(bin|pth?|gguf)$/.test(name) || name === "consolidated.safetensors");
    const mend =
      other === undefined ? "" : ` (${other} is another format: save the model with transformers to convert it)`;
    throw new DataError(`${dir}: must hold model.safetensors or ${indexName}, got neither${mend}`);
  }
  const indexPath = join(dir, indexName);
  const { files, weightMap } = parseSafetensorsIndex((await readJson(indexPath)).value, indexPath);
  const tensors = new Map<string, StoredTensor>();
  for (const file of files) {
    if (!names.includes(file)) throw new DataError(`${dir}: must hold every shard of ${indexName}, got none named ${file} (download it)`);
    for (const [name, tensor] of await readSafetensorsHeader(join(dir, file))) {
      const other = tensors.get(name);
      if (other !== undefined)
        throw new DataError(`${dir}: tensor ${show(name)} must be in one shard, got ${other.file} and ${file}`);
      tensors.set(name, tensor);
    }
  }
  for (const [name, file] of weightMap) {
    if (tensors.get(name)?.file !== join(dir, file)) {
      throw new DataError(`${indexPath}: tensor ${show(name)} must be in ${file}, got none there`);
    }
  }
  return tensors;
}

function checkTensors(
  dir: string,
  config: TransformerConfig,
  needed: readonly Parameter[],
  tensors: ReadonlyMap<string, StoredTensor>,
) {
  const expected = new Set<string>();
  for (const parameter of needed) {
    for (const { tensor, rows } of parameter.parts) {
      expected.add(tensor);
      const stored = tensors.get(tensor);
      const shape = [rows, ...parameter.shape.slice(1)];
      if (stored === undefined)
        throw new DataError(`${dir}: must hold tensor ${tensor} ${show(shape)} by its config.json, got none`);
      checkTensor(tensor, stored, shape);
    }
  }
  if (config.tieWordEmbeddings && tensors.has("lm_head.weight")) {
    expected.add("lm_head.weight");
    checkTensor("lm_head.weight", tensors.get("lm_head.weight")!, [config.vocabSize, config.hiddenSize]);
  }
  const extra = [...tensors.keys()].filter((name) => !expected.has(name) && !derivedTensor.test(name));
  if (extra.length > 0) {
    const some = extra.slice(0, 3).map(show).join(", ") + (extra.length > 3 ? ` and ${extra.length - 3} more` : "");
    throw new DataError(
      `${dir}: must hold the tensors of its config.json and no others, got ${some} (do the two belong together?)`,
    );
  }
}

function checkTensor(name: string, stored: StoredTensor, shape: readonly number[]): void {
  if (!(stored.dtype in floatNames)) {
    throw new DataError(
      `${stored.file}: tensor ${name} must be F32, BF16 or F16, got ${stored.dtype} (quantised weights are not read)`,
    );
  }
  if (show(stored.shape) !== show(shape)) {
    throw new DataError(
      `${stored.file}: tensor ${name} must have shape ${show(shape)} by config.json, got ${show(stored.shape)}`,
    );
  }
}

/** transformers 4 ties in any case, transformers 5 only if both tensors are equal: attune takes the file only where they agree. */
async function checkTiedHead(
  dir: string,
  config: TransformerConfig,
  tensors: ReadonlyMap<string, StoredTensor>,
): Promise<void> {
  const head = tensors.get("lm_head.weight");
  if (!config.tieWordEmbeddings || head === undefined) return;
  if (await sameBytes(head, tensors.get("model.embed_tokens.weight")!)) return;
  const must = "lm_head.weight must equal model.embed_tokens.weight where tie_word_embeddings is true";
  throw new DataError(`${dir}: ${must}, got other values (set tie_word_embeddings to false to keep both)`);
}

async function sameBytes(a: StoredTensor, b: StoredTensor): Promise<boolean> {
  if (a.dtype !== b.dtype || a.bytes !== b.bytes) return false;
  const chunk = 2 ** 20;
  const buffers = [Buffer.alloc(chunk), Buffer.alloc(chunk)] as const;
  const files = [await open(a.file, "r"), await open(b.file, "r")] as const;
  try {
    for (let at = 0; at < a.bytes; at += chunk) {
      const n = Math.min(chunk, a.bytes - at);
      await Promise.all([
        files[0].read(buffers[0], 0, n, a.offset + at),
        files[1].read(buffers[1], 0, n, b.offset + at),
      ]);
      if (buffers[0].compare(buffers[1], 0, n, 0, n) !== 0) return false;
    }
    return true;
  } finally {
    await Promise.all(files.map((file) => file.close()));
  }
}

function mostCommonDtype(needed: readonly Parameter[], tensors: ReadonlyMap<string, StoredTensor>): WeightDtype {
  const bytes = { F32: 0, BF16: 0, F16: 0 };
  for (const { tensor } of needed.flatMap((p) => p.parts)) {
    const stored = tensors.get(tensor)!;
    bytes[stored.dtype as FloatDtype] += stored.bytes;
  }
  const order = ["F32", "BF16", "F16"] as const;
  return floatNames[order.reduce((best, d) => (bytes[d] > bytes[best] ? d : best))];
}

/** What fills the buffers of `list` from the checkpoint; `prefix` is the buffers' class. */
export function weightReads(model: OpenedModel, list: readonly Parameter[], prefix = "weights/"): WeightTransfer[] {
  return list.flatMap((parameter) => {
    let rowStart = 0;
    return parameter.parts.map(({ tensor, rows }) => {
      const stored = model.tensors.get(tensor);
      if (stored === undefined) throw new DataError(`${model.dir}: must hold tensor ${tensor}, got none`);
      const fileDtype = floatNames[stored.dtype as FloatDtype];
      const read = {
        buffer: prefix + parameter.name,
        rowStart,
        rows,
        path: stored.file,
        fileOffset: stored.offset,
        fileDtype,
      };
      rowStart += rows;
      return read;
    });
  });
}
