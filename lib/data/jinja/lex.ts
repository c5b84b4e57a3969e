// Cuts a chat template into the tokens that @huggingface/jinja's parser takes, by the rules of Python's Jinja 3.1 lexer with trim_blocks and lstrip_blocks:
// white space and its signs, raw blocks, string escapes and numbers. A generation block becomes a call of `__generation__`, a test becomes a filter.

import { OPERATORS, emit } from "./rewrite.ts";
import type { Token } from "./rewrite.ts";
import { PY_SPACE, isPySpace, pyRstrip } from "./text.ts";

/** A template that cannot be read, with its line. */
export class TemplateSyntaxError extends Error {
  constructor(message: string, source: string, at: number) {
    super(`line ${source.slice(0, at).split("\n").length}: ${message}`);
    this.name = "TemplateSyntaxError";
  }
}

const SPACE = new RegExp(`[${PY_SPACE}]*`, "y");
const RAW_OPEN = new RegExp(`\\{%([-+]?)[${PY_SPACE}]*raw[${PY_SPACE}]*(?:-%\\}[${PY_SPACE}]*|%\\})`, "y");
const RAW_CLOSE = new RegExp(
  `\\{%([-+]?)[${PY_SPACE}]*endraw[${PY_SPACE}]*(?:\\+%\\}|-%\\}[${PY_SPACE}]*|%\\}\\n?)`,
  "g",
);
const COMMENT_CLOSE = new RegExp(`\\+#\\}|-#\\}[${PY_SPACE}]*|#\\}\\n?`, "g");
const BLOCK_CLOSE = new RegExp(`\\+%\\}|-%\\}[${PY_SPACE}]*|%\\}\\n?`, "y");
const VARIABLE_CLOSE = new RegExp(`-\\}\\}[${PY_SPACE}]*|\\}\\}`, "y");
const FLOAT = /(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy;
const INTEGER = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const NAME = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}_]*/uy;
const STRING = /'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"/sy;

const MAX_NESTING = 200;
const CLOSERS: Readonly<Record<string, string>> = { "{": "}", "(": ")", "[": "]" };

/** Tokens of a template. Errors: TemplateSyntaxError. */
export function lex(template: string): Token[] {
  const source = normalise(template);
  const tokens: Token[] = [];
  let pos = 0;
  let lineStarting = true;
  const text = (data: string): void => {
    if (data !== "") tokens.push({ value: data, type: "Text" });
  };
  while (pos < source.length) {
    const open = nextTag(source, pos);
    if (open < 0) {
      text(source.slice(pos));
      break;
    }
    const raw = matchAt(RAW_OPEN, source, open);
    const kind = raw ? "raw" : source[open + 1]!;
    const sign = raw ? (raw[1] ?? "") : /[-+]/.test(source[open + 2] ?? "") ? source[open + 2]! : "";
    text(strip(source.slice(pos, open), sign, kind !== "{", lineStarting));
    let end: number;
    if (raw) {
      const from = open + raw[0].length;
      RAW_CLOSE.lastIndex = from;
      const close = RAW_CLOSE.exec(source);
      if (!close) throw new TemplateSyntaxError("a raw block must have an {% endraw %}", source, open);
      text(strip(source.slice(from, close.index), close[1] ?? "", true, raw[0].endsWith("\n")));
      end = close.index + close[0].length;
    } else if (kind === "#") {
      COMMENT_CLOSE.lastIndex = open + 2;
      const close = COMMENT_CLOSE.exec(source);
      if (!close) throw new TemplateSyntaxError("a comment must have a #}", source, open);
      end = close.index + close[0].length;
    } else {
      end = lexTag(source, open, open + 2 + sign.length, kind === "%", tokens);
    }
    lineStarting = source[end - 1] === "\n";
    pos = end;
  }
  return tokens;
}

/** Line ends become \n; one at the very end goes. */
function normalise(template: string): string {
  const text = template.replace(/\r\n?/g, "\n");
  return text.endsWith("\n") ? text.slice(0, -1) : text;
}

function nextTag(source: string, from: number): number {
  for (let i = source.indexOf("{", from); i >= 0; i = source.indexOf("{", i + 1)) {
    const c = source[i + 1];
    if (c === "%" || c === "{" || c === "#") return i;
  }
  return -1;
}

function strip(text: string, sign: string, isBlock: boolean, lineStarting: boolean): string {
  if (sign === "-") return pyRstrip(text);
  if (sign === "+" || !isBlock) return text;
  const line = text.lastIndexOf("\n") + 1;
  if (line === 0 && !lineStarting) return text;
  for (let i = line; i < text.length; i++) if (!isPySpace(text[i]!)) return text;
  return text.slice(0, line);
}

function matchAt(regex: RegExp, source: string, at: number): RegExpExecArray | null {
  regex.lastIndex = at;
  return regex.exec(source);
}

/** Tokens of one tag; returns where it ends. */
function lexTag(source: string, open: number, from: number, isBlock: boolean, out: Token[]): number {
  const balance: string[] = [];
  const inner: Token[] = [];
  const close = isBlock ? BLOCK_CLOSE : VARIABLE_CLOSE;
  let pos = from;
  for (;;) {
    pos += matchAt(SPACE, source, pos)![0].length;
    if (pos >= source.length)
      throw new TemplateSyntaxError("a tag must be closed, got the end of the template", source, open);
    const end = balance.length === 0 ? matchAt(close, source, pos) : null;
    if (end) {
      emit(inner, isBlock, out, (message) => {
        throw new TemplateSyntaxError(message, source, open);
      });
      return pos + end[0].length;
    }
    const float = source[pos - 1] === "." ? null : matchAt(FLOAT, source, pos);
    const m = float ?? matchAt(INTEGER, source, pos) ?? matchAt(NAME, source, pos) ?? matchAt(STRING, source, pos);
    if (m) {
      inner.push(literal(m[0], float !== null, source, pos));
      pos += m[0].length;
      continue;
    }
    const operator = OPERATORS.find(([text]) => source.startsWith(text, pos));
    if (!operator)
      throw new TemplateSyntaxError(`a tag must hold Jinja, got ${JSON.stringify(source[pos])}`, source, pos);
    const [text, type] = operator;
    if (text in CLOSERS && balance.push(CLOSERS[text]!) > MAX_NESTING)
      throw new TemplateSyntaxError(`brackets must nest at most ${MAX_NESTING} deep`, source, pos);
    if (")]}".includes(text) && balance.pop() !== text)
      throw new TemplateSyntaxError(`brackets must match, got ${JSON.stringify(text)}`, source, pos);
    inner.push({ value: text, type });
    pos += text.length;
  }
}

function literal(text: string, float: boolean, source: string, at: number): Token {
  const first = text[0]!;
  if (first === "'" || first === '"') return { value: unescape(text.slice(1, -1), source, at), type: "StringLiteral" };
  if (!/\d/.test(first)) return { value: text, type: "Identifier" };
  const digits = text.replaceAll("_", "");
  // The parser tells floats by their dot; Number reads the rest.
  if (float) return { value: digits.includes(".") ? digits : digits.replace(/e/i, ".0e"), type: "NumericLiteral" };
  return { value: BigInt(digits).toString(), type: "NumericLiteral" };
}

const SIMPLE: Readonly<Record<string, string>> = {
  "\n": "",
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** Python's unicode-escape: unknown escapes stay as they are. */
function unescape(text: string, source: string, at: number): string {
  if (!text.includes("\\")) return text;
  return text.replace(/\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|[^])/g, (whole, e: string) => {
    if (Object.hasOwn(SIMPLE, e)) return SIMPLE[e]!;
    if (/^[0-7]/.test(e)) return String.fromCodePoint(parseInt(e, 8));
    if (/^[xuUN]/.test(e)) {
      const code = e.length > 1 ? parseInt(e.slice(1), 16) : NaN;
      if (!(code <= 0x10ffff))
        throw new TemplateSyntaxError(`an escape must be one of Python's, got ${JSON.stringify(whole)}`, source, at);
      return String.fromCodePoint(code);
    }
    return whole;
  });
}
