// The filters and tests of Jinja that chat templates use, and transformers' own `tojson`. One that is missing here is an error, never ignored.

import { Bool, Dict, Float, Func, Int, Lazy, List, NONE, None, Str, TemplateError, UNDEFINED } from "./library.ts";
import { Undefined, isList, pairs, str, toValue, truth, unsupported } from "./library.ts";
import type { Kwargs, Value } from "./library.ts";
import { STR, call, capitalize, intOf, lookup, textOf, textOr } from "./members.ts";
import type { Named } from "./members.ts";
import { compare, contains, equal, iterate, lengthOf, numeric } from "./operators.ts";
import { print, text } from "./print.ts";
import { LINE_END, PY_SPACE, lstrip, rstrip } from "./text.ts";

const isCase = (v: Value, has: RegExp, not: RegExp): boolean => has.test(text(v)) && !not.test(text(v));
const isBox = (v: Value): boolean => v instanceof Str || v instanceof Dict || v instanceof Undefined;

const TESTS: Readonly<Record<string, (v: Value, x: Value) => boolean>> = {
  boolean: (v) => v instanceof Bool,
  callable: (v) => v instanceof Func || v instanceof Undefined,
  defined: (v) => !(v instanceof Undefined),
  eq: (v, x) => equal(v, x),
  equalto: (v, x) => equal(v, x),
  even: (v) => intOf(v, "what is even") % 2 === 0,
  false: (v) => v instanceof Bool && !v.value,
  float: (v) => v instanceof Float,
  in: (v, box) => contains(box, v),
  integer: (v) => v instanceof Int,
  iterable: (v) => v instanceof List || isBox(v),
  lower: (v) => isCase(v, /\p{Ll}/u, /[\p{Lu}\p{Lt}]/u),
  mapping: (v) => v instanceof Dict,
  ne: (v, x) => !equal(v, x),
  none: (v) => v instanceof None,
  number: (v) => numeric(v) !== undefined,
  odd: (v) => intOf(v, "what is odd") % 2 !== 0,
  sequence: (v) => isList(v) || isBox(v),
  string: (v) => v instanceof Str,
  true: (v) => v instanceof Bool && v.value,
  undefined: (v) => v instanceof Undefined,
  upper: (v) => isCase(v, /\p{Lu}/u, /[\p{Ll}\p{Lt}]/u),
};

/** `v is name`, or with an argument in select("name", x). Errors: TemplateError. */
export function runTest(name: string, v: Value, args: readonly Value[] = []): boolean {
  const test = Object.hasOwn(TESTS, name) ? TESTS[name] : undefined;
  if (!test || test.length !== args.length + 1) unsupported(`the test ${name} with ${args.length} arguments`);
  return test(v, args[0]!);
}

/** Sorted by one attribute or by none, strings without case unless told; equal ones keep their order. */
function sort(v: Value, reverse?: Value, caseSensitive?: Value, attribute?: Value): Value {
  if (attribute instanceof Str && attribute.value.includes(",")) unsupported("sorting by several attributes");
  const key = (x: Value): Value => (attribute ? lookup(x, attribute) : x);
  const keyed = iterate(v).map((x) => ({ x, key: truth(caseSensitive) ? key(x) : fold(key(x)) }));
  const sign = truth(reverse) ? -1 : 1;
  return new List(keyed.sort((a, b) => sign * compare(a.key, b.key)).map(({ x }) => x));
}
const fold = (v: Value): Value => (v instanceof Str ? str(v.value.toLowerCase()) : v);

/** The number that a value is or spells. */
function numberOf(v: Value): number | bigint | undefined {
  if (v instanceof Undefined) throw new TemplateError("a number must be defined");
  if (!(v instanceof Str)) return numeric(v);
  const s = rstrip(lstrip(v.value)).toLowerCase();
  if (/_|inf|nan/.test(s)) unsupported(`the number ${s}`);
  if (/^[-+]?\d{1,4300}$/.test(s)) return BigInt(s.replace("+", ""));
  return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/.test(s) ? Number(s) : undefined;
}

function tojson(v: Value, ascii?: Value, indent: Value = NONE, separators?: Value, sortKeys?: Value): Value {
  const by = indent instanceof None ? null : spaces(indent);
  const pair = truth(separators) ? iterate(separators!).map(text) : [by === null ? ", " : ",", ": "];
  const escape = (c: string): string => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const quote = (s: string): string => JSON.stringify(s).replace(truth(ascii) ? /[\x7f-\uffff]/g : /$^/, escape);
  const words = ["null", "false", "true"] as const;
  return str(print(v, { words, quote, indent: by, separators: pair, sortKeys: truth(sortKeys) }));
}

function spaces(width: Value): string {
  if (width instanceof Str) return width.value;
  const n = intOf(width, "a width");
  return n > 1000 ? unsupported("a width past 1000") : " ".repeat(Math.max(0, n));
}

function indent(v: Value, width?: Value, first?: Value, blank?: Value): Value {
  const by = width ? spaces(width) : "    ";
  const s = textOf(v, "what is indented");
  if (LINE_END.test(s)) unsupported("indenting a text whose lines end otherwise than with \\n");
  const line = (x: string, i: number): string => (i === 0 || (x === "" && !truth(blank)) ? x : by + x);
  return str((truth(first) ? by : "") + s.split("\n").map(line).join("\n"));
}

const ofText = (name: string): Named<Value> => [STR[name]![0], (v, ...args) => STR[name]![1](text(v), ...args)];
const dict = (v: Value): InstanceType<typeof Dict> => (v instanceof Dict ? v : unsupported(`items of ${v.type}`));

const FILTERS: Readonly<Record<string, Named<Value>>> = {
  abs: ["", (v) => (v instanceof Float ? new Float(Math.abs(v.value)) : new Int(Math.abs(intOf(v, "a number"))))],
  capitalize: ofText("capitalize"),
  default: [
    "default_value boolean",
    (v, or, all) => (v instanceof Undefined || (truth(all) && !truth(v)) ? (or ?? str("")) : v),
  ],
  dictsort: [
    "case_sensitive by reverse",
    (v, cased, by, reverse) =>
      sort(new List(pairs(dict(v))), reverse, cased, new Int(textOr(by, "by") === "value" ? 1 : 0)),
  ],
  first: ["", (v) => iterate(v)[0] ?? UNDEFINED],
  float: ["default", (v, or = new Float(0)) => ((n) => (n === undefined ? or : new Float(Number(n))))(numberOf(v))],
  indent: ["width first blank", indent],
  int: [
    "default",
    (v, or = new Int(0)) => {
      const n = numberOf(v);
      if (n === undefined) return or;
      return toValue(typeof n === "bigint" || !Number.isFinite(n) ? n : BigInt(Math.trunc(n)));
    },
  ],
  items: ["", (v) => new Lazy(v instanceof Undefined ? [] : pairs(dict(v)))],
  join: [
    "d attribute",
    (v, by = str(""), a) =>
      str(
        iterate(v)
          .map((x) => text(a ? lookup(x, a) : x))
          .join(text(by)),
      ),
  ],
  last: ["", (v) => iterate(v).at(-1) ?? UNDEFINED],
  length: ["", (v) => new Int(lengthOf(v))],
  list: ["", (v) => new List([...iterate(v)])],
  lower: ofText("lower"),
  replace: ofText("replace"),
  reverse: [
    "",
    (v) => (v instanceof Str ? str(Array.from(v.value).reverse().join("")) : new Lazy([...iterate(v)].reverse())),
  ],
  safe: ["", (v) => str(text(v))],
  sort: ["reverse case_sensitive attribute", sort],
  string: ["", (v) => str(text(v))],
  title: ["", (v) => str(text(v).replace(new RegExp(`[^${PY_SPACE}\\-({[<]+`, "gu"), capitalize))],
  tojson: ["ensure_ascii indent separators sort_keys", tojson],
  trim: ofText("strip"),
  unique: ["", (v) => new Lazy(iterate(v).filter((x, i, all) => all.findIndex((y) => equal(fold(x), fold(y))) === i))],
  upper: ofText("upper"),
};

/** `v | name(...)`. Errors: TemplateError. */
export function runFilter(name: string, v: Value, args: readonly Value[], kwargs: Kwargs): Value {
  if (Object.hasOwn(FILTERS, name)) return call(name, FILTERS[name]!, v, args, kwargs);
  const kind = /^(select|reject|map)(attr)?$/.exec(name);
  if (!kind || (kwargs.size > 0 && (args.length > 0 || name !== "map"))) unsupported(`the filter ${name}`);
  if (!truth(v)) return new Lazy([]); // as Jinja, whatever it is
  if (name === "map" && args.length > 0)
    return new Lazy(iterate(v).map((x) => runFilter(text(args[0]!), x, args.slice(1), kwargs)));
  if (name === "map") return call("map", ["attribute default", mapAttribute], v, args, kwargs);
  const attribute = kind[2] ? args[0] : undefined;
  const [test, ...more] = kind[2] ? args.slice(1) : args;
  const passes = (x: Value): boolean => (test ? runTest(text(test), x, more) : truth(x)) === (kind[1] === "select");
  return new Lazy(iterate(v).filter((x) => passes(attribute ? lookup(x, attribute) : x)));
}

function mapAttribute(v: Value, attribute: Value = UNDEFINED, or?: Value): Value {
  const found = iterate(v).map((x) => lookup(x, attribute));
  return new Lazy(found.map((x) => (x instanceof Undefined ? (or ?? x) : x)));
}
