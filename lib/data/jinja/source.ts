// A template's text -> the library's syntax tree. White space around tags goes as Jinja's trim_blocks and lstrip_blocks have it, `{% generation %}` becomes a
// call block, and what the library would read differently from Python is refused.

import { parse, tokenize } from "@huggingface/jinja";
import { TemplateError, unsupported } from "./library.ts";
import type { Node } from "./library.ts";
import { PY_SPACE, lstrip, rstrip } from "./text.ts";

/** Name of the function that marks what a `{% generation %}` block prints. */
export const GENERATION = "__generation__";

interface Token {
  readonly value: string;
  readonly type: string;
}

const OPEN = /\{([%{#])([-+]?)/g;
const CLOSE: Readonly<Record<string, RegExp>> = { "%": /([-+]?)%\}/y, "{": /(-?)\}\}/y, "#": /([-+]?)#\}/g };
const PIECE = /'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\d\w*(?:\.\d\w*)?|\w+|./sy;
const SPACE = new RegExp(`[${PY_SPACE}]*`, "y");

/** Reads a template. Errors: TemplateError with the line. */
export function parseTemplate(template: string): Node {
  const source = template.replace(/\r\n?/g, "\n").replace(/\n$/, "");
  const tokens: Token[] = [];
  const lines: number[] = []; // of each token
  let at = 0;
  let line = 1;
  let last = 0; // the token that the parser has come to
  try {
    let lineStarting = true;
    for (OPEN.lastIndex = 0; at < source.length; OPEN.lastIndex = at) {
      const m = OPEN.exec(source);
      const [open, kind, sign] = m ?? ["", "{", ""];
      const text = source.slice(at, m?.index);
      const kept = m ? strip(text, sign!, kind !== "{", lineStarting) : text;
      if (kept !== "") lines[tokens.push({ value: kept, type: "Text" }) - 1] = line;
      if (!m) break;
      line += count(text);
      const [body, end] = readTag(source, m.index + open.length, kind!);
      if (kind !== "#") for (const t of tokensOf(body, kind!)) lines[tokens.push(t) - 1] = line;
      line += count(source.slice(m.index, end));
      lineStarting = source[end - 1] === "\n";
      at = end;
    }
    const get = (_: unknown, key: string): unknown => {
      if (Number(key) > last) last = Number(key);
      return tokens[key as unknown as number];
    };
    return parse(new Proxy(tokens, { get: get as never }) as never) as unknown as Node;
  } catch (e) {
    const where = last > 0 ? lines[Math.min(last, lines.length - 1)] : line;
    // The parser reads past the end of what it was given.
    const why = e instanceof TypeError ? "it ends inside a tag or a block" : (e as Error).message;
    throw new TemplateError(`${why}, on line ${where}`, { cause: e });
  }
}

const count = (text: string): number => text.split("\n").length - 1;

/** What is left of the text before a tag. */
function strip(text: string, sign: string, isBlock: boolean, lineStarting: boolean): string {
  if (sign === "-") return rstrip(text);
  const line = text.lastIndexOf("\n") + 1;
  const alone = isBlock && sign === "" && (line > 0 || lineStarting) && lstrip(text.slice(line)) === "";
  return alone ? text.slice(0, line) : text;
}

/** What stands between the ends of a tag, and the place after it with the white space that it takes away. */
function readTag(source: string, from: number, kind: string): [string, number] {
  let depth = 0;
  let body = "";
  const close = CLOSE[kind]!;
  for (let at = from; at < source.length;) {
    close.lastIndex = at;
    const end = depth === 0 ? close.exec(source) : null;
    if (end) {
      const after = end.index + end[0].length;
      SPACE.lastIndex = after;
      if (end[1] === "-") return [body, after + SPACE.exec(source)![0].length];
      return [body, end[1] === "" && kind !== "{" && source[after] === "\n" ? after + 1 : after];
    }
    if (kind === "#") break;
    PIECE.lastIndex = at;
    const piece = PIECE.exec(source)![0];
    if ("([{".includes(piece)) depth++;
    else if (")]}".includes(piece)) depth--;
    // The library looks for its tags in strings too.
    if (/^['"]/.test(piece)) body += piece.replace(/(\\.)|\{(?=%)/gs, (_, escape?: string) => escape ?? "\\x7b");
    else if (!/^\d/.test(piece) || /^\d{1,15}(\.\d+)?$/.test(piece)) body += piece;
    else unsupported(`the number ${piece}`);
    at += piece.length;
  }
  throw new TemplateError("a tag must be closed, got the end of the template");
}

function tokensOf(body: string, kind: string): readonly Token[] {
  const generation = kind === "%" ? /^\s*(end)?generation\s*$/.exec(body) : null;
  const inner = generation ? (generation[1] ? "endcall" : `call ${GENERATION}()`) : body;
  const tokens: readonly Token[] = tokenize(kind === "%" ? `{% ${inner} %}` : `{{ ${inner} }}`);
  check(tokens);
  return tokens;
}

const isText = (t: Token): boolean => t.type === "StringLiteral";
const isName = (t?: Token): boolean => t?.type === "Identifier" && !/^(if|else|and|or|not|in|is)$/.test(t.value);
const ends = (t?: Token): boolean => isName(t) || /^(Numeric|String|Close(Pa|Sq|Cu))/.test(t?.type ?? "");
const starts = (t?: Token): boolean => isName(t) || /^(Numeric|String|OpenCu|Unary)/.test(t?.type ?? "");

/** Refuses `a < b < c`, which the parser takes for `(a < b) < c`, tests with arguments and missing commas, which it does not mind inside brackets. */
function check(tokens: readonly Token[]): void {
  const compared = [false]; // at each depth of brackets
  tokens.forEach((t, i) => {
    const before = tokens[i - 1];
    const next = tokens[i + 1];
    if (t.value === "varargs" && t.type === "Identifier") unsupported("varargs");
    const isTest = before?.value === "is" || (before?.value === "not" && tokens[i - 2]?.value === "is");
    if (isTest && t.value !== "not" && (starts(next) || next?.value === "is" || /^Open(Pa|Sq)/.test(next?.type ?? "")))
      unsupported(`is ${t.value} with an argument or a further test`);
    if (compared.length > 1 && ends(before) && starts(t) && !(isText(before!) && isText(t)))
      throw new TemplateError(`an operator or a comma must stand between ${before!.value} and ${t.value}`);
    if (/^Open(Pa|Sq|Cu)/.test(t.type)) compared.push(false);
    else if (/^Close(Pa|Sq|Cu)/.test(t.type)) compared.pop();
    else if (t.type === "ComparisonBinaryOperator" || (t.type === "Identifier" && t.value === "in")) {
      if (compared.at(-1)) unsupported("a chained comparison (a < b < c)");
      compared[compared.length - 1] = true;
    } else if (/^(and|or|if|else|[,:=])$/.test(t.value) && !isText(t)) compared[compared.length - 1] = false;
  });
}
