// How Python prints values: str, repr and json.dumps.

import { Namespace, PyFunction, TemplateError, Tuple, Undefined, compareText, typeName } from "./values.ts";
import type { Value } from "./values.ts";

/** Python's str(). */
export function str(v: Value): string {
  if (typeof v === "string") return v;
  return v instanceof Undefined ? "" : repr(v);
}

/** Python's repr(). */
export function repr(v: Value): string {
  if (v === null) return "None";
  if (typeof v === "boolean") return v ? "True" : "False";
  if (typeof v === "string") return reprText(v);
  if (typeof v === "bigint") return v.toString();
  if (typeof v === "number") return reprFloat(v);
  if (Array.isArray(v)) return `[${v.map(repr).join(", ")}]`;
  if (v instanceof Tuple) return v.items.length === 1 ? `(${repr(v.items[0]!)},)` : `(${v.items.map(repr).join(", ")})`;
  if (v instanceof Map) return `{${[...v].map(([k, x]) => `${repr(k)}: ${repr(x)}`).join(", ")}}`;
  if (v instanceof Undefined) return "Undefined";
  if (v instanceof Namespace) return `<Namespace ${repr(new Map<Value, Value>(v.attributes))}>`;
  return v instanceof PyFunction ? `<function ${v.name}>` : `<${typeName(v)}>`;
}

/** Shortest decimal that reads back, with an exponent below 1e-4 and from 1e16, as Python writes it. */
export function reprFloat(x: number): string {
  if (Number.isNaN(x)) return "nan";
  if (!Number.isFinite(x)) return x > 0 ? "inf" : "-inf";
  const [mantissa = "0", exponent = "0"] = x.toExponential().split("e");
  const power = Number(exponent);
  const negative = mantissa.startsWith("-") || Object.is(x, -0);
  const digits = mantissa.replace("-", "").replace(".", "");
  let out: string;
  if (x !== 0 && (power < -4 || power >= 16)) {
    const tail = digits.length > 1 ? `.${digits.slice(1)}` : "";
    out = `${digits[0]}${tail}e${power < 0 ? "-" : "+"}${Math.abs(power).toString().padStart(2, "0")}`;
  } else if (power < 0) {
    out = `0.${"0".repeat(-power - 1)}${digits}`;
  } else {
    out = `${digits.slice(0, power + 1).padEnd(power + 1, "0")}.${digits.slice(power + 1) || "0"}`;
  }
  return negative ? `-${out}` : out;
}

function reprText(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let out = quote;
  for (const char of text) {
    if (char === quote || char === "\\") out += `\\${char}`;
    else if (char === "\n") out += "\\n";
    else if (char === "\r") out += "\\r";
    else if (char === "\t") out += "\\t";
    else if (char !== " " && /[\p{C}\p{Z}]/u.test(char)) out += escaped(char.codePointAt(0)!);
    else out += char;
  }
  return out + quote;
}

function escaped(code: number): string {
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}

export interface JsonOptions {
  readonly ensureAscii: boolean;
  /** Null: on one line. */
  readonly indent: string | null;
  readonly separators: readonly [string, string];
  readonly sortKeys: boolean;
}

/** json.dumps. Errors: TemplateError for what JSON cannot hold. */
export function toJson(v: Value, options: JsonOptions, level = 0): string {
  if (v === null) return "null";
  if (typeof v === "boolean") return v ? "true" : "false";
  if (typeof v === "string") return jsonText(v, options.ensureAscii);
  if (typeof v === "bigint") return v.toString();
  if (typeof v === "number") return jsonFloat(v);
  const list = Array.isArray(v) ? v : v instanceof Tuple ? v.items : undefined;
  if (list)
    return wrap(
      "[",
      list.map((x) => toJson(x, options, level + 1)),
      "]",
      options,
      level,
    );
  if (!(v instanceof Map)) throw new TemplateError(`tojson: a value must be JSON, got ${typeName(v)}`);
  let entries = [...v];
  if (options.sortKeys) entries = entries.sort(([a], [b]) => compareText(str(a), str(b)));
  const [, colon] = options.separators;
  const items = entries.map(
    ([k, x]) => jsonText(jsonKey(k), options.ensureAscii) + colon + toJson(x, options, level + 1),
  );
  return wrap("{", items, "}", options, level);
}

function wrap(open: string, items: readonly string[], close: string, o: JsonOptions, level: number): string {
  if (items.length === 0 || o.indent === null) return open + items.join(o.separators[0]) + close;
  const line = "\n" + o.indent.repeat(level + 1);
  return open + line + items.join(o.separators[0] + line) + "\n" + o.indent.repeat(level) + close;
}

function jsonKey(key: Value): string {
  if (typeof key === "string") return key;
  if (key === null || typeof key === "boolean" || typeof key === "bigint" || typeof key === "number")
    return typeof key === "bigint"
      ? key.toString()
      : typeof key === "number"
        ? jsonFloat(key)
        : key === null
          ? "null"
          : key
            ? "true"
            : "false";
  throw new TemplateError(`tojson: a key must be a string or a number, got ${typeName(key)}`);
}

function jsonFloat(x: number): string {
  return Number.isNaN(x) ? "NaN" : Number.isFinite(x) ? reprFloat(x) : x > 0 ? "Infinity" : "-Infinity";
}

function jsonText(text: string, ensureAscii: boolean): string {
  const json = JSON.stringify(text);
  if (!ensureAscii) return json;
  return json.replace(/[\x7f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
