// `attune generate`: completions of texts or answers to conversations, one after another.

import { basename } from "node:path";
import type { Json, JsonObject } from "../data/json.ts";
import { readRows } from "../data/rows.ts";
import { conversation, RowError } from "../data/schema.ts";
import { DataError } from "../errors.ts";
import { parseShape } from "../train/config_parse.ts";
import { refuse } from "./flags.ts";
import type { Command } from "./command.ts";
import { library } from "./library.ts";
import { generateShape } from "./shapes.ts";
import { printable } from "./text.ts";

export const command: Command = {
  summary: "Let a model go on from texts, or answer questions",
  examples: [
    'attune generate --model ./model --prompt "Once upon a time"',
    'attune generate --model ./model --chat --prompt "What is a llama?"',
    "attune generate --model ./model --data prompts.jsonl --json > answers.jsonl",
  ],
  shape: generateShape,
  argument: { name: "[model]", description: "The same as --model." },
  async run(call, io) {
    const flags = call.argument === undefined ? call.flags : { model: call.argument, ...call.flags };
    const options = parseShape(generateShape, flags, { spelling: "snake", label: (key) => `--${key}` });
    if (options.prompt.length === 0 && options.data === null)
      refuse(["--prompt: must be given, or --data: got neither"]);
    const inputs: Input[] = [...options.prompt];
    if (options.data !== null) inputs.push(...(await readPrompts(options.data)));
    const prompts = inputs.map((prompt) => asked(prompt, options.chat, options.system));
    const { openGenerator } = await library.generate();
    await using generator = await openGenerator({
      model: options.model,
      device: options.device,
      dtype: options.dtype,
      threads: options.threads,
      chatTemplatePath: options.chat_template_path,
      chatTemplateDate: options.chat_template_date,
    });
    const completions = generator.generate(prompts, {
      maxNewTokens: options.max_new_tokens,
      temperature: options.temperature,
      topK: options.top_k,
      topP: options.top_p,
      seed: options.seed,
      signal: io.signal,
    });
    let row = 0;
    for await (const { text, tokens, finishReason } of completions) {
      const input = inputs[row]!;
      const prompt = typeof input === "string" ? input : input.map(plain);
      if (io.json) io.value({ row, prompt, completion: text, tokens, finish_reason: finishReason });
      else io.text(forEyes(input, typeof prompts[row] === "string", text));
      row++;
      io.progress.update({ name: "generating", done: row, total: prompts.length, unit: "prompts" });
    }
  },
};

type Input = string | readonly JsonObject[];

/** A message as the data room has it. */
export function message(role: string, content: string): JsonObject {
  return new Map<string, Json>([
    ["role", role],
    ["content", content],
  ]);
}

/** What the model gets: with `chat` a text is a user's message; a conversation gets the system message if it has none. */
function asked(prompt: Input, chat: boolean, system: string | null): Input {
  if (typeof prompt === "string" && !chat) return prompt;
  const messages = typeof prompt === "string" ? [message("user", prompt)] : prompt;
  return system === null || messages[0]?.get("role") === "system" ? messages : [message("system", system), ...messages];
}

/** The prompts of a file, all checked before the first is answered. */
async function readPrompts(path: string): Promise<Input[]> {
  const prompts: Input[] = [];
  for await (const { line, value } of readRows(path)) {
    const where = `${basename(path)}:${line}`;
    const column = ["prompt", "messages"].find((name) => value.has(name));
    if (column === undefined) {
      const got = [...value.keys()].slice(0, 8).join(", ") || "no columns";
      throw new DataError(`${where}: a row must have "prompt" (a text or messages) or "messages", got ${printable(got)}`);
    }
    const prompt = value.get(column);
    if (typeof prompt === "string") prompts.push(prompt);
    else prompts.push(messagesOf(value, column, where));
  }
  return prompts;
}

function messagesOf(row: JsonObject, column: string, where: string): readonly JsonObject[] {
  try {
    return conversation(row, column, { task: "sft" });
  } catch (error) {
    throw error instanceof RowError ? new DataError(`${where}: ${error.message}`, { cause: error }) : error;
  }
}

function forEyes(prompt: Input, goesOn: boolean, text: string): string {
  if (typeof prompt === "string" && goesOn) return `${printable(prompt + text, true)}\n`;
  const last = typeof prompt === "string" ? prompt : String(prompt.at(-1)?.get("content") ?? "");
  return `> ${printable(last, true)}\n${printable(text, true)}\n`;
}

/** A row's JSON as JSON.stringify takes it. */
function plain(value: Json): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, one]) => [key, plain(one)]));
  if (Array.isArray(value)) return value.map(plain);
  return typeof value === "bigint" ? Number(value) : value;
}
