// The methods of Python's str, list, tuple and dict that a sandboxed template may call. Those that change a value are refused, as transformers' sandbox does.

import { bind, intOf, textOf } from "./arguments.ts";
import { formatBraces } from "./format.ts";
import { str } from "./print.ts";
import { isPySpace, pyLength, pyLstrip, pyRstrip } from "./text.ts";
import { PyFunction, TemplateError, Tuple, Undefined, equal, iterate, listOf, typeName } from "./values.ts";
import type { Dict, Kwargs, Value } from "./values.ts";

type Method<T> = (self: T, args: readonly Value[], kwargs: Kwargs) => Value;

const chars = (v: Value | undefined): string | undefined =>
  v === undefined || v === null ? undefined : textOf(v, "characters to strip");
const only = (name: string, args: readonly Value[], kwargs: Kwargs, ...names: string[]): (Value | undefined)[] => {
  const bound = bind(`${name}()`, names, args, kwargs);
  return names.map((n) => bound.get(n));
};

/** Place in UTF-16 units of a slice bound in code points, with Python's clamping. */
function unitsAt(text: string, bound: Value | undefined, fallback: number): number {
  if (bound === undefined || bound === null) return fallback;
  const n = pyLength(text);
  let i = intOf(bound, "a place");
  i = Math.min(Math.max(i < 0 ? i + n : i, 0), n);
  return n === text.length ? i : Array.from(text).slice(0, i).join("").length;
}

function edge(name: string, test: (part: string, affix: string) => boolean): Method<string> {
  return (s, args, kwargs) => {
    const [affix, start, end] = only(name, args, kwargs, "prefix", "start", "end");
    const [from, to] = [unitsAt(s, start, 0), unitsAt(s, end, s.length)];
    const options = affix instanceof Tuple ? affix.items : [affix];
    return from <= to && options.some((a) => test(s.slice(from, to), textOf(a, `${name}()`)));
  };
}

function find(name: string, last: boolean, strict: boolean): Method<string> {
  return (s, args, kwargs) => {
    const [sub, start, end] = only(name, args, kwargs, "sub", "start", "end");
    const [from, to] = [unitsAt(s, start, 0), unitsAt(s, end, s.length)];
    const part = s.slice(from, to);
    const at = from > to ? -1 : last ? part.lastIndexOf(textOf(sub, name)) : part.indexOf(textOf(sub, name));
    if (at < 0 && strict) throw new TemplateError("substring not found");
    return BigInt(at < 0 ? -1 : pyLength(s.slice(0, from + at)));
  };
}

function split(name: string, right: boolean): Method<string> {
  return (s, args, kwargs) => {
    const [sep, max] = only(name, args, kwargs, "sep", "maxsplit");
    const limit = max === undefined ? -1 : intOf(max, "maxsplit");
    if (sep === undefined || sep === null) return splitSpace(s, limit, right);
    const by = textOf(sep, "sep");
    if (by === "") throw new TemplateError("empty separator");
    const parts = s.split(by);
    if (limit < 0 || parts.length <= limit + 1) return parts;
    return right
      ? [parts.slice(0, parts.length - limit).join(by), ...parts.slice(parts.length - limit)]
      : [...parts.slice(0, limit), parts.slice(limit).join(by)];
  };
}

function splitSpace(s: string, limit: number, right: boolean): string[] {
  const out: string[] = [];
  let rest = right ? pyRstrip(s) : pyLstrip(s);
  while (rest !== "") {
    if (limit >= 0 && out.length === limit) {
      out.push(right ? pyRstrip(rest) : pyLstrip(rest));
      break;
    }
    let i = right ? rest.length : 0;
    if (right) while (i > 0 && !isPySpace(rest[i - 1]!)) i--;
    else while (i < rest.length && !isPySpace(rest[i]!)) i++;
    out.push(right ? rest.slice(i) : rest.slice(0, i));
    rest = right ? pyRstrip(rest.slice(0, i)) : pyLstrip(rest.slice(i));
  }
  if (limit >= 0 && !right && out.length > limit) out[limit] = lastWithTail(s, out, limit);
  return right ? out.reverse() : out;
}

/** With maxsplit, the last part keeps the white space at the end of the text. */
function lastWithTail(s: string, parts: readonly string[], limit: number): string {
  return parts[limit]!.length === 0 ? "" : s.slice(s.lastIndexOf(parts[limit]!));
}

export function replaceText(s: string, from: string, to: string, count: number): string {
  if (count < 0) {
    if (from !== "") return s.replaceAll(from, () => to);
    count = Infinity;
  }
  if (from === "") {
    const points = Array.from(s);
    let out = "";
    points.forEach((c, i) => (out += (i < count ? to : "") + c));
    return out + (points.length < count ? to : "");
  }
  const parts = s.split(from);
  if (parts.length - 1 <= count) return parts.join(to);
  return [...parts.slice(0, count), parts.slice(count).join(from)].join(to);
}

function partition(right: boolean): Method<string> {
  return (s, args, kwargs) => {
    const sep = textOf(only("partition", args, kwargs, "sep")[0], "sep");
    if (sep === "") throw new TemplateError("empty separator");
    const at = right ? s.lastIndexOf(sep) : s.indexOf(sep);
    if (at < 0) return new Tuple(right ? ["", "", s] : [s, "", ""]);
    return new Tuple([s.slice(0, at), sep, s.slice(at + sep.length)]);
  };
}

/** str.title(): a letter after anything but a letter is upper case. */
export function titleCase(s: string): string {
  return s.replace(/\p{L}\p{L}*/gu, (word) => capitalize(word));
}

export function capitalize(s: string): string {
  const first = s === "" ? "" : String.fromCodePoint(s.codePointAt(0)!);
  return first.toUpperCase() + s.slice(first.length).toLowerCase();
}

function splitLines(s: string, keep: boolean): string[] {
  const parts = s.split(/(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])/);
  const out: string[] = [];
  for (let i = 0; i < parts.length; i += 2) {
    const end = parts[i + 1];
    if (end === undefined && parts[i] === "") break;
    out.push(parts[i]! + (keep ? (end ?? "") : ""));
  }
  return out;
}

function pad(s: string, args: readonly Value[], left: boolean): string {
  const room = intOf(args[0], "width") - pyLength(s);
  const fill = args[1] === undefined ? " " : textOf(args[1], "fill");
  const gap = room > 0 ? fill.repeat(room) : "";
  return left ? gap + s : s + gap;
}

/** str.center(): an odd blank goes left when the width is odd. */
export function center(s: string, width: number, fill = " "): string {
  const room = width - pyLength(s);
  if (room <= 0) return s;
  const left = Math.floor(room / 2) + (room & width & 1);
  return fill.repeat(left) + s + fill.repeat(room - left);
}

const all =
  (pattern: RegExp): Method<string> =>
  (s) =>
    pattern.test(s);

const STR: Readonly<Record<string, Method<string>>> = {
  capitalize: (s) => capitalize(s),
  casefold: (s) => s.toLowerCase().replaceAll("ß", "ss"),
  center: (s, args) => center(s, intOf(args[0], "width"), args[1] === undefined ? " " : textOf(args[1], "fill")),
  count: (s, args) => {
    const sub = textOf(args[0], "sub");
    return BigInt(sub === "" ? pyLength(s) + 1 : s.split(sub).length - 1);
  },
  endswith: edge("endswith", (part, affix) => part.endsWith(affix)),
  find: find("find", false, false),
  format: (s, args, kwargs) => formatBraces(s, args, kwargs),
  index: find("index", false, true),
  isalnum: all(/^[\p{L}\p{Nd}\p{No}\p{Nl}]+$/u),
  isalpha: all(/^\p{L}+$/u),
  isascii: all(/^[\0-\x7f]*$/),
  isdecimal: all(/^\p{Nd}+$/u),
  isdigit: all(/^[\p{Nd}²³¹⁰⁴-⁹₀-₉]+$/u),
  isnumeric: all(/^[\p{Nd}\p{No}\p{Nl}]+$/u),
  islower: (s) => /\p{Ll}/u.test(s) && !/[\p{Lu}\p{Lt}]/u.test(s),
  isspace: (s) => s !== "" && Array.from(s).every(isPySpace),
  istitle: (s) => /\p{L}/u.test(s) && titleCase(s) === s,
  isupper: (s) => /\p{Lu}/u.test(s) && !/[\p{Ll}\p{Lt}]/u.test(s),
  join: (s, args) =>
    iterate(args[0] ?? new Undefined("join()"))
      .map((x) => textOf(x, "an element of join()"))
      .join(s),
  ljust: (s, args) => pad(s, args, false),
  lower: (s) => s.toLowerCase(),
  lstrip: (s, args) => pyLstrip(s, chars(args[0])),
  partition: partition(false),
  removeprefix: (s, args) => (s.startsWith(textOf(args[0], "prefix")) ? s.slice((args[0] as string).length) : s),
  removesuffix: (s, args) => {
    const suffix = textOf(args[0], "suffix");
    return suffix !== "" && s.endsWith(suffix) ? s.slice(0, -suffix.length) : s;
  },
  replace: (s, args, kwargs) => {
    const [from, to, count] = only("replace", args, kwargs, "old", "new", "count");
    return replaceText(s, textOf(from, "old"), textOf(to, "new"), count === undefined ? -1 : intOf(count, "count"));
  },
  rfind: find("rfind", true, false),
  rindex: find("rindex", true, true),
  rjust: (s, args) => pad(s, args, true),
  rpartition: partition(true),
  rsplit: split("rsplit", true),
  rstrip: (s, args) => pyRstrip(s, chars(args[0])),
  split: split("split", false),
  splitlines: (s, args, kwargs) => splitLines(s, only("splitlines", args, kwargs, "keepends")[0] === true),
  startswith: edge("startswith", (part, affix) => part.startsWith(affix)),
  strip: (s, args) => pyRstrip(pyLstrip(s, chars(args[0])), chars(args[0])),
  swapcase: (s) => s.replace(/\p{L}/gu, (c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase())),
  title: (s) => titleCase(s),
  upper: (s) => s.toUpperCase(),
  zfill: (s, args) => {
    const sign = /^[-+]/.test(s) ? s[0]! : "";
    return sign + "0".repeat(Math.max(0, intOf(args[0], "width") - pyLength(s))) + s.slice(sign.length);
  },
};

const LIST: Readonly<Record<string, Method<readonly Value[]>>> = {
  count: (self, args) => BigInt(self.filter((x) => equal(x, args[0] ?? null)).length),
  index: (self, args) => {
    const at = self.findIndex((x) => equal(x, args[0] ?? null));
    if (at < 0) throw new TemplateError("index(): the value is not in the list");
    return BigInt(at);
  },
  copy: (self) => [...self],
};

const DICT: Readonly<Record<string, Method<Dict>>> = {
  copy: (self) => new Map(self),
  get: (self, args) => (self.has(args[0] ?? null) ? self.get(args[0] ?? null)! : (args[1] ?? null)),
  items: (self) => [...self].map(([k, v]) => new Tuple([k, v])),
  keys: (self) => [...self.keys()],
  values: (self) => [...self.values()],
};

const CHANGING: ReadonlySet<string> = new Set(
  "append extend insert remove reverse sort clear pop popitem setdefault update".split(" "),
);

/** The method `name` of a value, bound to it; undefined where it has none. */
export function method(self: Value, name: string): PyFunction | undefined {
  const list = listOf(self);
  const table = typeof self === "string" ? STR : list ? LIST : self instanceof Map ? DICT : undefined;
  if (!table) return undefined;
  if (Object.hasOwn(table, name)) {
    const f = table[name] as Method<unknown>;
    return new PyFunction(name, (args, kwargs) => f(list ?? self, args, kwargs));
  }
  if (
    typeof self !== "string" &&
    !(self instanceof Tuple) &&
    CHANGING.has(name) &&
    !(Array.isArray(self) && /^(popitem|setdefault|update)$/.test(name))
  )
    return new PyFunction(name, () => {
      throw new TemplateError(`a template must not change its data, got ${typeName(self)}.${name}()`);
    });
  return undefined;
}

/** Joins values as the `join` filter does: each as str() prints it. */
export function joinValues(values: readonly Value[], by: string): string {
  return values.map(str).join(by);
}
