// A session: one device, its named buffers and the programs that share them. Everything runs on the session's own thread, in
// the order of the calls; JavaScript never waits for it.
import { ConfigError } from "../errors.ts";
import {
  loadAddon,
  typed,
  type Addon,
  type Handle,
  type HostArray,
  type NativeBuffer,
  type NativeProgram,
  type Peak,
} from "./addon.ts";

/** `simt` is the CUDA backend on an emulator, for tests; `null` runs everything but the arithmetic. */
export type DeviceName = "auto" | "cpu" | "null" | "cuda" | "simt";

export interface SessionOptions {
  /** `auto` takes the best device of this build. Asking for one that cannot run fails and says why. */
  readonly device?: DeviceName;
  /** Default: the cgroup's share. Results do not depend on it. */
  readonly threads?: number;
  /** Ask the system for huge pages: some kernels run a few percent faster, memory is counted in 2 MiB steps. Default false. */
  readonly hugePages?: boolean;
  /** Programs load and their memory is counted, but none is taken and nothing runs: what a plan asks. Default false. */
  readonly dry?: boolean;
  /** On cuda: launch each instruction by itself, no graph, in an NVTX range of its op and name: what Nsight Systems shows. Default false. */
  readonly named?: boolean;
  /** The op table's hash; an addon that was built for another is refused here rather than at the first program. */
  readonly tableHash?: number;
}

export interface RunOptions {
  /** How much of each dim is in use, by name; every dim of the program must be there. */
  readonly counts?: Readonly<Record<string, number>>;
  /** Every `inputs/` buffer, with exactly the elements in use. Copied before this returns. */
  readonly inputs?: Readonly<Record<string, HostArray>>;
  /** Buffers to copy out, by name. Default: all `outputs/` of the program. */
  readonly outputs?: readonly string[];
  /**
   * Where outputs go, by name, instead of into arrays of their own: views of shared memory with room for them. What is returned is the part in use.
   * For outputs so large and frequent that collecting them would cost. Nobody reads or writes the view while the program runs.
   */
  readonly into?: Readonly<Record<string, HostArray>>;
  /**
   * A shared buffer whose content counts as zeros: what the program would add onto it is written over it. StateError where the program reads some of it
   * before it writes there, or leaves some.
   */
  readonly overwrite?: string;
  /**
   * Time each instruction; read the sums with `profile`. With `repeats`, on a GPU, each is timed as a graph of repeats of itself, what it changes being
   * put back, so that no launch is waited for; on a CPU as it comes. What the run computes is the same.
   */
  readonly profile?: boolean | "repeats";
  /** Aborting stops before the next instruction and rejects with the signal's reason; buffers keep what was done. */
  readonly signal?: AbortSignal;
}

/** Rows of a buffer (its first axis) and their place in a file. The file's floats are converted, rounding to nearest even. */
export interface FileSlice {
  readonly buffer: string;
  /** Default 0. */
  readonly rowStart?: number;
  /** Default: all rows from rowStart. */
  readonly rows?: number;
  readonly path?: string;
  /** Instead of `path`: a descriptor that the caller keeps open. */
  readonly fd?: number;
  /** In bytes. Default 0. */
  readonly fileOffset?: number;
  readonly fileDtype: "float32" | "bfloat16" | "float16" | "int32";
}

export type BufferInfo = NativeBuffer;

/** A program of one session. */
export interface LoadedProgram extends NativeProgram {
  readonly session: Session;
}

interface Aborts {
  readonly signal?: AbortSignal;
}

const forgotten = new FinalizationRegistry<string>((device) => {
  process.emitWarning(`a session on ${device} was garbage-collected without close()`, { code: "ATTUNE_NOT_CLOSED" });
});

export class Session {
  /** The device that runs: never `auto`. */
  readonly device: string;
  readonly threads: number;
  /** Bytes of memory that the device has, where that is its own; else 0. */
  readonly deviceMemory: number;
  /** Whether `linear_logprob` in bf16 never writes logits, so that keeping their shares costs no more than it saves: a GPU of capability 9.0. */
  readonly fusesHead: boolean;
  private readonly addon: Addon;
  private readonly handle: Handle;
  private readonly shared = new Map<string, BufferInfo>();
  private nextToken = 1;
  private closing: Promise<void> | undefined;

  private constructor(addon: Addon, handle: Handle) {
    this.addon = addon;
    this.handle = handle;
    ({ device: this.device, threads: this.threads, deviceMemory: this.deviceMemory, fusesHead: this.fusesHead } = addon.sizes(handle));
    forgotten.register(this, this.device, this);
  }

  /** Opens a session and starts its thread. Throws DeviceError (the device cannot run here) or ConfigError. */
  static create(options: SessionOptions = {}): Session {
    const addon = loadAddon(options.tableHash);
    const { device = "auto", threads, hugePages = false, dry = false, named = false } = options;
    if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 1024)) {
      throw new ConfigError(`threads: must be a whole number from 1 to 1024, got ${String(threads)}`);
    }
    return new Session(
      addon,
      typed(() => addon.open({ device, threads: threads ?? 0, hugePages, dry, named })),
    );
  }

  /**
   * Loads the bytes of a program: its shared buffers join those of the session by name, new ones start at zero, and the
   * arena grows to the largest program's. Rejects with DataError (bytes), ShapeError (a buffer has another type here) or
   * OutOfMemoryError; the session is then as it was.
   */
  async load(program: Uint8Array): Promise<LoadedProgram> {
    const native = await typed(() => this.addon.load(this.handle, program));
    for (const b of native.buffers) {
      if (b.private) continue;
      const before = this.shared.get(b.name);
      this.shared.set(b.name, { ...b, weight: b.weight || before?.weight === true });
    }
    return { ...native, session: this };
  }

  /** Frees a program and its private buffers. Shared buffers stay. */
  async unload(program: LoadedProgram): Promise<void> {
    await typed(() => this.addon.unload(this.handle, this.own(program)));
  }

  /**
   * Runs a program. Resolves to the wanted outputs by name, each with the elements in use (bfloat16 as bits).
   * Rejects with ShapeError (counts, inputs), StateError (closed, unknown names) or the signal's reason.
   */
  async run(program: LoadedProgram, options: RunOptions = {}): Promise<Record<string, HostArray>> {
    const id = this.own(program);
    const { counts = {}, inputs = {}, into = {}, overwrite = "", profile = false } = options;
    for (const name of Object.keys(counts)) {
      if (!program.dims.some((d) => d.name === name)) {
        const known = program.dims.map((d) => d.name).join(", ") || "none";
        throw new ConfigError(`counts: must name dims of the program (${known}), got ${name}`);
      }
    }
    const used = program.dims.map((d) => {
      const n = counts[d.name];
      if (n === undefined) throw new ConfigError(`counts: must give ${d.name} (0 to ${d.capacity}), got none`);
      return n;
    });
    const outputs = options.outputs ?? program.buffers.filter((b) => b.name.startsWith("outputs/")).map((b) => b.name);
    for (const name of Object.keys(into)) {
      if (!outputs.includes(name)) throw new ConfigError(`into: must name outputs of the run (${outputs.join(", ") || "none"}), got ${name}`);
    }
    const places = outputs.map((name) => into[name]);
    const arrays = await this.abortable(options, (token) =>
      this.addon.run(this.handle, token, id, used, Object.keys(inputs), Object.values(inputs), outputs, places, overwrite, profile === "repeats" ? 2 : Number(profile)),
    );
    const result = (a: HostArray | number, i: number): HostArray => (typeof a === "number" ? places[i]!.subarray(0, a) : a);
    return Object.fromEntries(outputs.map((name, i) => [name, result(arrays[i]!, i)]));
  }

  /** Nanoseconds per instruction, summed over the runs with `profile` since the last reset. */
  async profile(program: LoadedProgram, options: { readonly reset?: boolean } = {}): Promise<Float64Array> {
    return typed(() => this.addon.profile(this.handle, this.own(program), options.reset ?? false));
  }

  /** What this session's device and threads can do at most, measured now: about half a second of work. Zeros on the null device. */
  async peak(): Promise<Peak> {
    return typed(() => this.addon.peak(this.handle));
  }

  /**
   * What a library chose for this session's matrix products so far, as text: on a GPU their bits depend on it. Its first line names GPU and library;
   * on the CPU, which has nothing to choose, it is empty. A session that goes on with another's work adopts it before its first run.
   */
  async choices(): Promise<string> {
    return typed(() => this.addon.choices(this.handle));
  }

  /** Goes on with another session's `choices`. False, and nothing is taken, where another device or another version of the library made them. */
  async adopt(choices: string): Promise<boolean> {
    return typed(() => this.addon.adopt(this.handle, choices));
  }

  /** Writes whole rows of a shared buffer, from `rowStart` on. The array is copied before this returns. */
  async write(buffer: string, from: HostArray, options: { readonly rowStart?: number } = {}): Promise<void> {
    await typed(() => this.addon.write(this.handle, buffer, from, options.rowStart ?? 0));
  }

  /** A copy of a shared buffer, or of some of its rows. */
  async read(buffer: string, options: { readonly rowStart?: number; readonly rows?: number } = {}): Promise<HostArray> {
    return typed(() => this.addon.read(this.handle, buffer, options.rowStart ?? 0, options.rows ?? -1));
  }

  /** Sets a shared buffer to zero. */
  async zero(buffer: string): Promise<void> {
    await typed(() => this.addon.zero(this.handle, buffer));
  }

  /** XXH64 of a shared buffer's bytes, as 16 hex digits. */
  async hash(buffer: string): Promise<string> {
    return typed(() => this.addon.hash(this.handle, buffer));
  }

  /** How many elements of a shared buffer are NaN or infinite. */
  async countNonfinite(buffer: string): Promise<number> {
    return typed(() => this.addon.countNonfinite(this.handle, buffer));
  }

  /** Fills rows of shared buffers from files. Rejects with DataError where a file is cut short or cannot be read. */
  async readFiles(slices: readonly FileSlice[], options: Aborts = {}): Promise<void> {
    await this.abortable(options, (token) => this.addon.readFiles(this.handle, token, slices.map(nativeSlice)));
  }

  /** Writes rows of shared buffers into files, which are created but never cut. Rejects with WriteError (`ENOSPC: ...`). */
  async writeFiles(slices: readonly FileSlice[], options: Aborts = {}): Promise<void> {
    await this.abortable(options, (token) => this.addon.writeFiles(this.handle, token, slices.map(nativeSlice)));
  }

  /** The shared buffers of all programs loaded so far. */
  buffers(): readonly BufferInfo[] {
    return [...this.shared.values()];
  }

  /** Bytes of the activation arena, of packed copies of weights, and of all buffers: as of the last finished call. */
  get arenaBytes(): number {
    return this.addon.sizes(this.handle).arenaBytes;
  }
  get derivedBytes(): number {
    return this.addon.sizes(this.handle).derivedBytes;
  }
  get bufferBytes(): number {
    return this.addon.sizes(this.handle).bufferBytes;
  }
  /** Bytes of the threads' own scratch. */
  get threadBytes(): number {
    return this.addon.sizes(this.handle).threadBytes;
  }
  /** The most memory so far: the process's resident memory, or on a device with memory of its own what this session takes there. */
  get peakBytes(): number {
    return this.addon.sizes(this.handle).deviceBytes || this.addon.peakRss();
  }
  get closed(): boolean {
    return this.closing !== undefined;
  }

  /**
   * Stops what runs before its next instruction, rejects what waits (StateError), frees all memory and ends the thread.
   * A second call returns the first one's promise.
   */
  close(): Promise<void> {
    if (this.closing === undefined) {
      forgotten.unregister(this);
      this.closing = typed(() => this.addon.close(this.handle));
      this.shared.clear();
    }
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private own(program: LoadedProgram): number {
    if (program?.session !== this) throw new ConfigError("program: must be one that this session loaded");
    return program.id;
  }

  private async abortable<T>(options: Aborts, call: (token: number) => Promise<T>): Promise<T> {
    const { signal } = options;
    signal?.throwIfAborted();
    const token = this.nextToken;
    this.nextToken = token >= 0xffffffff ? 1 : token + 1;
    const abort = (): void => this.addon.cancel(this.handle, token);
    const done = typed(() => call(token));
    signal?.addEventListener("abort", abort, { once: true });
    try {
      return await done;
    } catch (error) {
      if (signal?.aborted && (error as { kind?: string }).kind === "cancelled") throw signal.reason;
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }
}

function nativeSlice(s: FileSlice): Parameters<Addon["readFiles"]>[2][number] {
  const file = s.path ?? s.fd;
  if (file === undefined) throw new ConfigError(`slice of ${s.buffer}: must have a path or an fd, got neither`);
  const { buffer, rowStart = 0, rows = -1, fileOffset = 0, fileDtype } = s;
  return { buffer, rowStart, rows, file, fileOffset, fileDtype };
}
