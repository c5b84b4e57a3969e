// A random model from a config.json and a tokenizer folder, for `attune init`: the initialisation of transformers (normal(0,
// initializer_range) for matrices, ones for norms, zeros for biases and the padding row), by a counter-based generator.
import { mkdir, open } from "node:fs/promises";
import { basename } from "node:path";
import { ConfigError } from "../errors.ts";
import { parameters, parseConfig, type Parameter, type TransformerConfig, type WeightDtype } from "../models/config.ts";
import { writeInto } from "./atomic_folder.ts";
import { floatBytes } from "./float_bytes.ts";
import { readJson } from "./json.ts";
import { tokenizerFilesOf } from "./model_folder.ts";
import { normals, streamOf } from "./philox.ts";
import { saveModelFiles, staleModelFile } from "./save_model.ts";
import { writing } from "./write.ts";

export interface InitialValues {
  /** Elements [start, start + values.length) of the parameter, row-major. The array is reused by the next chunk. */
  readonly start: number;
  readonly values: Float32Array;
}

/**
 * The initial values of one parameter in chunks of at most `chunk` elements (a multiple of 4). A value depends on seed, checkpoint tensor
 * name and index alone: not on chunks, on other parameters or on how tensors are fused. Logarithm and sine are V8's own, the same on every
 * machine for a given Node. `seed` is a whole number from 0 to 2^53 - 1.
 */
export function* initialValues(
  config: TransformerConfig,
  parameter: Parameter,
  seed: number,
  chunk = 2 ** 16,
): Generator<InitialValues> {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new ConfigError(`seed: must be a whole number from 0 to 2^53 - 1, got ${seed}`);
  }
  const columns = parameter.shape.slice(1).reduce((product, n) => product * n, 1);
  const padding = parameter.name === "model.embed_tokens.weight" ? config.padTokenId : null;
  const buffer = new Float32Array(chunk);
  let before = 0;
  for (const { tensor, rows } of parameter.parts) {
    const count = rows * columns;
    const stream = streamOf(tensor);
    for (let at = 0; at < count; at += chunk) {
      const values = buffer.subarray(0, Math.min(chunk, count - at));
      if (parameter.init !== "normal") values.fill(parameter.init === "ones" ? 1 : 0);
      else normals(values, at, config.initializerRange, seed, stream);
      if (padding !== null)
        values.fill(0, Math.max(0, padding * columns - at), Math.max(0, (padding + 1) * columns - at));
      yield { start: before + at, values };
    }
    before += count;
  }
}

/** What a random model is made from. */
export interface InitOptions {
  /** A config.json in either spelling. */
  readonly configPath: string;
  /** Folder whose tokenizer files are copied; null copies none. */
  readonly tokenizerDir: string | null;
  readonly outputDir: string;
  readonly seed: number;
  /** Default: the config's own. */
  readonly dtype?: WeightDtype;
  readonly version: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (writtenElements: number, totalElements: number) => void;
}

/**
 * Writes a whole model folder with random weights, all of it or nothing: config.json appears last. Throws DataError for the inputs,
 * WriteError for the output; an abort rejects with its reason. Returns the number of parameters.
 */
export async function initModel(options: InitOptions): Promise<number> {
  const { configPath, tokenizerDir, outputDir, seed } = options;
  const configJson = await readJson(configPath, { maxBytes: 2 ** 22 });
  const config = parseConfig(configJson.value, configPath.replace(/[\\/]?config\.json$/, "") || ".");
  const list = parameters(config);
  const dtype = options.dtype ?? config.dtype;
  const tokenizerFiles = tokenizerDir === null ? [] : await tokenizerFilesOf(tokenizerDir);
  const total = list.reduce((sum, p) => sum + p.shape.reduce((product, n) => product * n, 1), 0);
  await writing(outputDir, () => mkdir(outputDir, { recursive: true }));
  const write = async (dir: string): Promise<void> => {
    const base = { dir: tokenizerDir ?? dir, configJson, config, tokenizerFiles, generationConfig: null };
    const card = {
      task: "init",
      baseModel: basename(outputDir),
      version: options.version,
      settings: [["seed", String(seed)]] as const,
    };
    const writes = await saveModelFiles(dir, { base, parameters: list, dtype, stopTokenIds: [], card });
    let done = 0;
    for (const parameter of list) {
      const places = writes.filter((w) => w.buffer === `weights/${parameter.name}`);
      for await (const written of writeParameter(config, parameter, seed, dtype, places)) {
        options.signal?.throwIfAborted();
        options.onProgress?.((done += written), total);
      }
    }
  };
  await writeInto(outputDir, write, { last: "config.json", stale: staleModelFile });
  return total;
}

async function* writeParameter(
  config: TransformerConfig,
  parameter: Parameter,
  seed: number,
  dtype: WeightDtype,
  places: readonly {
    readonly path: string;
    readonly fileOffset: number;
    readonly rowStart: number;
    readonly rows: number;
  }[],
): AsyncGenerator<number> {
  const columns = parameter.shape.slice(1).reduce((product, n) => product * n, 1);
  const size = dtype === "float32" ? 4 : 2;
  for (const { start, values } of initialValues(config, parameter, seed)) {
    const place = places.find((p) => start >= p.rowStart * columns && start < (p.rowStart + p.rows) * columns)!;
    const bytes = floatBytes(values, dtype);
    const offset = place.fileOffset + (start - place.rowStart * columns) * size;
    await writing(place.path, async () => {
      const file = await open(place.path, "r+");
      try {
        await file.write(bytes, 0, bytes.length, offset);
      } finally {
        await file.close();
      }
    });
    yield values.length;
  }
}
