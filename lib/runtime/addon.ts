// The native addon: its typed face, where it is found, and how its errors become ours.
import { existsSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import {
  AttuneError,
  ConfigError,
  DataError,
  DeviceError,
  OutOfMemoryError,
  ShapeError,
  StateError,
  WriteError,
} from "../errors.ts";

/** Elements on this side: float32, int32, or bfloat16 bits. */
export type HostArray = Float32Array | Int32Array | Uint16Array;

export interface NativeBuffer {
  readonly name: string;
  /** Belongs to one program (`inputs/`, `outputs/`); the others are shared by name. */
  readonly private: boolean;
  /** May have packed copies, which `derivedBytes` counts. */
  readonly weight: boolean;
  /** Lies in another buffer, which counts its bytes. */
  readonly part: boolean;
  readonly dtype: "float32" | "bfloat16" | "int32";
  /** At capacity. */
  readonly shape: readonly number[];
  readonly bytes: number;
}

export interface NativeProgram {
  readonly id: number;
  readonly arenaBytes: number;
  readonly dims: readonly { readonly name: string; readonly capacity: number }[];
  readonly buffers: readonly NativeBuffer[];
  readonly instructions: readonly { readonly op: string; readonly name: string }[];
}

export interface NativeSlice {
  readonly buffer: string;
  readonly rowStart: number;
  readonly rows: number;
  readonly file: string | number;
  readonly fileOffset: number;
  readonly fileDtype: string;
}

/** The most that a device does, measured: floating-point operations a second on each dtype, bytes read and written a second by a copy. */
export interface Peak {
  readonly float32: number;
  readonly bfloat16: number;
  readonly copy: number;
}

/** What a build's CUDA side found; `why` is empty where the first GPU can be used, and a GPU's own where it can. */
export interface Gpus {
  /** As CUDA writes versions: 13000 is 13.0. driver 0: there is none. */
  readonly driver: number;
  readonly runtime: number;
  readonly why: string;
  /** cuBLASLt and its version, or why there is none. */
  readonly products: string;
  readonly found: readonly { readonly name: string; readonly capability: string; readonly memory: number; readonly free: number; readonly why: string }[];
}

/** An open session, known to the addon alone. */
export type Handle = object & { readonly __session: never };

/** What native/addon/addon.cc exports. Nothing here waits for compute: work is queued on the session's thread. */
export interface Addon {
  readonly version: number;
  readonly tableHash: number;
  readonly ops: readonly string[];
  readonly devices: readonly string[];
  open(options: { device: string; threads: number; hugePages: boolean; dry: boolean; named: boolean }): Handle;
  sizes(h: Handle): { device: string; threads: number; threadBytes: number; arenaBytes: number; derivedBytes: number; bufferBytes: number; deviceBytes: number; deviceMemory: number; fusesHead: boolean };
  load(h: Handle, program: Uint8Array): Promise<NativeProgram>;
  unload(h: Handle, program: number): Promise<void>;
  run(
    h: Handle,
    token: number,
    program: number,
    counts: readonly number[],
    inputNames: readonly string[],
    inputs: readonly HostArray[],
    outputNames: readonly string[],
    /** For each output where it goes, or undefined; the caller holds on to it until the promise settles. */
    into: readonly (HostArray | undefined)[],
    /** A buffer whose content counts as zeros, or "". */
    overwrite: string,
    /** 0 not, 1 each instruction as it comes, 2 among repeats of itself. */
    timing: number,
  ): Promise<(HostArray | number)[]>;
  profile(h: Handle, program: number, reset: boolean): Promise<Float64Array>;
  peak(h: Handle): Promise<Peak>;
  write(h: Handle, buffer: string, from: HostArray, rowStart: number): Promise<void>;
  read(h: Handle, buffer: string, rowStart: number, rows: number): Promise<HostArray>;
  zero(h: Handle, buffer: string): Promise<void>;
  hash(h: Handle, buffer: string): Promise<string>;
  countNonfinite(h: Handle, buffer: string): Promise<number>;
  readFiles(h: Handle, token: number, slices: readonly NativeSlice[]): Promise<void>;
  writeFiles(h: Handle, token: number, slices: readonly NativeSlice[]): Promise<void>;
  cancel(h: Handle, token: number): void;
  close(h: Handle): Promise<void>;
  scratch(device: string, instruction: Uint8Array): number;
  device(name: string): string;
  cpuInfo(): { level: string; levels: string[]; threads: number };
  compiler(): string;
  gpus(): Gpus | undefined;
  peakRss(): number;
  choices(h: Handle): Promise<string>;
  adopt(h: Handle, choices: string): Promise<boolean>;
}

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const require = createRequire(import.meta.url);
let loaded: Addon | undefined;

/** The newest build among the places where builds go. `ATTUNE_ADDON` names another file, such as a sanitizer build's. */
export function findAddon(): string {
  const given = process.env["ATTUNE_ADDON"];
  if (given) return path.resolve(given);
  const built = ["build-cuda", "build-cmake", "build"]
    .map((folder) => path.join(root, folder, "Release", "attune.node"))
    .filter((file) => existsSync(file))
    .map((file) => ({ file, time: statSync(file).mtimeMs }))
    .sort((a, b) => b.time - a.time)[0];
  if (built === undefined) throw new DeviceError(`native addon: must be built, found none (${mend()} builds it)`);
  return built.file;
}

const mend = (): string => (existsSync(path.join(root, "tsconfig.json")) ? "`npm run build`" : "`npm rebuild attune`");

/**
 * The addon, loaded once per thread. `tableHash` is the op table's, as lib/program computes it.
 * Throws DeviceError where it is missing, does not load, or was built for another op table; the message says what mends it.
 */
export function loadAddon(tableHash?: number): Addon {
  if (loaded === undefined) {
    const file = findAddon();
    try {
      loaded = require(file) as Addon;
    } catch (cause) {
      const why = (cause instanceof Error ? cause.message : String(cause)).split("\n")[0];
      throw new DeviceError(`native addon: ${file} must load, got an error: ${why} (${mend()} builds it anew)`, { cause });
    }
  }
  if (tableHash !== undefined && tableHash !== loaded.tableHash) {
    throw new DeviceError(
      `native addon: must be built for op table ${tableHash}, got ${loaded.tableHash} (${mend()} builds it anew)`,
    );
  }
  return loaded;
}

const classes = {
  config: ConfigError,
  data: DataError,
  shape: ShapeError,
  memory: OutOfMemoryError,
  device: DeviceError,
  write: WriteError,
  state: StateError,
} as const;

/** The error of lib/errors.ts that a native error stands for; anything else comes back as it is. */
export function typedError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof AttuneError) return error;
  const kind = (error as Error & { kind?: string }).kind;
  if (kind === undefined) return error;
  const Class = classes[kind as keyof typeof classes];
  return Class ? new Class(error.message) : error;
}

/** Calls the addon; what it throws, now or later, becomes typed. */
export function typed<T>(call: () => T): T {
  try {
    const value = call();
    if (value instanceof Promise) return value.catch((error: unknown) => Promise.reject(typedError(error))) as T;
    return value;
  } catch (error) {
    throw typedError(error);
  }
}
