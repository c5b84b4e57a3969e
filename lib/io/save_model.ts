// Writes everything of a Hugging Face model folder but the weights' bytes: those the native session writes at the places returned here.
// The base's own config fields and their spelling are kept, so that what loaded the base loads the result.
import { copyFile, open } from "node:fs/promises";
import { join } from "node:path";
import { architectureOf, type Parameter, type TransformerConfig, type WeightDtype } from "../models/config.ts";
import { isObject, readJson, type JsonFile } from "./json.ts";
import { jsonText, withMember } from "./json_text.ts";
import { modelCard, type CardFacts } from "./model_card.ts";
import { floatDtypes, type WeightTransfer } from "./model_folder.ts";
import { layoutSafetensors, type Shard, type TensorSpec } from "./safetensors.ts";
import { writeText, writing } from "./write.ts";

/** Files of a saved model that an earlier model in the same folder may have left: for `writeInto`. */
export const staleModelFile = /^(model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json)$/;

export interface SaveModelOptions {
  /** What to keep from the model that training began with: an OpenedModel is one. */
  readonly base: {
    readonly dir: string;
    readonly configJson: JsonFile;
    readonly config: TransformerConfig;
    readonly tokenizerFiles: readonly string[];
    readonly generationConfig: JsonFile | null;
  };
  readonly parameters: readonly Parameter[];
  readonly dtype: WeightDtype;
  /** The stop tokens that were trained; they become generation_config.eos_token_id. Empty keeps the base's. */
  readonly stopTokenIds: readonly number[];
  /** The template that was trained with, where it is not the one in the tokenizer folder. */
  readonly chatTemplate?: string | null;
  /** Where the tokenizer files lie, if not in the base's folder. */
  readonly tokenizerDir?: string;
  readonly card: CardFacts;
  readonly maxShardBytes?: number;
  readonly bufferPrefix?: string;
}

/**
 * Writes config.json, generation_config.json, tokenizer files, README.md and safetensors files with their headers (tensors still zero)
 * into the existing folder `dir`. Returns the native writes that fill them. Throws WriteError.
 */
export async function saveModelFiles(dir: string, options: SaveModelOptions): Promise<WeightTransfer[]> {
  const { base, parameters, dtype } = options;
  await writeText(join(dir, "config.json"), configText(base.configJson, base.config, dtype));
  await writeText(join(dir, "generation_config.json"), generationText(base, options.stopTokenIds));
  await copyTokenizer(dir, options.tokenizerDir ?? base.dir, base.tokenizerFiles, options.chatTemplate ?? null);
  await writeText(join(dir, "README.md"), modelCard(options.card));
  const shardOption = options.maxShardBytes === undefined ? {} : { maxShardBytes: options.maxShardBytes };
  const layout = layoutSafetensors(tensorSpecs(parameters, dtype), shardOption);
  await createShards(dir, layout.shards);
  if (layout.index !== null) await writeText(join(dir, "model.safetensors.index.json"), layout.index);
  return weightWrites(dir, layout.shards, parameters, dtype, options.bufferPrefix);
}

/** Checkpoint tensors of the parameters, all of one dtype, in order. */
export function tensorSpecs(parameters: readonly Parameter[], dtype: WeightDtype): TensorSpec[] {
  return parameters.flatMap((p) =>
    p.parts.map(({ tensor, rows }) => ({
      name: tensor,
      dtype: floatDtypes[dtype],
      shape: [rows, ...p.shape.slice(1)],
    })),
  );
}

/** Creates each file at its full size with its header in place. Throws WriteError. */
export async function createShards(dir: string, shards: readonly Shard[]): Promise<void> {
  for (const shard of shards) {
    const path = join(dir, shard.file);
    await writing(path, async () => {
      const handle = await open(path, "w");
      try {
        await handle.write(shard.headerBytes, 0, shard.headerBytes.length, 0);
        await handle.truncate(shard.size);
      } finally {
        await handle.close();
      }
    });
  }
}

/** What writes the buffers of `parameters` into files laid out by `layoutSafetensors`; `prefix` is the buffers' class. */
export function weightWrites(
  dir: string,
  shards: readonly Shard[],
  parameters: readonly Parameter[],
  dtype: WeightDtype,
  prefix = "weights/",
): WeightTransfer[] {
  const places = new Map(
    shards.flatMap((s) => s.tensors.map((t) => [t.name, { path: join(dir, s.file), offset: t.offset }] as const)),
  );
  return parameters.flatMap((parameter) => {
    let rowStart = 0;
    return parameter.parts.map(({ tensor, rows }) => {
      const place = places.get(tensor);
      if (place === undefined) throw new Error(`the layout must hold ${tensor}`);
      const write = {
        buffer: prefix + parameter.name,
        rowStart,
        rows,
        path: place.path,
        fileOffset: place.offset,
        fileDtype: dtype,
      };
      rowStart += rows;
      return write;
    });
  });
}

/** config.json with the dtype that is stored, in the base's spelling, and with `architectures`, which vLLM and converters need. */
function configText(base: JsonFile, config: TransformerConfig, dtype: WeightDtype): string {
  const fields = isObject(base.value) ? base.value : {};
  let text = base.text;
  if (!Array.isArray(fields["architectures"]))
    text = withMember(text, "architectures", [architectureOf(config.family)]);
  for (const key of ["dtype", "torch_dtype"]) if (key in fields) text = withMember(text, key, dtype);
  if (!("dtype" in fields) && !("torch_dtype" in fields)) {
    text = withMember(text, "rope_parameters" in fields ? "dtype" : "torch_dtype", dtype);
  }
  return text;
}

function generationText(base: SaveModelOptions["base"], stopTokenIds: readonly number[]): string {
  const config = isObject(base.configJson.value) ? base.configJson.value : {};
  const eos =
    stopTokenIds.length === 1
      ? stopTokenIds[0]
      : stopTokenIds.length > 1
        ? stopTokenIds
        : (config["eos_token_id"] ?? null);
  const old = base.generationConfig;
  if (old !== null && isObject(old.value))
    return stopTokenIds.length === 0 ? old.text : withMember(old.text, "eos_token_id", eos);
  const fields = {
    bos_token_id: config["bos_token_id"] ?? null,
    eos_token_id: eos,
    pad_token_id: config["pad_token_id"] ?? null,
  };
  return jsonText(Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)));
}

async function copyTokenizer(
  dir: string,
  from: string,
  names: readonly string[],
  chatTemplate: string | null,
): Promise<void> {
  let placed = false;
  for (const name of names) {
    if (chatTemplate !== null && name === "tokenizer_config.json") {
      const file = await readJson(join(from, name));
      // The base keeps its template here (transformers 4): so does the result.
      if (isObject(file.value) && "chat_template" in file.value && !names.includes("chat_template.jinja")) {
        await writeText(join(dir, name), withMember(file.text, "chat_template", chatTemplate));
        placed = true;
        continue;
      }
    }
    if (chatTemplate !== null && name.startsWith("chat_template.")) continue;
    await writing(join(dir, name), () => copyFile(join(from, name), join(dir, name)));
  }
  if (chatTemplate !== null && !placed) await writeText(join(dir, "chat_template.jinja"), chatTemplate);
}
