// Scoring rows: per-token log-probabilities of token ids, texts, or completions given their prompts. What `attune score` calls.
import { packStep, type MicroBatch } from "../data/pack.ts";
import { readRows, type Row } from "../data/rows.ts";
import { loadTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import type { Tree } from "../data/types.ts";
import { DataError, NumericError } from "../errors.ts";
import { kindOf, type Json } from "../data/json.ts";
import { loadModel, readWeights } from "../engine/model.ts";
import { Scorer } from "../engine/scorer.ts";

/** What is scored, and where. */
export interface ScoreOptions {
  readonly model: string;
  /** .jsonl or .json of {"input_ids"}, {"text"} or {"prompt", "completion"}. */
  readonly data: string;
  /** Default auto. */
  readonly device?: "auto" | "cpu" | "cuda";
  /** Default float32. */
  readonly dtype?: "float32" | "bfloat16" | null;
  /** Default: the cores this process may use. */
  readonly threads?: number | null;
  /** Score the good rows, then throw; by default a bad row stops everything first. */
  readonly skipInvalid?: boolean;
  readonly tokensPerBatch?: number | null;
}
export interface ScoreHooks {
  readonly signal?: AbortSignal;
  onStage?(stage: { name: string; done: number; total: number | null; unit?: string }): void;
}
/** One row's log-probabilities, in nats. */
export interface Score {
  readonly row: number;
  /** Log-probability of each scored token; for input_ids, logps[t] is that of token t+1 given tokens 0..t. */
  readonly logps: Float32Array;
  readonly logp: number;
}

/** Scores in the order of the rows. A bad row is a DataError with its line: before anything, or with skipInvalid after the rest. */
export async function* scoreRows(o: ScoreOptions, hooks: ScoreHooks = {}): AsyncGenerator<Score> {
  const loaded = await loadModel(o.model, { device: o.device ?? "auto", dtype: o.dtype ?? "float32", ...(o.threads && { threads: o.threads }) });
  try {
    const { trees, bad } = await readTrees(o, loaded.model.config.vocabSize);
    if (bad && !o.skipInvalid) throw bad;
    const longest = Math.max(1, ...trees.map((t) => t.branches[0]!.ids.length));
    const tokens = Math.max(longest, o.tokensPerBatch ?? 1024);
    const scorer = await Scorer.create(loaded, { tokens, rows: tokens });
    await readWeights(loaded);
    const GROUP = 256;
    for (let from = 0; from < trees.length; from += GROUP) {
      const part = trees.slice(from, from + GROUP);
      const scored = new Map<number, Float32Array>();
      for (const micro of packStep(part, { tokensPerBatch: tokens })) {
        hooks.signal?.throwIfAborted();
        const { logp } = await scorer.score(micro, hooks.signal);
        spread(micro, logp, scored);
      }
      for (const [i, tree] of part.entries()) {
        const logps = scored.get(i) ?? new Float32Array(0);
        const logp = logps.reduce((a, b) => a + b, 0);
        if (!Number.isFinite(logp)) throw new NumericError(`row ${tree.row}: its log-probabilities must be finite, got NaN or infinity (its hidden states overflow: try another dtype)`);
        yield { row: tree.row, logps, logp };
      }
      hooks.onStage?.({ name: "scoring", done: Math.min(from + GROUP, trees.length), total: trees.length, unit: "rows" });
    }
    if (bad) throw bad;
  } finally {
    await loaded.session.close();
  }
}

function spread(micro: MicroBatch, logp: Float32Array, into: Map<number, Float32Array>): void {
  for (const e of micro.examples) into.set(e.tree, logp.slice(e.rowStart, e.rowEnd));
}

async function readTrees(o: ScoreOptions, vocab: number): Promise<{ trees: Tree[]; bad: DataError | undefined }> {
  const trees: Tree[] = [];
  let tokenizer: Tokenizer | undefined;
  let bad: DataError | undefined;
  let row = 0;
  for await (const r of readRows(o.data)) {
    if (!r.value.has("input_ids")) tokenizer ??= loadTokenizer(o.model);
    try {
      trees.push(await toTree(r, row, tokenizer, vocab));
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      bad ??= new DataError(`${o.data}:${r.line}: ${error.message}`);
      if (!o.skipInvalid) break;
    }
    row++;
  }
  return { trees, bad };
}

async function toTree(r: Row, row: number, tokenizer: Tokenizer | undefined, vocab: number): Promise<Tree> {
  const text = (key: string): string => {
    const v = r.value.get(key);
    if (typeof v !== "string") throw new DataError(`${key} must be a string, got ${kindOf(v)}`);
    return v;
  };
  const one = async (s: string): Promise<Int32Array> => {
    const ids = Int32Array.from((await tokenizer!.encode([{ text: s, special: true }]))[0]!.ids);
    const past = ids.find((id) => id >= vocab);
    if (past !== undefined) throw new DataError(`ids must be below the model's vocab_size ${vocab}, got ${past} (the tokenizer belongs to another model)`);
    return ids;
  };
  const tree = (ids: Int32Array, from: number): Tree => ({ row, trunk: new Int32Array(0), branches: [{ ids, trained: from < ids.length ? [[from, ids.length]] : [] }] });
  if (r.value.has("input_ids")) {
    const given = r.value.get("input_ids");
    const must = `input_ids must be a list of whole numbers from 0 to ${vocab - 1}`;
    if (!Array.isArray(given) || given.length === 0) throw new DataError(`${must}, got ${Array.isArray(given) ? "an empty list" : kindOf(given)}`);
    const wrong = given.findIndex((v) => !(typeof v === "bigint" || Number.isInteger(v)) || (v as number) < 0 || (v as number) >= vocab);
    if (wrong >= 0) throw new DataError(`${must}, got ${show(given[wrong]!)} at place ${wrong}`);
    return tree(Int32Array.from(given as unknown[], Number), 1);
  }
  if (r.value.has("text")) return tree(await one(text("text")), 1);
  if (!r.value.has("prompt") || !r.value.has("completion")) throw new DataError(`a row must have input_ids, text, or prompt and completion, got ${[...r.value.keys()].join(", ") || "no columns"}`);
  const prompt = await one(text("prompt"));
  const whole = await one(text("prompt") + text("completion"));
  let same = 0;
  while (same < prompt.length && same < whole.length && prompt[same] === whole[same]) same++;
  return tree(whole, Math.max(1, same));
}

/** A value of a list in a message: numbers as they are, others by their kind. */
const show = (v: Json): string => (typeof v === "bigint" || typeof v === "number" ? String(v) : kindOf(v));
