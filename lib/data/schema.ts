// What a row is: TRL's data set types (language modelling, prompt-completion, preference; strings or conversations) and ShareGPT's spelling of them,
// recognised from the row's columns and checked. Source: TRL 1.13 data_utils, with the role and prompt rules that it gets wrong mended.

import { kindOf, parseJson, sameJson } from "./json.ts";
import type { Json, JsonObject } from "./json.ts";
import { splitConversations, splitTexts } from "./implicit_prompt.ts";

export type Message = JsonObject;
/** A text, or a conversation. */
export type Content = string | readonly Message[];

export type Example =
  | { readonly kind: "language"; readonly content: Content }
  | { readonly kind: "completion"; readonly prompt: Content; readonly completion: Content }
  | { readonly kind: "preference"; readonly prompt: Content; readonly chosen: Content; readonly rejected: Content };

/** An example with what its chat template gets besides the messages. */
export interface ReadExample {
  readonly example: Example;
  readonly tools: Json;
  readonly templateKwargs: JsonObject;
  readonly warnings: readonly string[];
  /** Set where the row can be read but must not be trained on. */
  readonly problem: RowError | null;
}

/** Why a row cannot be used. `reason` is a stable word; the message says what must hold and what was there. */
export class RowError extends Error {
  readonly reason: string;
  constructor(reason: string, message: string) {
    super(message);
    this.reason = reason;
  }
}

export interface SchemaOptions {
  readonly task: "sft" | "dpo";
  /** Column of plain texts; TRL's `dataset_text_field`. */
  readonly textField?: string;
  /** Further role names -> one of the known roles. */
  readonly roleMap?: Readonly<Record<string, string>>;
}

export const ROLES: ReadonlySet<string> = new Set([
  "system",
  "developer",
  "user",
  "assistant",
  "tool",
  "function",
  "ipython",
]);
const SHAREGPT_ROLES: Readonly<Record<string, string>> = {
  human: "user",
  gpt: "assistant",
  observation: "tool",
  function_response: "tool",
};
const RESERVED_KWARGS = new Set(
  "messages conversation tools documents chat_template add_generation_prompt continue_final_message tokenize padding truncation max_length return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs".split(
    " ",
  ),
);

/** Reads one row. Errors: RowError. */
export function readExample(row: JsonObject, options: SchemaOptions): ReadExample {
  const warnings: string[] = [];
  checkWellFormed(row);
  const example = options.task === "dpo" ? readPreference(row, options, warnings) : readSft(row, options);
  return { example, tools: readTools(row), templateKwargs: readKwargs(row), warnings, problem: problemOf(example) };
}

function readSft(row: JsonObject, options: SchemaOptions): Example {
  const textField = options.textField ?? "text";
  if (row.has("prompt") && row.has("completion")) {
    const prompt = content(row, "prompt", options);
    const completion = content(row, "completion", options);
    sameFormat("prompt", prompt, "completion", completion);
    return { kind: "completion", prompt, completion };
  }
  if (row.has("messages")) return { kind: "language", content: conversation(row, "messages", options) };
  if (row.has("conversations")) return { kind: "language", content: conversation(row, "conversations", options) };
  if (row.has(textField)) {
    const text = row.get(textField);
    if (typeof text !== "string")
      throw new RowError("wrong_type", `${textField} must be a string, got ${kindOf(text)}`);
    return { kind: "language", content: text };
  }
  const mend = row.has("chosen") ? " (this looks like preference data: train it with dpo)" : "";
  throw new RowError(
    "unknown_columns",
    `a row must have "messages", "conversations", "prompt" and "completion", or "${textField}", got ${columns(row)}${mend}`,
  );
}

function readPreference(row: JsonObject, options: SchemaOptions, warnings: string[]): Example {
  if (!row.has("chosen") || !row.has("rejected"))
    throw new RowError("unknown_columns", `a preference row must have "chosen" and "rejected", got ${columns(row)}`);
  let chosen = content(row, "chosen", options);
  let rejected = content(row, "rejected", options);
  sameFormat("chosen", chosen, "rejected", rejected);
  const given = row.get("prompt");
  let prompt: Content;
  // A prompt text beside conversations repeats their first message (ultrafeedback_binarized): the conversations have it all.
  if (given === undefined || given === null || (typeof given === "string" && typeof chosen !== "string")) {
    const parts =
      typeof chosen === "string"
        ? splitTexts(chosen, rejected as string)
        : splitConversations(chosen, rejected as readonly Message[]);
    ({ prompt, chosen, rejected } = parts);
    if (typeof given === "string" && typeof prompt !== "string" && !prompt.some((m) => m.get("content") === given))
      warnings.push("prompt_ignored");
  } else {
    prompt = content(row, "prompt", options);
    sameFormat("prompt", prompt, "chosen", chosen);
    if (
      typeof prompt !== "string" &&
      prompt.length > 0 &&
      prompt.every((m, i) => sameJson(m, (chosen as readonly Message[])[i]))
    )
      warnings.push("prompt_repeated");
  }
  return { kind: "preference", prompt, chosen, rejected };
}

function columns(row: JsonObject): string {
  const names = [...row.keys()].slice(0, 12);
  return names.length === 0 ? "no columns" : names.map((n) => JSON.stringify(n.slice(0, 40))).join(", ");
}

function content(row: JsonObject, column: string, options: SchemaOptions): Content {
  const value = row.get(column);
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return conversation(row, column, options);
  throw new RowError("wrong_type", `${column} must be a string or a list of messages, got ${kindOf(value)}`);
}

/** The messages of a column, checked. Errors: RowError. */
export function conversation(row: JsonObject, column: string, options: SchemaOptions): readonly Message[] {
  const value = row.get(column);
  if (!Array.isArray(value))
    throw new RowError("wrong_type", `${column} must be a list of messages, got ${kindOf(value)}`);
  if (value.length === 0 && column !== "prompt")
    throw new RowError(
      column === "messages" || column === "conversations" ? "empty_conversation" : "empty_completion",
      `${column} must have at least one message, got none`,
    );
  return value.map((m, i) => message(m, `${column}[${i}]`, options));
}

function message(value: Json, where: string, options: SchemaOptions): Message {
  if (!(value instanceof Map))
    throw new RowError("wrong_type", `${where} must be a message object, got ${kindOf(value)}`);
  const shareGpt = !value.has("role") && value.has("from");
  const out: Message = new Map();
  for (const [k, v] of value) out.set(shareGpt && k === "from" ? "role" : shareGpt && k === "value" ? "content" : k, v);
  const role = out.get("role");
  if (typeof role !== "string") throw new RowError("wrong_type", `${where}.role must be a string, got ${kindOf(role)}`);
  const mapped = Object.hasOwn(options.roleMap ?? {}, role)
    ? options.roleMap![role]!
    : shareGpt && Object.hasOwn(SHAREGPT_ROLES, role)
      ? SHAREGPT_ROLES[role]!
      : role;
  if (!ROLES.has(mapped))
    throw new RowError(
      "unknown_role",
      `${where}.role must be one of ${[...ROLES].join(", ")}, got ${JSON.stringify(role.slice(0, 40))} (rename it)`,
    );
  out.set("role", mapped);
  checkContent(out, where);
  return out;
}

function checkContent(m: Message, where: string): void {
  const value = m.get("content");
  if (typeof value === "string") return;
  if (value === undefined || value === null) {
    const calls = m.get("tool_calls");
    if (
      m.get("role") === "assistant" &&
      ((Array.isArray(calls) && calls.length > 0) || m.get("function_call") instanceof Map)
    )
      return;
    throw new RowError("wrong_type", `${where}.content must be a string, got ${kindOf(value)}`);
  }
  if (!Array.isArray(value))
    throw new RowError("wrong_type", `${where}.content must be a string or a list of parts, got ${kindOf(value)}`);
  value.forEach((part, i) => {
    if (!(part instanceof Map) || typeof part.get("text") !== "string" || (part.get("type") ?? "text") !== "text")
      throw new RowError(
        "wrong_type",
        `${where}.content[${i}] must be a part of type "text", got ${part instanceof Map ? JSON.stringify(String(part.get("type")).slice(0, 40)) : kindOf(part)}`,
      );
  });
}

function sameFormat(a: string, x: Content, b: string, y: Content): void {
  const say = (c: Content): string => (typeof c === "string" ? "a string" : "a list of messages");
  if (say(x) !== say(y))
    throw new RowError(
      "wrong_type",
      `${a} and ${b} must both be strings or both be lists of messages, got ${say(x)} and ${say(y)}`,
    );
}

/** What makes a readable row useless: an empty completion or text, or a pair without a difference. */
function problemOf(example: Example): RowError | null {
  if (example.kind === "language")
    return example.content === "" ? new RowError("empty_text", `the text must have at least one character, got none`) : null;
  const sides =
    example.kind === "completion"
      ? { completion: example.completion }
      : { chosen: example.chosen, rejected: example.rejected };
  for (const [column, value] of Object.entries(sides))
    if (isEmpty(value)) return new RowError("empty_completion", `${column} must have at least one character, got none`);
  if (example.kind === "preference" && sameContent(example.chosen, example.rejected))
    return new RowError("equal_pair", "chosen and rejected must differ, got the same");
  return null;
}

/** A completion is empty when nothing but the end of the turn would be learnt from it. */
function isEmpty(value: Content): boolean {
  return typeof value === "string" ? value === "" : value.every((m) => !hasBody(m));
}

function hasBody(m: Message): boolean {
  const body = m.get("content");
  if (
    typeof body === "string"
      ? body !== ""
      : Array.isArray(body) && body.some((p) => (p as JsonObject).get("text") !== "")
  )
    return true;
  return [...m].some(
    ([k, v]) => k !== "role" && k !== "content" && v !== null && v !== "" && !(Array.isArray(v) && v.length === 0),
  );
}

function sameContent(a: Content, b: Content): boolean {
  return typeof a === "string" ? a === b : sameJson(a as Json, b as Json);
}

function readTools(row: JsonObject): Json {
  let tools = row.get("tools");
  if (typeof tools === "string") tools = parseTools(tools);
  if (tools === undefined || tools === null) return null;
  if (!Array.isArray(tools) || tools.some((t) => !(t instanceof Map)))
    throw new RowError("wrong_type", `tools must be a list of objects or its JSON, got ${kindOf(tools)}`);
  return tools;
}

function parseTools(text: string): Json {
  try {
    return parseJson(text);
  } catch (e) {
    throw new RowError("wrong_type", `tools must be a list of objects or its JSON, got an error: ${(e as Error).message}`);
  }
}

function readKwargs(row: JsonObject): JsonObject {
  const value = row.get("chat_template_kwargs");
  if (value === undefined || value === null) return new Map();
  if (!(value instanceof Map))
    throw new RowError("wrong_type", `chat_template_kwargs must be an object, got ${kindOf(value)}`);
  for (const key of value.keys())
    if (RESERVED_KWARGS.has(key))
      throw new RowError(
        "wrong_type",
        `chat_template_kwargs must leave to the run what it decides, got ${JSON.stringify(key)}`,
      );
  return value;
}

/** Texts must be encodable: a lone surrogate, which JSON's \u escapes can spell, has no UTF-8. */
function checkWellFormed(value: Json): void {
  if (typeof value === "string") {
    if (/\p{Surrogate}/u.test(value))
      throw new RowError("bad_text", "a text must be Unicode, got half of a surrogate pair");
  } else if (Array.isArray(value)) value.forEach(checkWellFormed);
  else if (value instanceof Map)
    for (const [k, v] of value) {
      checkWellFormed(k);
      checkWellFormed(v);
    }
}
