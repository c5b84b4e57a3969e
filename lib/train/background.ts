// What a run computes off the caller's thread: models opened, programs compiled (asked for by name, they come back as bytes). One thread
// does it for all, started when it is wanted and ended when it has had nothing to do for a while, so nobody has to keep or close it.
import { Thread } from "../thread.ts";
import type { OpenedModel } from "../io/model_folder.ts";
import type { Counts } from "../ir/types.ts";
import type { Compiled, BackgroundFunctions, Programs } from "./worker.ts";

export type { Compiled } from "./worker.ts";

export type ProgramName = keyof Programs;
export type ProgramArgs<K extends ProgramName> = Parameters<Programs[K]>;

const IDLE_MS = 2000;
let thread: Thread<BackgroundFunctions> | undefined;
let busy = 0;
let idle: NodeJS.Timeout | undefined;

async function background<T>(work: (t: Thread<BackgroundFunctions>) => Promise<T>): Promise<T> {
  clearTimeout(idle);
  if (thread?.ended) thread = undefined;
  thread ??= new Thread(new URL("./worker.js", import.meta.url), { name: "background" });
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
  background((t) => t.call("compile", [device, name, args]));

/** Floating-point operations of program `name` for each of `counts`; a dim that they leave out is not in use. */
export const flops = <K extends ProgramName>(counts: readonly Counts[], name: K, ...args: ProgramArgs<K>): Promise<number[]> =>
  background((t) => t.call("flops", [name, args, counts]));

/** Opens and checks a model folder. Throws DataError. */
export const openModel = (dir: string): Promise<OpenedModel> => background((t) => t.call("openModel", [dir]));
