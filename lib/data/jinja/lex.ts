// Cuts a chat template into the tokens that @huggingface/jinja's parser takes, by the rules of Python's Jinja 3.1 lexer with trim_blocks and lstrip_blocks:
// white space and its signs, raw blocks, string escapes and numbers. A generation block becomes a call of `__generation__`, a test becomes a filter.

import { PY_SPACE, isPySpace, pyRstrip } from "./text.ts";

/** A token as the parser reads it; `type` is one of the library's names. */
export interface Token {
  readonly value: string;
  readonly type: string;
}

/** Name of the function that wraps what a `{% generation %}` block prints. */
export const GENERATION = "__generation__";
/** A test `x is NAME` is parsed as a filter of this name, so that tests can take arguments. */
export const TEST = "__is__";
export const TEST_NOT = "__is_not__";

/** Name of the function that makes a tuple of its arguments. */
export const TUPLE = "__tuple__";

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

const OPERATORS: readonly (readonly [string, string])[] = [
  ["//", "MultiplicativeBinaryOperator"],
  ["**", "ExponentiationBinaryOperator"],
  ["==", "ComparisonBinaryOperator"],
  ["!=", "ComparisonBinaryOperator"],
  [">=", "ComparisonBinaryOperator"],
  ["<=", "ComparisonBinaryOperator"],
  ["+", "AdditiveBinaryOperator"],
  ["-", "AdditiveBinaryOperator"],
  ["~", "AdditiveBinaryOperator"],
  ["/", "MultiplicativeBinaryOperator"],
  ["%", "MultiplicativeBinaryOperator"],
  ["*", "MultiplicativeBinaryOperator"],
  ["[", "OpenSquareBracket"],
  ["]", "CloseSquareBracket"],
  ["(", "OpenParen"],
  [")", "CloseParen"],
  ["{", "OpenCurlyBracket"],
  ["}", "CloseCurlyBracket"],
  [">", "ComparisonBinaryOperator"],
  ["<", "ComparisonBinaryOperator"],
  ["=", "Equals"],
  [".", "Dot"],
  [":", "Colon"],
  ["|", "Pipe"],
  [",", "Comma"],
];
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
    if (text in CLOSERS) balance.push(CLOSERS[text]!);
    else if (")]}".includes(text) && balance.pop() !== text)
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

/** The parser reads integers as doubles; larger ones go through the `int` filter. */
function exactInteger(t: Token): readonly Token[] {
  if (t.type !== "NumericLiteral" || t.value.includes(".") || Number.isSafeInteger(Number(t.value))) return [t];
  return [op("("), { value: t.value, type: "StringLiteral" }, op("|"), name("int"), op(")")];
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

const name = (value: string): Token => ({ value, type: "Identifier" });
const op = (value: string): Token => ({ value, type: OPERATORS.find(([text]) => text === value)![1] });

type Fail = (message: string) => never;

function emit(inner: readonly Token[], isBlock: boolean, out: Token[], fail: Fail): void {
  out.push(isBlock ? { value: "{%", type: "OpenStatement" } : { value: "{{", type: "OpenExpression" });
  const only = isBlock && inner.length === 1 && inner[0]!.type === "Identifier" ? inner[0]!.value : "";
  if (only === "generation") out.push(name("call"), name(GENERATION), op("("), op(")"));
  else if (only === "endgeneration") out.push(name("endcall"));
  else out.push(...testsAsFilters(tuples(inner), fail).flatMap(exactInteger));
  out.push(isBlock ? { value: "%}", type: "CloseStatement" } : { value: "}}", type: "CloseExpression" });
}

const isName = (t: Token | undefined, ...names: string[]): boolean =>
  t?.type === "Identifier" && names.includes(t.value);
const OPENERS = new Set(["OpenParen", "OpenSquareBracket", "OpenCurlyBracket"]);

const KEYWORDS = ["in", "not", "and", "or", "if", "else", "is", "elif", "set"];

/** `(x,)`, `(x, y,)` and `()`, which the parser does not take -> `__tuple__(x)`, ... */
function tuples(tokens: readonly Token[]): Token[] {
  const out = [...tokens];
  for (let i = out.length - 1; i >= 0; i--) {
    if (out[i]!.type !== "OpenParen") continue;
    const before = out[i - 1];
    const isCall =
      before !== undefined &&
      ((before.type === "Identifier" && !isName(before, ...KEYWORDS)) ||
        before.type.startsWith("Close") ||
        before.type === "StringLiteral");
    const end = closing(out, i) - 1;
    if (isCall || (end > i + 1 && out[end - 1]?.type !== "Comma")) continue;
    if (end > i + 1) out.splice(end - 1, 1);
    out.splice(i, 0, name(TUPLE));
  }
  return out;
}

/** `x is [not] name`, `x is name(args)` and `x is name arg` -> `x | __is__("name", args)`: Jinja gives both the same precedence. */
function testsAsFilters(tokens: readonly Token[], fail: Fail): Token[] {
  const out: Token[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const before = tokens[i - 1];
    if (!isName(tokens[i], "is") || before === undefined || before.type === "Dot" || before.type === "Pipe") {
      out.push(tokens[i]!);
      continue;
    }
    let at = i + 1;
    const not = isName(tokens[at], "not");
    if (not) at++;
    const test = tokens[at];
    if (test?.type !== "Identifier") {
      out.push(tokens[i]!);
      continue;
    }
    const end = argumentEnd(tokens, at + 1);
    const args = tokens.slice(at + 1, end);
    const inParens = args[0]?.type === "OpenParen" && closing(tokens, at + 1) === end;
    const list = testsAsFilters(inParens ? args.slice(1, -1) : args, fail);
    if (isName(tokens[end], "is")) fail("tests must not be chained with is");
    out.push(op("|"), name(not ? TEST_NOT : TEST), op("("), { value: test.value, type: "StringLiteral" });
    if (list.length > 0) out.push(op(","), ...list);
    out.push(op(")"));
    i = end - 1;
  }
  return out;
}

/** End of the argument of a test, which may come without parentheses: a primary with its members and calls. */
function argumentEnd(tokens: readonly Token[], from: number): number {
  const first = tokens[from];
  if (first === undefined) return from;
  let at: number;
  if (OPENERS.has(first.type)) at = closing(tokens, from);
  else if (first.type === "StringLiteral" || first.type === "NumericLiteral") at = from + 1;
  else if (
    first.type === "Identifier" &&
    !isName(first, "else", "or", "and", "is", "if", "in", "not", "for", "recursive")
  )
    at = from + 1;
  else return from;
  if (first.type === "OpenParen") return at;
  for (;;) {
    const next = tokens[at];
    if (next?.type === "Dot") at += 2;
    else if (next !== undefined && (next.type === "OpenParen" || next.type === "OpenSquareBracket"))
      at = closing(tokens, at);
    else return Math.min(at, tokens.length);
  }
}

/** Index after the bracket that closes the one at `at`. */
function closing(tokens: readonly Token[], at: number): number {
  let depth = 0;
  for (let i = at; i < tokens.length; i++) {
    const { type } = tokens[i]!;
    if (OPENERS.has(type)) depth++;
    else if (type.startsWith("Close") && --depth === 0) return i + 1;
  }
  return tokens.length;
}
