// A row -> a token tree: which text is tokenised, where its loss is, what is cut. The rules are TRL 1.13's (sft_trainer.py, dpo_trainer.py), except that
// a completion is tokenised joined with its prompt and scored from where its ids leave the prompt's, and that spans come from the template.

import { prefixSpans } from "./prefix_spans.ts";
import { RowError, readExample } from "./schema.ts";
import type { Content, Message, ReadExample, SchemaOptions } from "./schema.ts";
import { contentSpellsSpecial, specialPattern } from "./special_content.ts";
import type { EndTokens } from "./stop.ts";
import type { ChatTemplate } from "./template.ts";
import type { Encoded, EncodeInput, Tokenizer } from "./tokenizer.ts";
import { EMPTY, agreement, clip, makeTree, note, tokenSpans } from "./tree.ts";
import type { Sequence } from "./tree.ts";
import type { Branch, Span, Tree } from "./types.ts";
import type { JsonObject } from "./json.ts";

export interface EncodeOptions extends SchemaOptions {
  /** Longest sequence (prompt and completion); what is past it is cut. Null: no limit. */
  readonly maxLength: number | null;
  /** SFT on conversations: only what the assistant says has a loss. */
  readonly assistantOnlyLoss: boolean;
  /** SFT on prompt and completion: only the completion has a loss. Null: yes for such rows. Other rows have no completion: ignored, as in TRL. */
  readonly completionOnlyLoss: boolean | null;
  readonly specialTokensInContent: "warn" | "drop" | "error";
  /** SFT rows that truncation leaves without a trained token: kept, adding nothing, or dropped as TRL 1.13 does. */
  readonly untrainedRows: "keep" | "drop";
}

/** One encoded row. */
export interface EncodedRow {
  readonly row: number;
  /** What would be trained on; also there for most rows that are dropped, empty where a row cannot be read. */
  readonly tree: Tree;
  /** Why the row is left out (a stable word), or null. */
  readonly dropped: string | null;
  /** The row breaks a rule: with `invalidRows: "error"` the run stops with this message. */
  readonly invalid: string | null;
  /** Stop whatever `invalidRows` says (`specialTokensInContent: "error"`). */
  readonly fatal: boolean;
  readonly warnings: readonly string[];
  /** Whether the chat template rendered it. */
  readonly conversational: boolean;
  /** Tokens before truncation: the longest branch with its trunk. */
  readonly fullLength: number;
}

interface Plan {
  readonly inputs: EncodeInput[];
  finish(encoded: readonly Encoded[]): EncodedRow;
}

/** Encodes rows in batches. Errors of a row are in its result; errors of the template as a whole are thrown. */
export class RowEncoder {
  readonly #tokenizer: Tokenizer;
  readonly #template: ChatTemplate | null;
  readonly #options: EncodeOptions;
  readonly #ends: EndTokens;
  readonly #eosText: string | null;
  readonly #special: RegExp | null;

  constructor(tokenizer: Tokenizer, template: ChatTemplate | null, ends: EndTokens, options: EncodeOptions) {
    this.#tokenizer = tokenizer;
    this.#template = template;
    this.#options = options;
    this.#ends = ends;
    this.#eosText = tokenizer.special.get("eos_token") ?? null;
    this.#special = specialPattern(tokenizer);
  }

  async encode(
    rows: readonly { readonly row: number; readonly value: JsonObject }[],
    onRow?: (row: number) => void,
  ): Promise<EncodedRow[]> {
    const plans = rows.map(({ row, value }) => {
      onRow?.(row);
      return this.#plan(row, value);
    });
    onRow?.(-1);
    const encoded = await this.#tokenizer.encode(plans.flatMap((p) => p.inputs));
    let at = 0;
    return plans.map((p) => p.finish(encoded.slice(at, (at += p.inputs.length))));
  }

  #plan(row: number, value: JsonObject): Plan {
    try {
      return this.#planRead(row, readExample(value, this.#options));
    } catch (e) {
      if (!(e instanceof RowError)) throw e;
      const tree: Tree = { row, trunk: EMPTY, branches: this.#options.task === "dpo" ? [none(), none()] : [none()] };
      const result = {
        row,
        tree,
        dropped: e.reason,
        invalid: e.message,
        fatal: false,
        warnings: [],
        conversational: false,
        fullLength: 0,
      };
      return { inputs: [], finish: () => result };
    }
  }

  #planRead(row: number, read: ReadExample): Plan {
    const { example } = read;
    const warnings = [...read.warnings];
    const spelt = contentSpellsSpecial(example, this.#special);
    let problem = read.problem;
    let fatal = false;
    if (spelt !== null) {
      warnings.push("special_token_in_content");
      const policy = this.#options.specialTokensInContent;
      fatal = policy === "error";
      if (policy !== "warn" && !problem)
        problem = new RowError(
          "special_token_in_content",
          `a message must not spell a special token, got ${JSON.stringify(spelt)}`,
        );
    }
    // `drop` is the reader's own wish and no invalid row.
    const soft = problem?.reason === "special_token_in_content" && !fatal;
    const conversational = typeof contentOf(example) !== "string";
    const finish = (
      prompt: Encoded | null,
      fulls: readonly Encoded[],
      spans: readonly (readonly [number, number])[] | null,
    ): EncodedRow => {
      const done = this.#finish(prompt, fulls, spans, conversational, warnings);
      const reason = problem ?? done.problem;
      return {
        row,
        tree: { ...done.tree, row },
        dropped: reason?.reason ?? done.dropped,
        invalid: reason && !soft ? reason.message : null,
        fatal,
        warnings,
        conversational,
        fullLength: done.fullLength,
      };
    };
    if (example.kind === "language") {
      const { input, spans } = this.#whole(example.content, read);
      return { inputs: [input], finish: (e) => finish(null, e, spans) };
    }
    const sides = example.kind === "completion" ? [example.completion] : [example.chosen, example.rejected];
    const prompt = this.#prompt(example.prompt, read);
    const joined = sides.map((side) => this.#joined(example.prompt, side, read));
    const spans = joined[0]!.spans;
    return { inputs: [prompt, ...joined.map((j) => j.input)], finish: ([p, ...fulls]) => finish(p!, fulls, spans) };
  }

  /** A text or conversation that is one sequence. TRL ends a text with EOS unless it ends so already. */
  #whole(
    content: Content,
    read: ReadExample,
  ): { input: EncodeInput; spans: readonly (readonly [number, number])[] | null } {
    if (typeof content !== "string") return this.#conversation(content, read);
    if (this.#options.assistantOnlyLoss)
      throw new RowError(
        "not_conversational",
        "assistant_only_loss must have conversations, got a text (drop the key, or give messages)",
      );
    return { input: { text: this.#ended(content), special: true }, spans: null };
  }

  #ended(text: string): string {
    const eos = this.#eosText;
    return eos === null || text.endsWith(eos) ? text : text + eos;
  }

  #prompt(prompt: Content, read: ReadExample): EncodeInput {
    if (typeof prompt === "string") return { text: prompt, special: true };
    if (prompt.length === 0) return { text: "", special: false }; // templates may not take an empty conversation
    const { tools, templateKwargs: kwargs } = read;
    return {
      text: this.#chat().render({ messages: prompt, tools, kwargs, addGenerationPrompt: true }).text,
      special: false,
    };
  }

  #joined(
    prompt: Content,
    side: Content,
    read: ReadExample,
  ): { input: EncodeInput; spans: readonly (readonly [number, number])[] | null } {
    if (typeof side === "string") return this.#whole((prompt as string) + this.#ended(side), read);
    return this.#conversation([...(prompt as readonly Message[]), ...side], read);
  }

  #conversation(
    messages: readonly Message[],
    read: ReadExample,
  ): { input: EncodeInput; spans: readonly (readonly [number, number])[] | null } {
    const template = this.#chat();
    const input = { messages, tools: read.tools, kwargs: read.templateKwargs };
    const { text, spans } = template.render(input);
    const wanted = this.#options.task === "sft" && this.#options.assistantOnlyLoss;
    return {
      input: { text, special: false },
      spans: !wanted ? null : template.marks(read.tools) ? spans : prefixSpans(template, input, text),
    };
  }

  #chat(): ChatTemplate {
    if (this.#template) return this.#template;
    throw new RowError(
      "no_chat_template",
      "conversations must have a chat template, got a tokenizer without one (set chat_template_path)",
    );
  }

  #finish(
    prompt: Encoded | null,
    fulls: readonly Encoded[],
    spans: readonly (readonly [number, number])[] | null,
    chat: boolean,
    warnings: string[],
  ): { tree: Omit<Tree, "row">; dropped: string | null; problem: RowError | null; fullLength: number } {
    const { task, maxLength, completionOnlyLoss } = this.#options;
    const { bos } = this.#ends;
    let problem: RowError | null = null;
    const sequences = fulls.map((full): Sequence => {
      const ids = Int32Array.from(full.ids);
      const agreed = prompt ? agreement(prompt.ids, ids) : 0;
      if (prompt && agreed < prompt.ids.length) note(warnings, "boundary_merge");
      const scoreAll = !prompt || (task === "sft" && completionOnlyLoss === false);
      const firstScored = scoreAll ? 0 : agreed;
      let trained: Span[] = [[firstScored, ids.length]];
      if (spans) trained = clip(tokenSpans(full, spans, ids.length), firstScored, ids.length);
      if (bos !== null && ids[0] === bos && ids[1] === bos)
        problem ??= new RowError(
          "bos_twice",
          "a text must begin with one BOS token, got two (take it out of the text or of the template)",
        );
      this.#checkStop(ids, spans ? trained : [[firstScored, ids.length]], spans !== null, chat, warnings);
      return { ids, trained: clip(trained, 1, ids.length), firstScored };
    });
    const fullLength = Math.max(...sequences.map((s) => s.ids.length));
    if (sequences.some((s) => s.trained.length === 0))
      problem ??= new RowError("no_trained_tokens", "a row must have at least one token with a loss, got none");
    const promptLength = prompt ? prompt.ids.length : 0;
    if (maxLength !== null && fullLength > maxLength) {
      warnings.push("truncated");
      for (const s of sequences) {
        s.ids = s.ids.subarray(0, maxLength);
        s.trained = clip(s.trained, 0, s.ids.length);
      }
    }
    const untrained = sequences.some((s) => s.trained.length === 0);
    let dropped: string | null = null;
    if (!problem && maxLength !== null) {
      if (task === "dpo" && (promptLength >= maxLength || untrained)) dropped = "prompt_fills_max_length";
      if (task === "sft" && untrained) {
        warnings.push("no_trained_tokens_left");
        if (this.#options.untrainedRows === "drop") dropped = "prompt_fills_max_length";
      }
    }
    return { tree: makeTree(sequences, task, warnings), dropped, problem, fullLength };
  }

  /** A turn, or a text, whose last special token is not the one that ends it is worth a warning: the model would not learn to stop. */
  #checkStop(ids: Int32Array, trained: readonly Span[], bySpan: boolean, chat: boolean, warnings: string[]): void {
    const stop = chat ? this.#ends.stop : this.#ends.eos;
    if (stop === null || ids.length === 0) return;
    for (const [from, to] of bySpan ? trained : trained.slice(-1)) {
      // White space may follow the stop token, which takes a token or two.
      if (!ids.subarray(Math.max(from, to - 4), to).includes(stop)) return note(warnings, "no_stop_token");
    }
  }
}

function contentOf(example: ReadExample["example"]): Content {
  return example.kind === "language"
    ? example.content
    : example.kind === "completion"
      ? example.completion
      : example.chosen;
}

const none = (): Branch => ({ ids: EMPTY, trained: [] });
