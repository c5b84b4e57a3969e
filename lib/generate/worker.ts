// The generator's thread: prompts to ids through a stranger's tokenizer and template, ids to text, and the draw of each next token.
import type { JsonObject } from "../data/json.ts";
import { load, type DataOptions, type Loaded } from "../data/pipeline.ts";
import { RowError } from "../data/schema.ts";
import type { EndTokens } from "../data/stop.ts";
import type { ChatTemplate } from "../data/template.ts";
import { rowWatcher } from "../data/watch.ts";
import { DataError } from "../errors.ts";
import { serve } from "../thread.ts";
import type { Conversation } from "./generate.ts";
import { sampleToken, type SampleOptions } from "./sample.ts";

let loaded: Loaded;
let onRow: (row: number) => void;

/** Whose logits stand in row `row`: sequence `sequence`, which has `place` tokens of its own already. */
export interface Draw {
  readonly row: number;
  readonly sequence: number;
  readonly place: number;
}

async function idsOf(prompt: string | Conversation, index: number): Promise<readonly number[]> {
  const { tokenizer, template } = loaded;
  if (typeof prompt === "string") return (await tokenizer.encode([{ text: prompt, special: true }]))[0]!.ids;
  if (!template) throw new DataError("conversations must have a chat template, got a model folder without one (give chat_template_path)");
  onRow(index);
  const text = rendered(template, prompt, index);
  onRow(-1);
  return (await tokenizer.encode([{ text, special: false }]))[0]!.ids;
}

/** A conversation as text; what a row would be dropped for is wrong with the prompt. */
function rendered(template: ChatTemplate, messages: readonly JsonObject[], index: number): string {
  try {
    return template.render({ messages, addGenerationPrompt: true }).text;
  } catch (e) {
    throw e instanceof RowError ? new DataError(`prompt ${index}: ${e.message}`, { cause: e }) : e;
  }
}

const functions = {
  async open(options: DataOptions, watch: SharedArrayBuffer): Promise<EndTokens> {
    onRow = rowWatcher(watch);
    loaded = await load(options, onRow);
    return loaded.ends;
  },
  /** Ids of prompts; `first` is the number of the first, for errors. */
  async ids(prompts: readonly (string | Conversation)[], first: number): Promise<(readonly number[])[]> {
    const all: (readonly number[])[] = [];
    for (const [i, p] of prompts.entries()) {
      const ids = await idsOf(p, first + i);
      if (ids.length === 0) throw new DataError(`prompt ${first + i}: must have a token, got an empty text`);
      all.push(ids);
    }
    return all;
  },
  text: (ids: readonly number[]): Promise<string> => loaded.tokenizer.decode(ids, true),
  /** The next token of each draw from logits (rows, V). */
  sample: (logits: Float32Array, vocab: number, draws: readonly Draw[], o: SampleOptions): number[] =>
    draws.map((d) => sampleToken(logits.subarray(d.row * vocab, (d.row + 1) * vocab), o, d.sequence, d.place)),
};
export type GenerateFunctions = typeof functions;
serve(functions);
