// Chat templates: a conversation -> text, and the spans of it that `{% generation %}` blocks printed. Behaves as transformers' renderer does.

import { DataError } from "../errors.ts";
import { makeGlobals } from "./jinja/globals.ts";
import { PythonInterpreter } from "./jinja/interpreter.ts";
import type { Limits } from "./jinja/interpreter.ts";
import { Scope, TemplateError, toValue } from "./jinja/library.ts";
import type { Node } from "./jinja/library.ts";
import { parseTemplate } from "./jinja/source.ts";
import { pyLength } from "./jinja/text.ts";
import type { Json, JsonObject } from "./json.ts";
import { RowError } from "./schema.ts";
import type { Message } from "./schema.ts";

/** A rendered conversation; spans are [start, end) in code points. */
export interface Rendering {
  readonly text: string;
  readonly spans: readonly (readonly [number, number])[];
}

export interface RenderInput {
  readonly messages: readonly Message[];
  readonly tools?: Json;
  readonly kwargs?: JsonObject;
  readonly addGenerationPrompt?: boolean;
}

export interface TemplateOptions {
  /** Templates by name: `default`, and `tool_use` for rows with tools where there is one. */
  readonly sources: ReadonlyMap<string, string>;
  /** Named special tokens, which templates read as variables. */
  readonly special: ReadonlyMap<string, string>;
  /** What `strftime_now` prints. */
  readonly date: Date;
  readonly limits?: Limits;
}

interface Compiled {
  readonly program: Node;
  readonly source: string;
  readonly marked: boolean;
}

const LIMITS: Limits = { steps: 20_000_000, text: 1 << 26 };
const FIRST_MARK = 0xfdd0;
const MARKS = /[\ufdd0-\ufdef]/;

/** The templates of a model. Errors: DataError from the constructor for a template that cannot be read. */
export class ChatTemplate {
  readonly #templates = new Map<string, Compiled>();
  readonly #special: ReadonlyMap<string, string>;
  readonly #date: Date;
  readonly #limits: Limits;

  constructor(options: TemplateOptions) {
    for (const [name, source] of options.sources) {
      try {
        const marked = /\{%[-+]?\s*generation\s*[-+]?%\}/.test(source);
        this.#templates.set(name, { program: parseTemplate(source), source, marked });
      } catch (e) {
        const which = name === "default" ? "chat template" : `chat template ${JSON.stringify(name)}`;
        throw new DataError(`${which}: must be a Jinja template, got an error: ${(e as Error).message}`, { cause: e });
      }
    }
    this.#special = options.special;
    this.#date = options.date;
    this.#limits = options.limits ?? LIMITS;
  }

  /** Whether the template that a row with or without tools gets marks what the assistant says. */
  marks(tools: Json = null): boolean {
    return this.#pick(tools).marked;
  }

  /** Renders a conversation. Errors: RowError `template_error`, with the template's own message where it raised one. */
  render(input: RenderInput): Rendering {
    const { program, source } = this.#pick(input.tools ?? null);
    const data: Json = [input.messages as Json[], input.tools ?? null, input.kwargs ?? null];
    const [open, close] = freeMarks(source, data);
    const outer = new Scope();
    const set = (name: string, v: Json): unknown => outer.variables.set(name, toValue(v));
    for (const [name, v] of makeGlobals(this.#date, (printed) => open + printed + close)) outer.variables.set(name, v);
    for (const [name, v] of this.#special) set(name, v);
    for (const [name, v] of input.kwargs ?? []) set(name, v);
    set("messages", input.messages as Json[]);
    set("tools", input.tools ?? null);
    set("documents", null);
    set("add_generation_prompt", input.addGenerationPrompt ?? false);
    try {
      const text = new PythonInterpreter(this.#limits).evaluate(program, new Scope(outer)).value as string;
      return readMarks(text, open, close);
    } catch (e) {
      // The library throws errors of every kind.
      throw new RowError(
        "template_error",
        `the chat template must render the conversation, got an error: ${(e as Error).message}`,
      );
    }
  }

  #pick(tools: Json): Compiled {
    const found = (tools !== null ? this.#templates.get("tool_use") : undefined) ?? this.#templates.get("default");
    if (found) return found;
    const names = [...this.#templates.keys()].join(", ");
    throw new DataError(
      `chat template: one named "default" must exist, got ${names} (name one with chat_template_path)`,
    );
  }
}

/** Two code points that neither the template nor the data hold. They stand for the ends of a span while the text is rendered. */
function freeMarks(source: string, data: Json): [string, string] {
  const used = new Set<string>();
  const note = (text: string): void => {
    if (MARKS.test(text)) for (const c of text) used.add(c);
  };
  const walk = (v: Json): void => {
    if (typeof v === "string") note(v);
    else if (Array.isArray(v)) v.forEach(walk);
    else if (v instanceof Map)
      for (const [k, x] of v) {
        note(k);
        walk(x);
      }
  };
  walk(data);
  note(source);
  for (const [, hex] of source.matchAll(/\\u([0-9a-fA-F]{4})/g)) used.add(String.fromCharCode(parseInt(hex!, 16)));
  const free: string[] = [];
  for (let i = 0; i < 32 && free.length < 2; i++) {
    const c = String.fromCharCode(FIRST_MARK + i);
    if (!used.has(c)) free.push(c);
  }
  if (free.length < 2) throw new RowError("bad_text", "a text must not hold all of the noncharacters U+FDD0 to U+FDEF");
  return [free[0]!, free[1]!];
}

function readMarks(marked: string, open: string, close: string): Rendering {
  if (!marked.includes(open) && !marked.includes(close)) return { text: marked, spans: [] };
  const spans: [number, number][] = [];
  const starts: number[] = [];
  let text = "";
  let at = 0;
  for (const part of marked.split(new RegExp(`([${open}${close}])`))) {
    if (part === open) starts.push(at);
    else if (part === close) {
      const start = starts.pop();
      if (start === undefined) throw new TemplateError("a generation block must be printed whole");
      spans.push([start, at]);
    } else {
      text += part;
      at += pyLength(part);
    }
  }
  if (starts.length > 0) throw new TemplateError("a generation block must be printed whole");
  return { text, spans };
}

/** The day that `chat_template_date` names ("2026-07-26"), else now. Errors: DataError. */
export function templateDate(text: string | null): Date {
  if (text === null) return new Date();
  const m = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text);
  const date = m ? new Date(Number(m[1]), Number(m[2]) - 1, Number(m[3])) : new Date(NaN);
  if (!m || date.getMonth() !== Number(m[2]) - 1)
    throw new DataError(`chat_template_date: must be a date such as 2026-07-26, got ${JSON.stringify(text)}`);
  return date;
}
