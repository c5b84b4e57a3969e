// The thread that reads the rows of `attune score`: token ids, texts, or prompts and completions, as trees of one branch.
import { kindOf, type Json } from "../data/json.ts";
import { readRows, type Row } from "../data/rows.ts";
import { loadTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { TreeTableBuilder, type TreeArrays } from "../data/tree_table.ts";
import type { Tree } from "../data/types.ts";
import { DataError } from "../errors.ts";
import { Moved, serve } from "../thread.ts";

/** The trees of a file's good rows, all of them with `skipInvalid`, else those before the first bad one; and what is wrong with that one. */
async function readTrees(path: string, model: string, vocab: number, skipInvalid: boolean): Promise<Moved<{ arrays: TreeArrays; bad: string | null }>> {
  const trees = new TreeTableBuilder(1);
  let tokenizer: Tokenizer | undefined;
  let bad: string | null = null;
  let row = 0;
  for await (const r of readRows(path)) {
    if (!r.value.has("input_ids")) tokenizer ??= loadTokenizer(model);
    try {
      trees.add(await toTree(r, row, tokenizer, vocab));
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      bad ??= `${path}:${r.line}: ${error.message}`;
      if (!skipInvalid) break;
    }
    row++;
  }
  const arrays = trees.finish();
  return new Moved({ arrays, bad }, [arrays.buffer]);
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

const functions = { readTrees };
export type ScoreFunctions = typeof functions;
serve(functions);
