// Generation over a key-value cache, several prompts at a time: what `attune generate`, `attune chat` and the library call.
import { today } from "../data/dataset.ts";
import type { DataOptions } from "../data/pipeline.ts";
import type { EndTokens } from "../data/stop.ts";
import { fromJs, type JsonObject } from "../data/json.ts";
import { newWatch, outOfHeap, TEMPLATE_SECONDS, watchTemplate, WORKER_HEAP } from "../data/watch.ts";
import { DataError, OutOfMemoryError } from "../errors.ts";
import { memoryLimit, memoryOf } from "../engine/memory.ts";
import { Thread } from "../thread.ts";
import { programsOf } from "../engine/background.ts";
import { loadModel, readWeights, type LoadedModel } from "../engine/model.ts";
import type { DeviceName, LoadedProgram } from "../runtime/session.ts";
import type { CacheSizes } from "./programs.ts";
import type { SampleOptions } from "./sample.ts";
import type { Draw, GenerateFunctions } from "./worker.ts";

const { compile } = programsOf<typeof import("./programs.ts")>(new URL("./programs.js", import.meta.url));

/** A text to go on from, or a conversation to answer: messages such as {role: "user", content: "..."}. */
export type Prompt = string | readonly (JsonObject | Readonly<Record<string, unknown>>)[];

export interface GeneratorOptions {
  readonly model: string;
  /** Default auto. */
  readonly device?: DeviceName;
  /** Default: bfloat16 on cuda, else float32. */
  readonly dtype?: "float32" | "bfloat16" | null;
  /** Default: the cores this process may use. */
  readonly threads?: number | null;
  /** Default: the model's own. */
  readonly chatTemplatePath?: string | null;
  /** What the template's strftime_now sees, as 2026-01-31. Default: today. */
  readonly chatTemplateDate?: string | null;
}
/** A conversation as templates take it. */
export type Conversation = readonly JsonObject[];

/** How tokens are drawn; by default the likeliest ones, 256 at most. */
export interface Sampling extends Partial<SampleOptions> {
  /** Tokens of an answer at most. */
  readonly maxNewTokens?: number;
  /** Aborting stops before the next token and rejects with its reason. */
  readonly signal?: AbortSignal;
}
type Draws = SampleOptions & { readonly maxNewTokens: number; readonly signal?: AbortSignal };
const drawsOf = (o: Sampling): Draws => ({ maxNewTokens: 256, temperature: 0, topK: 0, topP: 1, seed: 42, ...o });
/** One answer. */
export interface Completion {
  readonly text: string;
  /** Tokens generated, the stop token not counted. */
  readonly tokens: number;
  readonly finishReason: "stop" | "length";
}

const SLOTS = 16;
const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/** Open a model folder for generation; dispose of it to free its memory and threads. Throws DataError, OutOfMemoryError, DeviceError. */
export const openGenerator = (o: GeneratorOptions): Promise<Generator> =>
  open(o, () => loadModel(o.model, { device: o.device ?? "auto", dtype: o.dtype ?? null, ...(o.threads && { threads: o.threads }) }), true);

/** A generator over a session that somebody else keeps, with the weights that are in it. */
export const generatorOf = (loaded: LoadedModel, o: Pick<GeneratorOptions, "chatTemplatePath" | "chatTemplateDate">): Promise<Generator> =>
  open({ ...o, model: loaded.model.dir }, async () => loaded, false);

async function open(o: GeneratorOptions, model: () => Promise<LoadedModel>, owner: boolean): Promise<Generator> {
  const texts = new Texts();
  try {
    const ends = await texts.call("open", [tokenOptions(o), texts.watch]);
    return new Generator(texts, ends, await model(), owner);
  } catch (error) {
    await texts.close();
    throw error;
  }
}

const tokenOptions = (o: GeneratorOptions): DataOptions => ({
  task: "sft",
  tokenizer: o.model,
  textField: "text",
  roleMap: {},
  maxLength: null,
  assistantOnlyLoss: false,
  completionOnlyLoss: null,
  specialTokensInContent: "warn",
  untrainedRows: "keep",
  chatTemplatePath: o.chatTemplatePath ?? null,
  chatTemplateDate: o.chatTemplateDate ?? today(),
  invalidRows: "error",
  vocabSize: null,
});

/** The generator's thread under the limits of a template: one that does not end, or takes too much memory, ends the thread. */
class Texts {
  readonly watch = newWatch();
  readonly #thread = new Thread<GenerateFunctions>(new URL("./worker.js", import.meta.url), { name: "generate", heap: WORKER_HEAP });
  readonly #watchdog = watchTemplate(this.watch, TEMPLATE_SECONDS, (e) => void this.#thread.close(e));

  readonly call: Thread<GenerateFunctions>["call"] = (name, args, moved) =>
    this.#thread.call(name, args, moved).catch((e: unknown) => Promise.reject(outOfHeap(e, WORKER_HEAP)));

  close(): Promise<void> {
    clearInterval(this.#watchdog);
    return this.#thread.close();
  }
}

/** Messages as JSON; a Map is one already. */
function conversation(messages: Exclude<Prompt, string>, index: number): Conversation {
  try {
    return messages.map((m) => (m instanceof Map ? m : fromJs(m)) as JsonObject);
  } catch (error) {
    throw new DataError(`prompt ${index}: messages must be plain objects: ${(error as Error).message}`, { cause: error });
  }
}

interface Sequence {
  readonly index: number;
  readonly prompt: readonly number[];
  readonly out: number[];
  done: Completion["finishReason"] | undefined;
}

/** A model that goes on from texts and answers conversations, 16 at a time. */
export class Generator {
  readonly #texts: Texts;
  readonly #loaded: LoadedModel;
  /** Whether the session is its own: weights are read from the folder, and closing closes it. */
  readonly #owner: boolean;
  /** Settles when the cache is free. */
  #free: Promise<void> = Promise.resolve();
  readonly #stops: ReadonlySet<number>;
  #programs: { readonly logits: Float32Array<SharedArrayBuffer>; readonly sizes: CacheSizes; readonly tokens: number; readonly prefill: LoadedProgram; readonly decode: LoadedProgram } | undefined;

  constructor(texts: Texts, ends: EndTokens, loaded: LoadedModel, owner: boolean) {
    this.#texts = texts;
    this.#loaded = loaded;
    this.#owner = owner;
    const config = loaded.model.generationConfig?.value as { eos_token_id?: number | number[] } | undefined;
    const named = config?.eos_token_id ?? loaded.model.config.eosTokenIds;
    this.#stops = new Set([named, ends.stop, ends.eos].flat().filter((id): id is number => typeof id === "number"));
  }

  /** Completions in the order of the prompts. The same seed gives the same answers, however prompts are grouped. Throws DataError for a prompt without a token. */
  async *generate(prompts: Iterable<Prompt> | AsyncIterable<Prompt>, sampling: Sampling = {}): AsyncGenerator<Completion> {
    const o = drawsOf(sampling);
    let batch: Prompt[] = [];
    let index = 0;
    for await (const p of prompts) {
      batch.push(p);
      if (batch.length < SLOTS) continue;
      yield* this.#batch(batch, index, o);
      index += batch.length;
      batch = [];
    }
    if (batch.length) yield* this.#batch(batch, index, o);
  }

  /** Pieces of one answer as they come; the last has `done`. */
  async *chat(prompt: Prompt, sampling: Sampling = {}): AsyncGenerator<{ text: string; done?: Completion }> {
    const o = drawsOf(sampling);
    const release = await this.#lock();
    try {
      const s = await this.#start([prompt], 0, o);
      let shown = "";
      for await (const _ of this.#steps(s, o)) {
        const text = await this.#text(s[0]!);
        if (text.endsWith("\ufffd") || !text.startsWith(shown)) continue; // half of a character
        yield { text: text.slice(shown.length) };
        shown = text;
      }
      const done = await this.#completion(s[0]!);
      yield { text: done.text.slice(shown.length), done };
    } finally {
      release();
    }
  }

  async *#batch(prompts: readonly Prompt[], index: number, o: Draws): AsyncGenerator<Completion> {
    const release = await this.#lock();
    let sequences: readonly Sequence[];
    try {
      sequences = await this.#start(prompts, index, o);
      for await (const _ of this.#steps(sequences, o));
    } finally {
      release();
    }
    for (const s of sequences) yield await this.#completion(s);
  }

  /** Callers have the cache one after another; what this resolves to gives it back. */
  async #lock(): Promise<() => void> {
    const before = this.#free;
    let release!: () => void;
    this.#free = new Promise((done) => (release = done));
    await before;
    return release;
  }

  async #start(prompts: readonly Prompt[], index: number, o: Draws): Promise<Sequence[]> {
    const ids = await this.#texts.call("ids", [prompts.map((p, i) => (typeof p === "string" ? p : conversation(p, index + i))), index]);
    const sequences = ids.map((prompt, i): Sequence => ({ index: index + i, prompt, out: [], done: undefined }));
    const { vocabSize } = this.#loaded.model.config;
    for (const { index: at, prompt } of sequences) {
      const past = prompt.find((id) => id >= vocabSize);
      if (past !== undefined) throw new DataError(`prompt ${at}: ids must be below the model's vocab_size ${vocabSize}, got ${past} (the tokenizer belongs to another model)`);
    }
    const places = Math.max(...sequences.map((s) => s.prompt.length)) + o.maxNewTokens;
    const tokens = sequences.reduce((n, s) => n + s.prompt.length, 0);
    await this.#fit(sequences.length, places, tokens);
    return sequences;
  }

  /** Programs large enough; they are made anew only when a batch does not fit. */
  async #fit(slots: number, places: number, tokens: number): Promise<void> {
    const old = this.#programs;
    if (old && old.sizes.slots >= slots && old.sizes.places >= places && old.tokens >= tokens) return;
    const up = (n: number): number => 2 ** Math.ceil(Math.log2(Math.max(n, 16)));
    const sizes = { slots: Math.max(slots, old?.sizes.slots ?? 1), places: up(Math.max(places, old?.sizes.places ?? 1)) };
    const room = up(Math.max(tokens, old?.tokens ?? 1));
    const { session, spec } = this.#loaded;
    const programs = [await compile(session.device, "prefillProgram", spec, sizes, room), await compile(session.device, "decodeProgram", spec, sizes)] as const;
    const { total_bytes: bytes } = await memoryOf(session, programs);
    const most = memoryLimit(null, session);
    if (bytes > most)
      throw new OutOfMemoryError(`memory: the model and its cache must fit in ${gigabytes(most)} (the memory of ${session.deviceMemory > 0 ? `device ${session.device}` : "the machine"}), got ${gigabytes(bytes)} for ${sizes.slots} x ${sizes.places} tokens (lower max_new_tokens)`);
    if (old) for (const p of [old.prefill, old.decode]) await session.unload(p);
    const [prefill, decode] = [await session.load(programs[0].bytes), await session.load(programs[1].bytes)];
    if (!old && this.#owner) await readWeights(this.#loaded);
    const logits = new Float32Array(new SharedArrayBuffer(4 * sizes.slots * this.#loaded.model.config.vocabSize));
    this.#programs = { logits, sizes, tokens: room, prefill, decode };
  }

  /** Prefill, then decode until every sequence is done; yields after each token. */
  async *#steps(sequences: readonly Sequence[], o: Draws): AsyncGenerator<void> {
    const { session } = this.#loaded;
    const { prefill, decode, sizes, logits } = this.#programs!;
    const into = { "outputs/logits": logits };
    const flat = sequences.flatMap((s, slot) => s.prompt.map((id, place) => ({ id, place, slot })));
    const ends: number[] = [];
    for (const s of sequences) ends.push((ends.at(-1) ?? 0) + s.prompt.length);
    const ints = (f: (t: (typeof flat)[number]) => number): Int32Array => Int32Array.from(flat, f);
    await session.run(prefill, {
      into,
      counts: { tokens: flat.length, sequences: sequences.length },
      inputs: {
        "inputs/ids": ints((t) => t.id),
        "inputs/pos": ints((t) => t.place),
        "inputs/end": ints((t) => ends[t.slot]!),
        "inputs/slot": ints((t) => t.slot),
        "inputs/place": ints((t) => t.place),
        "inputs/last": Int32Array.from(ends, (e) => e - 1),
      },
      ...(o.signal && { signal: o.signal }),
    });
    await this.#take(sequences, o);
    yield;
    while (sequences.some((s) => !s.done)) {
      o.signal?.throwIfAborted();
      const at = (f: (s: Sequence) => number, none: number): Int32Array =>
        Int32Array.from({ length: sizes.slots }, (_, i) => (sequences[i] && !sequences[i].done ? f(sequences[i]) : none));
      const pos = (s: Sequence): number => s.prompt.length + s.out.length - 1;
      await session.run(decode, {
        into,
        inputs: {
          "inputs/ids": at((s) => s.out.at(-1)!, 0),
          "inputs/pos": at(pos, 0),
          "inputs/slot": at((s) => sequences.indexOf(s), -1),
          "inputs/len": at((s) => pos(s) + 1, 0),
        },
        ...(o.signal && { signal: o.signal }),
      });
      await this.#take(sequences, o);
      yield;
    }
  }

  async #take(sequences: readonly Sequence[], o: Draws): Promise<void> {
    const { temperature, topK, topP, seed } = o;
    const going = sequences.flatMap((s, row) => (s.done ? [] : [{ s, row }]));
    const draws = going.map(({ s, row }): Draw => ({ row, sequence: s.index, place: s.out.length }));
    const options = { temperature, topK, topP, seed };
    const tokens = await this.#texts.call("sample", [this.#programs!.logits, this.#loaded.model.config.vocabSize, draws, options]);
    going.forEach(({ s }, i) => {
      const id = tokens[i]!;
      if (this.#stops.has(id)) s.done = "stop";
      else if (s.out.push(id) >= o.maxNewTokens) s.done = "length";
    });
  }

  #text(s: Sequence): Promise<string> {
    return this.#texts.call("text", [s.out]);
  }
  async #completion(s: Sequence): Promise<Completion> {
    return { text: await this.#text(s), tokens: s.out.length, finishReason: s.done ?? "length" };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#texts.close(), this.#owner && this.#loaded.session.close()]);
  }
}
