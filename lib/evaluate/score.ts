// Scoring rows: per-token log-probabilities of token ids, texts, or completions given their prompts. What `attune score` calls.
import { packStep, type MicroBatch } from "../data/pack.ts";
import { TreeTable } from "../data/tree_table.ts";
import { DataError, NumericError } from "../errors.ts";
import { loadModel, readWeights } from "../engine/model.ts";
import { Scorer } from "../engine/scorer.ts";
import { Thread } from "../thread.ts";
import type { DeviceName } from "../runtime/session.ts";
import type { ScoreFunctions } from "./worker.ts";

/** What is scored, and where. */
export interface ScoreOptions {
  readonly model: string;
  /** .jsonl or .json of {"input_ids"}, {"text"} or {"prompt", "completion"}. */
  readonly data: string;
  /** Default auto. */
  readonly device?: DeviceName;
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
    const { trees, bad } = await readTrees(o, loaded.model.config.vocabSize, hooks.signal);
    if (bad !== null && !o.skipInvalid) throw new DataError(bad);
    let longest = 1;
    for (let i = 0; i < trees.length; i++) longest = Math.max(longest, trees.tokens(i));
    const tokens = Math.max(longest, o.tokensPerBatch ?? 1024);
    const scorer = await Scorer.create(loaded, { tokens, rows: tokens });
    await readWeights(loaded);
    const GROUP = 256;
    for (let from = 0; from < trees.length; from += GROUP) {
      const part = Array.from({ length: Math.min(GROUP, trees.length - from) }, (_, i) => trees.at(from + i));
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
    if (bad !== null) throw new DataError(bad);
  } finally {
    await loaded.session.close();
  }
}

function spread(micro: MicroBatch, logp: Float32Array, into: Map<number, Float32Array>): void {
  for (const e of micro.examples) into.set(e.tree, logp.slice(e.rowStart, e.rowEnd));
}

/** Rows to trees on a thread of their own. */
async function readTrees(o: ScoreOptions, vocab: number, signal: AbortSignal | undefined): Promise<{ trees: TreeTable; bad: string | null }> {
  signal?.throwIfAborted();
  const thread = new Thread<ScoreFunctions>(new URL("./worker.js", import.meta.url), { name: "score" });
  const stop = (): void => void thread.close(signal!.reason);
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const { arrays, bad } = await thread.call("readTrees", [o.data, o.model, vocab, o.skipInvalid ?? false]);
    return { trees: new TreeTable(arrays), bad };
  } finally {
    signal?.removeEventListener("abort", stop);
    await thread.close();
  }
}
