// The safetensors format: reading headers of files from strangers, and laying out files to write. Tensor bytes are never touched here:
// the native session reads and writes them at the offsets that this file gives.
// Format: 8 bytes little-endian header length, the header as JSON, then the tensors' bytes without holes or overlaps.
import { open, stat } from "node:fs/promises";
import { basename } from "node:path";
import { DataError } from "../errors.ts";
import { isObject, parseJson, readError, show } from "./json.ts";
import { members, duplicateKey } from "./json_text.ts";

/** A tensor in a file: `offset` counts from the start of the file. */
export interface StoredTensor {
  readonly file: string;
  readonly offset: number;
  readonly bytes: number;
  /** The format's name: "F32", "BF16", "F16", and others that no weight of ours has. */
  readonly dtype: string;
  readonly shape: readonly number[];
}

/** Longest header read. The reference allows 100 MB; the largest published ones stay under 2 MB. */
export const maxHeaderBytes = 16 * 2 ** 20;

const dtypeBits: ReadonlyMap<string, number> = new Map(
  Object.entries({
    F4: 4, F6_E2M3: 6, F6_E3M2: 6, BOOL: 8, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, I16: 16, U16: 16,
    F16: 16, BF16: 16, I32: 32, U32: 32, F32: 32, C64: 64, F64: 64, I64: 64, U64: 64,
  }), // prettier-ignore
);

/** Bytes per element of a dtype that attune stores. */
export const dtypeBytes = { F32: 4, BF16: 2, F16: 2 } as const;
export type FloatDtype = keyof typeof dtypeBytes;

/** Reads the header of one file. Throws DataError, naming the file, on anything that the format does not allow. */
export async function readSafetensorsHeader(path: string): Promise<Map<string, StoredTensor>> {
  let handle;
  try {
    const info = await stat(path);
    if (!info.isFile()) throw new DataError(`${path}: must be a plain file, got ${info.isDirectory() ? "a folder" : "something else"}`);
    handle = await open(path, "r");
    const { size } = await handle.stat();
    const prefix = Buffer.alloc(8);
    const got = (await handle.read(prefix, 0, 8, 0)).bytesRead;
    const length = headerLength(prefix.subarray(0, got), size, path);
    const header = Buffer.alloc(length);
    const read = (await handle.read(header, 0, length, 8)).bytesRead;
    if (read < length)
      throw new DataError(`${path}: must hold a header of ${length} bytes, got ${read} (the file is cut short)`);
    return parseSafetensorsHeader(header, size, path);
  } catch (error) {
    throw readError(path, error);
  } finally {
    await handle?.close();
  }
}

function headerLength(prefix: Uint8Array, size: number, path: string): number {
  if (prefix.length < 8) throw new DataError(`${path}: must be a safetensors file of at least 8 bytes, got ${size} (download it again)`);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  const most = Math.min(maxHeaderBytes, size - 8);
  if (length < 2n || length > BigInt(Math.max(most, 0))) {
    const mend = "it is cut short, or no safetensors file at all: download it again";
    throw new DataError(
      `${path}: header length must be from 2 to ${most} in a file of ${size} bytes, got ${length} (${mend})`,
    );
  }
  return Number(length);
}

/** Checks a header's JSON against the size of its file, in bytes. `path` becomes each tensor's file and stands in messages. */
export function parseSafetensorsHeader(header: Uint8Array, fileSize: number, path: string): Map<string, StoredTensor> {
  if (header[0] !== 0x7b) throw new DataError(`${path}: header must begin with "{", got ${show(String.fromCharCode(header[0] ?? 0))} (this is no safetensors file)`);
  const { text, value } = parseJson(header, `${path} (header)`);
  if (!isObject(value)) throw new DataError(`${path}: header must be a JSON object, got ${show(value)}`);
  const twice = duplicateKey(text);
  if (twice !== null) throw new DataError(`${path}: tensor ${show(twice)} must stand once in the header, got it twice`);
  const dataStart = 8 + header.byteLength;
  const tensors = new Map<string, StoredTensor>();
  for (const { key, start } of members(text)) {
    const entry = value[key];
    const inner = isObject(entry) ? duplicateKey(text, start) : null;
    if (inner !== null) throw new DataError(`${path}: ${show(key)} must hold ${show(inner)} once, got it twice`);
    if (key === "__metadata__") checkMetadata(entry, path);
    else tensors.set(key, parseEntry(key, entry, dataStart, path));
  }
  checkCover([...tensors], dataStart, fileSize, path);
  return tensors;
}

function checkMetadata(entry: unknown, path: string): void {
  if (!isObject(entry) || Object.values(entry).some((v) => typeof v !== "string")) {
    throw new DataError(`${path}: __metadata__ must map names to strings, got ${show(entry)}`);
  }
}

function parseEntry(name: string, entry: unknown, dataStart: number, path: string): StoredTensor {
  const what = `${path}: tensor ${show(name)}`;
  if (!isObject(entry)) throw new DataError(`${what}: must be an object, got ${show(entry)}`);
  const { dtype, shape, data_offsets: offsets } = entry;
  const bits = typeof dtype === "string" ? dtypeBits.get(dtype) : undefined;
  if (typeof dtype !== "string" || bits === undefined) {
    throw new DataError(`${what}: dtype must be one that safetensors has (F32, BF16, F16, ...), got ${show(dtype)}`);
  }
  if (!isCounts(shape) || shape.length > 16)
    throw new DataError(`${what}: shape must be a list of sizes, got ${show(shape)}`);
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
    throw new DataError(`${what}: data_offsets must be [begin, end], got ${show(offsets)}`);
  }
  const [begin, end] = offsets as [number, number];
  const need = shape.reduce((product, n) => product * BigInt(n), BigInt(bits));
  if (need !== BigInt(end - begin) * 8n) {
    throw new DataError(
      `${what}: ${dtype} ${show(shape)} must take ${need / 8n} bytes, got data_offsets ${show(offsets)}`,
    );
  }
  return { file: path, offset: dataStart + begin, bytes: end - begin, dtype, shape };
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && (n as number) >= 0 && !Object.is(n, -0));
}

/** The format wants every byte of the data covered exactly once. */
function checkCover(tensors: [string, StoredTensor][], dataStart: number, fileSize: number, path: string): void {
  tensors.sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataStart;
  for (const [name, tensor] of tensors) {
    if (tensor.offset !== end) {
      const how = tensor.offset < end ? "overlaps the tensor before it" : "leaves a hole before it";
      throw new DataError(`${path}: tensor ${show(name)} must begin at byte ${end}, got ${tensor.offset} (it ${how})`);
    }
    end += tensor.bytes;
  }
  if (end !== fileSize) {
    const how = end > fileSize ? "it is cut short: download it again" : "bytes that no tensor owns follow";
    throw new DataError(`${path}: must be ${end} bytes by its header, got ${fileSize} (${how})`);
  }
}

/** Files named by a model.safetensors.index.json, in order of first mention, and the file of each tensor. Throws DataError. */
export function parseSafetensorsIndex(
  value: unknown,
  path: string,
): { files: string[]; weightMap: Map<string, string> } {
  const map = isObject(value) ? value["weight_map"] : undefined;
  if (!isObject(map))
    throw new DataError(`${path}: weight_map must be an object that maps tensors to files, got ${show(map)}`);
  const weightMap = new Map<string, string>();
  for (const [tensor, file] of Object.entries(map)) {
    // A name from a download must not lead out of the folder.
    if (
      typeof file !== "string" ||
      !/^[^/\\\0]+\.safetensors$/.test(file) ||
      file !== basename(file) ||
      file.startsWith("..")
    ) {
      const must = "a plain file name in the same folder that ends in .safetensors";
      throw new DataError(`${path}: the file of ${show(tensor)} must be ${must}, got ${show(file)}`);
    }
    weightMap.set(tensor, file);
  }
  const files = [...new Set(weightMap.values())];
  if (files.length === 0) throw new DataError(`${path}: weight_map must name at least one file, got an empty object`);
  if (files.length > 10_000)
    throw new DataError(`${path}: weight_map must name at most 10000 files, got ${files.length}`);
  return { files, weightMap };
}

export interface TensorSpec {
  readonly name: string;
  readonly dtype: FloatDtype;
  readonly shape: readonly number[];
}

/** A file to write: `headerBytes` at 0, each tensor's bytes at its `offset` from the start of the file; `size` is the whole. */
export interface Shard {
  readonly file: string;
  readonly headerBytes: Uint8Array;
  readonly size: number;
  readonly tensors: readonly (TensorSpec & { readonly offset: number; readonly bytes: number })[];
}

/**
 * Lays tensors out in their order over files of at most `maxShardBytes` of data each (default 5 GB; a larger tensor gets its own file).
 * One file is `model.safetensors`; several are `model-00001-of-0000N.safetensors` with `index`, the text of the index file.
 * `stem` replaces "model". Data begin at a multiple of 8 bytes.
 */
export function layoutSafetensors(
  tensors: readonly TensorSpec[],
  options: { readonly maxShardBytes?: number; readonly stem?: string } = {},
): { shards: Shard[]; index: string | null } {
  const most = options.maxShardBytes ?? 5e9;
  const stem = options.stem ?? "model";
  const groups: TensorSpec[][] = [[]];
  let filled = 0;
  for (const tensor of tensors) {
    const bytes = specBytes(tensor);
    if (filled > 0 && filled + bytes > most) {
      groups.push([]);
      filled = 0;
    }
    groups.at(-1)!.push(tensor);
    filled += bytes;
  }
  const number = (n: number) => String(n).padStart(5, "0");
  const shards = groups.map((group, i) => {
    const file =
      groups.length === 1 ? `${stem}.safetensors` : `${stem}-${number(i + 1)}-of-${number(groups.length)}.safetensors`;
    return layoutShard(file, group);
  });
  if (shards.length === 1) return { shards, index: null };
  const total = tensors.reduce((sum, t) => sum + specBytes(t), 0);
  const weightMap = Object.fromEntries(shards.flatMap((s) => s.tensors.map((t) => [t.name, s.file] as const)));
  return { shards, index: JSON.stringify({ metadata: { total_size: total }, weight_map: weightMap }, null, 2) + "\n" };
}

function layoutShard(file: string, specs: readonly TensorSpec[]): Shard {
  const header: [string, unknown][] = [["__metadata__", { format: "pt" }]];
  let at = 0;
  const placed = specs.map((spec) => {
    const bytes = specBytes(spec);
    const offset = at;
    at += bytes;
    header.push([spec.name, { dtype: spec.dtype, shape: spec.shape, data_offsets: [offset, at] }]);
    return { ...spec, offset, bytes };
  });
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const length = Math.ceil(json.length / 8) * 8;
  const headerBytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(headerBytes.buffer).setBigUint64(0, BigInt(length), true);
  headerBytes.set(json, 8);
  const tensors = placed.map((t) => ({ ...t, offset: t.offset + headerBytes.length }));
  return { file, headerBytes, size: headerBytes.length + at, tensors };
}

function specBytes(spec: TensorSpec): number {
  return spec.shape.reduce((product, n) => product * n, dtypeBytes[spec.dtype]);
}
