// Compiling off the caller's thread: a program is asked for by name and travels back as bytes. One thread does it for all, started when
// it is wanted and ended when it has had nothing to do for a while, so nobody has to keep or close it.
import { Thread } from "../thread.ts";
import type { Counts } from "../ir/types.ts";
import type { Compiled, CompileFunctions, Programs } from "./compile_worker.ts";

export type { Compiled } from "./compile_worker.ts";

export type ProgramName = keyof Programs;
export type ProgramArgs<K extends ProgramName> = Parameters<Programs[K]>;

const IDLE_MS = 2000;
let thread: Thread<CompileFunctions> | undefined;
let busy = 0;
let idle: NodeJS.Timeout | undefined;

async function using<T>(work: (t: Thread<CompileFunctions>) => Promise<T>): Promise<T> {
  clearTimeout(idle);
  if (thread?.ended) thread = undefined;
  thread ??= new Thread(new URL("./compile_worker.js", import.meta.url), { name: "compile" });
  busy++;
  try {
    return await work(thread);
  } finally {
    if (--busy === 0) idle = setTimeout(end, IDLE_MS).unref();
  }
}

function end(): void {
  void thread?.close();
  thread = undefined;
}

/** Trace, plan and encode the program `name` for `device`. Throws ShapeError, DeviceError. */
export const compile = <K extends ProgramName>(device: string, name: K, ...args: ProgramArgs<K>): Promise<Compiled> =>
  using((t) => t.call("compile", [device, name, args]));

/** Floating-point operations of program `name` for each of `counts`; a dim that they leave out is not in use. */
export const flops = <K extends ProgramName>(counts: readonly Counts[], name: K, ...args: ProgramArgs<K>): Promise<number[]> =>
  using((t) => t.call("flops", [name, args, counts]));

/** Start the thread, so that it is there when the first program is wanted. */
export const warm = (): Promise<unknown> => flops([], "squareProduct", 16, "float32");
