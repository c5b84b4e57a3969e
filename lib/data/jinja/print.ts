// How Python prints values: str, repr and json.dumps.

import { Bool, Dict, Float, Int, None, Str, Tuple, Undefined, isList, unsupported } from "./library.ts";
import type { Value } from "./library.ts";

/** Python's str(). */
export function text(v: Value): string {
  if (v instanceof Str) return v.value;
  return v instanceof Undefined ? "" : print(v, REPR);
}

export interface Style {
  readonly words: readonly [none: string, no: string, yes: string];
  readonly quote: (s: string) => string;
  /** Null: on one line. */
  readonly indent: string | null;
  readonly separators: readonly string[];
  readonly sortKeys: boolean;
}
const REPR: Style = {
  words: ["None", "False", "True"],
  quote: reprText,
  indent: null,
  separators: [", ", ": "],
  sortKeys: false,
};

/** repr(), or json.dumps() in another style. Errors: TemplateError for what JSON cannot hold and for what is not supported. */
export function print(v: Value, style: Style, level = 0): string {
  const { words, quote, indent, separators, sortKeys } = style;
  if (v instanceof Str) return quote(v.value);
  if (v instanceof None) return words[0];
  if (v instanceof Bool) return words[v.value ? 2 : 1];
  if (v instanceof Int) return String(v.value);
  if (v instanceof Float) return reprFloat(v.value);
  if (v instanceof Undefined && style === REPR) return "Undefined";
  const inner = (x: Value): string => print(x, style, level + 1);
  const entries = v instanceof Dict ? [...v.value] : null;
  if (sortKeys) entries?.sort(([a], [b]) => compareText(a, b));
  const items =
    entries?.map(([k, x]) => quote(k) + separators[1] + inner(x)) ?? (isList(v) ? v.value.map(inner) : null);
  if (!items) return unsupported(`printing a ${v.type} that is not made a list`);
  const [open, close] = entries ? "{}" : v instanceof Tuple && style === REPR ? "()" : "[]";
  const line = indent === null || items.length === 0 ? "" : "\n" + indent.repeat(level);
  const end = open === "(" && items.length === 1 ? "," : line;
  return open + (line && line + indent) + items.join(separators[0] + (line && line + indent)) + end + close;
}

/** Shortest decimal that reads back, with an exponent below 1e-4 and from 1e16, as Python writes it. */
function reprFloat(x: number): string {
  if (!Number.isFinite(x)) unsupported(`the number ${x}`);
  const power = Number(x.toExponential().split("e")[1]);
  if (x !== 0 && (power < -4 || power >= 16)) return x.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  const plain = Object.is(x, -0) ? "-0" : String(x);
  return plain.includes(".") ? plain : `${plain}.0`;
}

const SHORT: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function reprText(s: string): string {
  const quote = s.includes("'") && !s.includes('"') ? '"' : "'";
  const body = s.replace(/['"\\]|(?! )[\p{C}\p{Z}]/gu, (c) => {
    if (c === "'" || c === '"') return c === quote ? `\\${c}` : c;
    const code = c.codePointAt(0)!;
    const hex = (letter: string, width: number): string => `\\${letter}${code.toString(16).padStart(width, "0")}`;
    return SHORT[c] ?? (code < 0x100 ? hex("x", 2) : code < 0x10000 ? hex("u", 4) : hex("U", 8));
  });
  return quote + body + quote;
}

/** By code points, as bytes of UTF-8 are; UTF-16 puts those past U+FFFF before U+E000. */
export const compareText = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));
