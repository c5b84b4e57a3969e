// Jinja's filters (`x | name(...)`), with `tojson` as transformers defines it. A filter that is missing here is an error, never ignored.

import { bind, intOf, textOf } from "./arguments.ts";
import { formatPercent, toFixedEven } from "./format.ts";
import { capitalize, center, replaceText } from "./methods.ts";
import { str, toJson } from "./print.ts";
import { arrange, batch, dictSort, groupBy, lookup, mapItems, pick, slices } from "./sequences.ts";
import { PY_SPACE, pyLength, pyLstrip, pyRstrip } from "./text.ts";
import {
  Namespace,
  TemplateError,
  Tuple,
  Undefined,
  compare,
  equal,
  given,
  iterate,
  lengthOf,
  numeric,
  truth,
  typeName,
} from "./values.ts";
import type { Kwargs, Value } from "./values.ts";

/** Runs another filter by name, for `map("upper")`. */
export type RunFilter = (name: string, v: Value, args: readonly Value[], kwargs: Kwargs) => Value;
type Filter = (v: Value, args: readonly Value[], kwargs: Kwargs, run: RunFilter) => Value;

/** A filter whose arguments have names, in order. */
const named =
  (names: readonly string[], f: (v: Value, a: ReadonlyMap<string, Value>) => Value): Filter =>
  (v, args, kwargs) =>
    f(v, bind("a filter", names, args, kwargs));

const plain =
  (f: (v: Value) => Value): Filter =>
  (v) =>
    f(v);

function toInt(v: Value, fallback: Value, base: number): Value {
  if (typeof v === "bigint") return v;
  if (typeof v === "boolean") return v ? 1n : 0n;
  if (typeof v === "number") return Number.isFinite(v) ? BigInt(Math.trunc(v)) : fallback;
  if (v instanceof Undefined) v.fail();
  if (typeof v !== "string") return fallback;
  const text = pyRstrip(pyLstrip(v)).replace(/(?<=\d)_(?=\d)/g, "");
  if (base === 10 && /^[-+]?\d+$/.test(text) && text.length < 4300) return BigInt(text.replace("+", ""));
  const prefix = { 2: /^0b/i, 8: /^0o/i, 16: /^0x/i }[base];
  if (prefix && /^[\da-z]+$/i.test(text.replace(prefix, ""))) {
    const n = parseInt(text.replace(prefix, ""), base);
    return Number.isSafeInteger(n) ? BigInt(n) : fallback;
  }
  const float = toFloat(text, null);
  return typeof float === "number" && Number.isFinite(float) ? BigInt(Math.trunc(float)) : fallback;
}

function toFloat(v: Value, fallback: Value): Value {
  const n = numeric(v);
  if (n !== undefined) return Number(n);
  if (v instanceof Undefined) v.fail();
  if (typeof v !== "string") return fallback;
  const text = pyRstrip(pyLstrip(v)).replace(/(?<=\d)_(?=\d)/g, "");
  if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text)) return Number(text);
  const special = /^([-+]?)(inf|infinity|nan)$/i.exec(text);
  if (!special) return fallback;
  return special[2]!.toLowerCase() === "nan" ? NaN : special[1] === "-" ? -Infinity : Infinity;
}

function round(v: Value, a: ReadonlyMap<string, Value>): Value {
  const n = numeric(v);
  if (n === undefined) throw new TemplateError(`round needs a number, got ${typeName(v)}`);
  const precision = a.has("precision") ? intOf(a.get("precision"), "precision") : 0;
  const how = a.has("method") ? textOf(a.get("method"), "method") : "common";
  const scale = 10 ** precision;
  if (how === "ceil") return Math.ceil(Number(n) * scale) / scale;
  if (how === "floor") return Math.floor(Number(n) * scale) / scale;
  if (typeof n === "number")
    return precision < 0
      ? Number(roundInt(BigInt(Math.round(n)), -precision))
      : Number(toFixedEven(n, Math.min(precision, 80)));
  return precision >= 0 ? n : roundInt(n, -precision);
}

/** To a multiple of 10 ** places, halves to even. */
function roundInt(n: bigint, places: number): bigint {
  const unit = 10n ** BigInt(Math.min(places, 400));
  const rest = ((n % unit) + unit) % unit;
  const down = n - rest;
  const up = rest * 2n > unit || (rest * 2n === unit && (down / unit) % 2n !== 0n);
  return up ? down + unit : down;
}

function indent(v: Value, a: ReadonlyMap<string, Value>): Value {
  const width = a.get("width") ?? 4n;
  const by = typeof width === "string" ? width : " ".repeat(Math.max(0, intOf(width, "width")));
  const lines = textLines(textOf(v, "indent's text") + "\n");
  const blank = truth(a.get("blank") ?? false);
  const body = lines.map((line, i) => (i === 0 || (line === "" && !blank) ? line : by + line)).join("\n");
  return truth(a.get("first") ?? false) ? by + body : body;
}

function textLines(text: string): string[] {
  const lines = text.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/);
  return lines.at(-1) === "" ? lines.slice(0, -1) : lines;
}

function truncate(v: Value, a: ReadonlyMap<string, Value>): Value {
  const points = Array.from(textOf(v, "truncate's text"));
  const length = a.has("length") ? intOf(a.get("length"), "length") : 255;
  const end = a.has("end") ? textOf(a.get("end"), "end") : "...";
  const leeway = a.has("leeway") && a.get("leeway") !== null ? intOf(a.get("leeway"), "leeway") : 5;
  if (points.length <= length + leeway) return points.join("");
  const cut = points.slice(0, Math.max(0, length - pyLength(end))).join("");
  if (truth(a.get("killwords") ?? false)) return cut + end;
  const space = cut.lastIndexOf(" ");
  return (space < 0 ? cut : cut.slice(0, space)) + end;
}

function tojson(v: Value, a: ReadonlyMap<string, Value>): Value {
  const given = a.get("indent") ?? null;
  const width =
    given === null ? null : typeof given === "string" ? given : " ".repeat(Math.max(0, intOf(given, "indent")));
  const separators = a.get("separators") ?? null;
  const pair =
    separators === null
      ? [width === null ? ", " : ",", ": "]
      : iterate(separators).map((s) => textOf(s, "a separator"));
  if (pair.length !== 2) throw new TemplateError(`separators must be two, got ${pair.length}`);
  return toJson(v, {
    ensureAscii: truth(a.get("ensure_ascii") ?? false),
    indent: width,
    separators: [pair[0]!, pair[1]!],
    sortKeys: truth(a.get("sort_keys") ?? false),
  });
}

const escapeHtml = (s: string): string =>
  s
    .replaceAll("&", "&amp;")
    .replaceAll(">", "&gt;")
    .replaceAll("<", "&lt;")
    .replaceAll("'", "&#39;")
    .replaceAll('"', "&#34;");

const extreme =
  (sign: number): Filter =>
  (v, args, kwargs) => {
    const a = bind("a filter", ["case_sensitive", "attribute"], args, kwargs);
    const sorted = arrange(v, {
      attribute: a.get("attribute"),
      caseSensitive: truth(a.get("case_sensitive") ?? false),
    });
    if (sorted.length === 0) return new Undefined("the first of an empty list");
    return sign < 0 ? sorted[0]! : sorted.find((x) => compare(x, sorted.at(-1)!) === 0)!;
  };

const first = (v: Value): Value => {
  const items = iterate(v);
  return items.length > 0 ? items[0]! : new Undefined("the first of an empty list");
};

const fallback: Filter = named(["default_value", "boolean"], (v, a) =>
  v instanceof Undefined || (truth(a.get("boolean") ?? false) && !truth(v)) ? given(a.get("default_value"), "") : v,
);

const FILTERS: Readonly<Record<string, Filter>> = {
  abs: plain((v) => {
    const n = numeric(v);
    if (n === undefined) throw new TemplateError(`abs needs a number, got ${typeName(v)}`);
    return typeof n === "bigint" ? (n < 0n ? -n : n) : Math.abs(n);
  }),
  attr: named(["name"], (v, a) =>
    v instanceof Namespace
      ? (v.attributes.get(str(a.get("name") ?? "")) ?? new Undefined("an attribute"))
      : new Undefined("an attribute"),
  ),
  batch: named(["linecount", "fill_with"], (v, a) =>
    batch(iterate(v), intOf(a.get("linecount"), "linecount"), a.get("fill_with") ?? null),
  ),
  capitalize: plain((v) => capitalize(str(v))),
  center: named(["width"], (v, a) => center(str(v), a.has("width") ? intOf(a.get("width"), "width") : 80)),
  count: plain((v) => BigInt(lengthOf(v))),
  d: fallback,
  default: fallback,
  dictsort: named(["case_sensitive", "by", "reverse"], dictSort),
  e: plain((v) => escapeHtml(str(v))),
  escape: plain((v) => escapeHtml(str(v))),
  first: plain(first),
  float: named(["default"], (v, a) => toFloat(v, given(a.get("default"), 0))),
  forceescape: plain((v) => escapeHtml(str(v))),
  format: (v, args, kwargs) => formatPercent(str(v), kwargs.size > 0 ? new Map<Value, Value>(kwargs) : new Tuple(args)),
  groupby: named(["attribute", "default", "case_sensitive"], groupBy),
  indent: named(["width", "first", "blank"], indent),
  int: named(["default", "base"], (v, a) =>
    toInt(v, given(a.get("default"), 0n), a.has("base") ? intOf(a.get("base"), "base") : 10),
  ),
  items: plain((v) => {
    if (v instanceof Undefined) return [];
    if (!(v instanceof Map)) throw new TemplateError(`items needs a dict, got ${typeName(v)}`);
    return [...v].map(([k, x]) => new Tuple([k, x]));
  }),
  join: named(["d", "attribute"], (v, a) => {
    const items =
      a.has("attribute") && a.get("attribute") !== null
        ? iterate(v).map((x) => lookup(x, a.get("attribute")!))
        : iterate(v);
    return items.map(str).join(str(a.get("d") ?? ""));
  }),
  last: plain((v) => given(iterate(v).at(-1), new Undefined("the last of an empty list"))),
  length: plain((v) => BigInt(lengthOf(v))),
  list: plain((v) => [...iterate(v)]),
  lower: plain((v) => str(v).toLowerCase()),
  map: mapItems,
  max: extreme(1),
  min: extreme(-1),
  reject: pick(false, false),
  rejectattr: pick(false, true),
  replace: named(["old", "new", "count"], (v, a) =>
    replaceText(
      str(v),
      str(a.get("old") ?? ""),
      str(a.get("new") ?? ""),
      a.has("count") && a.get("count") !== null ? intOf(a.get("count"), "count") : -1,
    ),
  ),
  reverse: plain((v) => (typeof v === "string" ? Array.from(v).reverse().join("") : [...iterate(v)].reverse())),
  round: named(["precision", "method"], round),
  safe: plain((v) => str(v)),
  select: pick(true, false),
  selectattr: pick(true, true),
  slice: named(["slices", "fill_with"], (v, a) =>
    slices(iterate(v), intOf(a.get("slices"), "slices"), a.get("fill_with") ?? null),
  ),
  sort: named(["reverse", "case_sensitive", "attribute"], (v, a) =>
    arrange(v, {
      reverse: truth(a.get("reverse") ?? false),
      caseSensitive: truth(a.get("case_sensitive") ?? false),
      attribute: a.get("attribute"),
    }),
  ),
  string: plain(str),
  sum: named(["attribute", "start"], (v, a) => {
    const items = iterate(v).map((x) =>
      a.has("attribute") && a.get("attribute") !== null ? lookup(x, a.get("attribute")!) : x,
    );
    return items.reduce<Value>((total, x) => add(total, x), a.get("start") ?? 0n);
  }),
  title: plain((v) => str(v).replace(new RegExp(`[^${PY_SPACE}\\-({[<]+`, "gu"), (word) => capitalize(word))),
  tojson: named(["ensure_ascii", "indent", "separators", "sort_keys"], tojson),
  trim: named(["chars"], (v, a) => {
    const chars = a.get("chars") ?? null;
    const set = chars === null ? undefined : textOf(chars, "chars");
    return pyRstrip(pyLstrip(str(v), set), set);
  }),
  truncate: named(["length", "killwords", "end", "leeway"], truncate),
  unique: named(["case_sensitive", "attribute"], (v, a) => {
    const seen: Value[] = [];
    return iterate(v).filter((x) => {
      const key = a.has("attribute") && a.get("attribute") !== null ? lookup(x, a.get("attribute")!) : x;
      const folded = typeof key === "string" && !truth(a.get("case_sensitive") ?? false) ? key.toLowerCase() : key;
      if (seen.some((y) => equal(y, folded))) return false;
      seen.push(folded);
      return true;
    });
  }),
  upper: plain((v) => str(v).toUpperCase()),
  wordcount: plain((v) => BigInt(str(v).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0)),
};

function add(a: Value, b: Value): Value {
  const x = numeric(a);
  const y = numeric(b);
  if (x === undefined || y === undefined)
    throw new TemplateError(`sum needs numbers, got ${typeName(a)} and ${typeName(b)}`);
  return typeof x === "bigint" && typeof y === "bigint" ? x + y : Number(x) + Number(y);
}

/** Runs a filter. Errors: TemplateError for an unknown one. */
export const runFilter: RunFilter = (name, v, args, kwargs) => {
  if (!Object.hasOwn(FILTERS, name)) throw new TemplateError(`no filter named ${JSON.stringify(name)}`);
  return FILTERS[name]!(v, args, kwargs, runFilter);
};
