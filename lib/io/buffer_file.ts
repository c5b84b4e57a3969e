// Named session buffers (optimiser moments, master weights) in safetensors files: the same writer as weights, one tensor per buffer.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { DataError } from "../errors.ts";
import { floatDtypes, floatNames, type WeightTransfer } from "./model_folder.ts";
import { createShards } from "./save_model.ts";
import {
  layoutSafetensors,
  parseSafetensorsIndex,
  readSafetensorsHeader,
  type FloatDtype,
  type StoredTensor,
} from "./safetensors.ts";
import { readError, readJson, show } from "./json.ts";
import { writeText } from "./write.ts";
import type { WeightDtype } from "../models/config.ts";

/** A buffer of the session; `name` with its class, the tensor's name in the file. */
export interface BufferSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: WeightDtype;
}

/** Creates `<stem>.safetensors` (or shards with an index) in `dir` and returns the native writes that fill it. Throws WriteError. */
export async function createBufferFile(
  dir: string,
  stem: string,
  buffers: readonly BufferSpec[],
  options: { readonly maxShardBytes?: number } = {},
): Promise<WeightTransfer[]> {
  const specs = buffers.map(({ name, shape, dtype }) => ({ name, shape, dtype: floatDtypes[dtype] }));
  const { shards, index } = layoutSafetensors(specs, { ...options, stem });
  await createShards(dir, shards);
  if (index !== null) await writeText(join(dir, `${stem}.safetensors.index.json`), index);
  return shards.flatMap((shard) =>
    shard.tensors.map((t) => ({
      buffer: t.name,
      rowStart: 0,
      rows: t.shape[0] ?? 1,
      path: join(dir, shard.file),
      fileOffset: t.offset,
      fileDtype: floatNames[t.dtype],
    })),
  );
}

/** The native reads that fill `buffers` from what `createBufferFile` made. Throws DataError: a buffer is missing or has another shape or dtype. */
export async function bufferReads(
  dir: string,
  stem: string,
  buffers: readonly BufferSpec[],
): Promise<WeightTransfer[]> {
  const tensors = await readAll(dir, stem);
  return buffers.map(({ name, shape, dtype }) => {
    const stored = tensors.get(name);
    if (stored === undefined) throw new DataError(`${join(dir, stem)}.safetensors: must hold ${name}, got none`);
    if (show(stored.shape) !== show(shape) || floatNames[stored.dtype as FloatDtype] !== dtype) {
      throw new DataError(
        `${stored.file}: ${name} must be ${dtype} ${show(shape)}, got ${stored.dtype} ${show(stored.shape)}`,
      );
    }
    return {
      buffer: name,
      rowStart: 0,
      rows: shape[0] ?? 1,
      path: stored.file,
      fileOffset: stored.offset,
      fileDtype: dtype,
    };
  });
}

async function readAll(dir: string, stem: string): Promise<Map<string, StoredTensor>> {
  let names: string[];
  try {
    names = await readdir(dir);
  } catch (error) {
    throw readError(dir, error);
  }
  if (names.includes(`${stem}.safetensors`)) return readSafetensorsHeader(join(dir, `${stem}.safetensors`));
  const index = join(dir, `${stem}.safetensors.index.json`);
  const { files } = parseSafetensorsIndex((await readJson(index)).value, index);
  const all = new Map<string, StoredTensor>();
  for (const file of files)
    for (const [name, tensor] of await readSafetensorsHeader(join(dir, file))) all.set(name, tensor);
  return all;
}
