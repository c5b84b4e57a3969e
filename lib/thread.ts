// Work on another thread. A worker's module calls `serve` with its functions, and `Thread` calls them from the owner's side. Arguments
// and answers are cloned, or moved where they say so; an error arrives as the class, code and message it was.
import { setPriority } from "node:os";
import { parentPort, Worker, type Transferable } from "node:worker_threads";
import * as errors from "./errors.ts";

type Functions = Readonly<Record<string, (...args: never[]) => unknown>>;
type Ask = { readonly call: number; readonly name: string; readonly args: unknown[] } | { readonly told: unknown };
type Reply =
  | { readonly call: number; readonly value: unknown }
  | { readonly call: number; readonly error: Sent }
  | { readonly note: unknown };

/** An error as it travels. */
interface Sent {
  readonly name: string;
  /** Of an AttuneError (`ERR_LOSS`) or of a system's (`ENOSPC`); other errors have none. */
  readonly code: string | null;
  readonly message: string;
  readonly stack: string;
}

/** An answer whose buffers move to the owner; the worker must not touch them any more. */
export class Moved<T> {
  readonly value: T;
  readonly buffers: readonly ArrayBuffer[];
  constructor(value: T, buffers: readonly ArrayBuffer[]) {
    this.value = value;
    this.buffers = buffers;
  }
}
type Answer<R> = Awaited<R> extends Moved<infer T> ? T : Awaited<R>;

const YOUNG = 12; // MiB: V8 lets a heap's young generation grow to 48, which a worker that lives with a service would keep

/** As native/runtime/host.cc has it. */
function niceness(): number {
  const wanted = Number(process.env["ATTUNE_NICE"] || 19);
  return Number.isInteger(wanted) && wanted >= 0 && wanted <= 19 ? wanted : 19;
}

/** In a worker's module: answer calls of `functions`; what the owner tells beside them goes to `told`. */
export function serve(functions: Functions, told?: (message: unknown) => void): void {
  if (process.platform === "linux") setPriority(niceness()); // this thread alone: what the owner has to do goes first
  parentPort!.on("message", (m: Ask) => {
    if ("told" in m) return told?.(m.told);
    void answer(m.call, () => functions[m.name]!(...(m.args as never[])));
  });
}

async function answer(call: number, work: () => unknown): Promise<void> {
  try {
    const result = await work();
    const [value, buffers] = result instanceof Moved ? [result.value, result.buffers] : [result, []];
    parentPort!.postMessage({ call, value } satisfies Reply, buffers);
  } catch (e) {
    const { name, message, stack = "" } = e instanceof Error ? e : new Error(String(e));
    const { code = null } = e as { readonly code?: string };
    parentPort!.postMessage({ call, error: { name, code, message, stack } } satisfies Reply);
  }
}

/** In a worker's module: say something to the owner while a call goes on. */
export function note(message: unknown): void {
  parentPort!.postMessage({ note: message } satisfies Reply);
}

function revive(sent: Sent): Error {
  const Class = (errors as unknown as Record<string, new (message: string, options: object) => Error>)[sent.name];
  if (sent.code !== null && Class && sent.name !== "AttuneError") return new Class(sent.message, { code: sent.code });
  const error = Object.assign(new Error(sent.message), sent.code !== null && { code: sent.code });
  error.stack = sent.stack;
  return error;
}

export interface ThreadOptions {
  readonly name: string;
  /** JavaScript heap in MiB; a worker that needs more ends, and its calls reject with ERR_WORKER_OUT_OF_MEMORY. */
  readonly heap?: number;
  /** What the worker notes. */
  readonly onNote?: (message: unknown) => void;
}

/** A worker and the calls in flight to it. It keeps the process alive only while there are any. */
export class Thread<F extends Functions> {
  readonly #worker: Worker;
  readonly #calls = new Map<number, { resolve(value: unknown): void; reject(error: unknown): void }>();
  #next = 0;
  #ended: Error | undefined;

  /** Starts `module`, which calls `serve`. */
  constructor(module: URL, o: ThreadOptions) {
    this.#worker = new Worker(module, {
      name: `attune-${o.name}`,
      execArgv: [],
      resourceLimits: { stackSizeMb: 4, maxYoungGenerationSizeMb: YOUNG, ...(o.heap && { maxOldGenerationSizeMb: o.heap }) },
    });
    this.#worker.unref();
    this.#worker.on("message", (m: Reply) => {
      if ("note" in m) return o.onNote?.(m.note);
      this.#settle(m.call, (c) => ("error" in m ? c.reject(revive(m.error)) : c.resolve(m.value)));
    });
    this.#worker.on("error", (e) => this.#end(e));
    this.#worker.on("exit", (code) => this.#end(new Error(`${o.name}: the worker must answer, it ended with ${code}`)));
  }

  /** Calls a function of the worker; `moved` are buffers of the arguments that it takes over. */
  call<K extends keyof F & string>(name: K, args: Parameters<F[K]>, moved: readonly Transferable[] = []): Promise<Answer<ReturnType<F[K]>>> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#ended);
      const call = this.#next++;
      this.#worker.postMessage({ call, name, args } satisfies Ask, moved);
      if (this.#calls.size === 0) this.#worker.ref();
      this.#calls.set(call, { resolve: resolve as (value: unknown) => void, reject });
    });
  }

  /** Whether it can answer no more. */
  get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** Tells the worker something beside its calls. Throws what cannot be cloned. */
  tell(message: unknown): void {
    this.#worker.postMessage({ told: message } satisfies Ask);
  }

  /** Ends the worker where it is; calls in flight reject with `reason`. */
  async close(reason: unknown = new errors.StateError("the thread must be open, it was closed")): Promise<void> {
    this.#end(reason as Error);
    await this.#worker.terminate();
  }

  #settle(call: number, how: (c: { resolve(value: unknown): void; reject(error: unknown): void }) => void): void {
    const c = this.#calls.get(call);
    if (!c) return;
    this.#calls.delete(call);
    if (this.#calls.size === 0) this.#worker.unref();
    how(c);
  }

  #end(reason: Error): void {
    this.#ended ??= reason;
    for (const call of this.#calls.keys()) this.#settle(call, (c) => c.reject(this.#ended));
  }
}

const IDLE_MS = 2000;

/** One worker for many callers: started when it is wanted and ended when it has had nothing to do for a while, so nobody has to keep or close it. */
export class SharedThread<F extends Functions> {
  readonly #module: URL;
  readonly #name: string;
  #thread: Thread<F> | undefined;
  #busy = 0;
  #idle: NodeJS.Timeout | undefined;

  constructor(module: URL, name: string) {
    this.#module = module;
    this.#name = name;
  }

  /** Calls a function of the worker. */
  async call<K extends keyof F & string>(name: K, args: Parameters<F[K]>): Promise<Answer<ReturnType<F[K]>>> {
    clearTimeout(this.#idle);
    if (!this.#thread || this.#thread.ended) this.#thread = new Thread<F>(this.#module, { name: this.#name });
    this.#busy++;
    try {
      return await this.#thread.call(name, args);
    } finally {
      if (--this.#busy === 0) this.#idle = setTimeout(() => this.#end(), IDLE_MS).unref();
    }
  }

  #end(): void {
    void this.#thread?.close();
    this.#thread = undefined;
  }
}
