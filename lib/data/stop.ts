// The one place that decides which tokens begin and end what a model reads and writes.

import type { ChatTemplate } from "./template.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { RowError } from "./schema.ts";
import type { Message } from "./schema.ts";

export interface EndTokens {
  readonly bos: number | null;
  readonly eos: number | null;
  /** What ends an assistant turn: the last special token of one, else eos. */
  readonly stop: number | null;
}

const message = (role: string, content: string): Message =>
  new Map([
    ["role", role],
    ["content", content],
  ]);

/**
 * BOS and EOS of the tokenizer, and the token that ends a turn: a short conversation is rendered with and without its answer, and the last special
 * token of what the answer adds is it. Without a template, or where none can be found, the stop token is eos.
 */
export async function endTokens(tokenizer: Tokenizer, template: ChatTemplate | null): Promise<EndTokens> {
  const { bos, eos } = tokenizer;
  const stop = template ? await turnEnd(tokenizer, template) : null;
  return { bos, eos, stop: stop ?? eos };
}

async function turnEnd(tokenizer: Tokenizer, template: ChatTemplate): Promise<number | null> {
  const question = [message("user", "Hello")];
  let prompt: string;
  let full: string;
  try {
    prompt = template.render({ messages: question, addGenerationPrompt: true }).text;
    full = template.render({ messages: [...question, message("assistant", "Hi")] }).text;
  } catch (e) {
    if (e instanceof RowError) return null;
    throw e;
  }
  const from = full.startsWith(prompt) ? prompt.length : full.lastIndexOf("Hi");
  const [encoded] = await tokenizer.encode([{ text: full.slice(Math.max(from, 0)), special: false }]);
  const special = new Set(tokenizer.specialIds.values());
  return encoded!.ids.findLast((id) => special.has(id)) ?? null;
}
