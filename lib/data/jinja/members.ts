// `x.name` and `x[key]`: elements, and the methods of Python's str and dict that templates call.

import { Bool, Dict, Func, Int, List, NONE, Namespace, None, Str, TemplateError, Tuple, UNDEFINED } from "./library.ts";
import { Undefined, View, bool, isList, pairs, str, unsupported } from "./library.ts";
import type { Kwargs, Value } from "./library.ts";
import { PY_SPACE, lstrip, rstrip } from "./text.ts";

/** A function of `self` and of arguments by place or by name. */
export type Named<T> = readonly [names: string, f: (self: T, ...args: (Value | undefined)[]) => Value];

/** Calls one. Errors: TemplateError for arguments that it does not have. */
export function call<T>(what: string, [names, f]: Named<T>, self: T, args: readonly Value[], kwargs: Kwargs): Value {
  const order = names.split(" ").filter((name) => name !== "");
  const bound: (Value | undefined)[] = [...args];
  for (const [name, v] of kwargs) bound[order.includes(name) ? order.indexOf(name) : order.length] = v;
  if (bound.length > order.length) unsupported(`${what} with other arguments than (${order.join(", ")})`);
  return f(self, ...bound);
}

/** The arguments of a call as the library passes them: those by name come last. */
export function splitArguments(args: readonly Value[]): [Value[], Kwargs] {
  const last = args.at(-1);
  const named = last?.type === "KeywordArgumentsValue";
  return [args.slice(0, named ? -1 : undefined), named ? (last.value as Kwargs) : new Map()];
}

export function textOf(v: Value | undefined, what: string): string {
  if (v instanceof Str) return v.value;
  throw new TemplateError(`${what} must be a string, got ${v?.type ?? "nothing"}`);
}

export function intOf(v: Value | undefined, what: string): number {
  const n = v instanceof Int || v instanceof Bool ? Number(v.value) : NaN;
  if (Number.isSafeInteger(n)) return n;
  throw new TemplateError(`${what} must be an integer, got ${v?.type ?? "nothing"}`);
}

/** The text of an argument that may be missing or None. */
export const textOr = (v: Value | undefined, what: string): string | undefined =>
  v === undefined || v instanceof None ? undefined : textOf(v, what);

export function capitalize(s: string): string {
  const first = s === "" ? "" : String.fromCodePoint(s.codePointAt(0)!);
  return first.toUpperCase() + s.slice(first.length).toLowerCase();
}

const WORD = new RegExp(`^[^${PY_SPACE}]+`);

/** str.split(), by white space where `by` is undefined. */
function split(s: string, by: string | undefined, limit: number): string[] {
  if (by === "") throw new TemplateError("a separator must not be empty");
  const out: string[] = [];
  for (let rest = by === undefined ? lstrip(s) : s; ;) {
    if (by === undefined && rest === "") return out;
    const at = by === undefined ? WORD.exec(rest)![0].length : rest.indexOf(by);
    if (at < 0 || out.length === limit) return [...out, rest];
    out.push(rest.slice(0, at));
    rest = by === undefined ? lstrip(rest.slice(at)) : rest.slice(at + by.length);
  }
}

function replace(s: string, from: string, to: string, count: number): string {
  if (from === "") unsupported("replacing an empty text");
  const parts = split(s, from, count);
  return parts.join(to);
}

const someAffix = (v: Value | undefined, test: (affix: string) => boolean): Value =>
  bool((v instanceof Tuple ? v.value : [v]).some((x) => test(textOf(x, "a prefix or suffix"))));
const CHARS = "the characters to strip";

export const STR: Readonly<Record<string, Named<string>>> = {
  capitalize: ["", (s) => str(capitalize(s))],
  endswith: ["suffix", (s, v) => someAffix(v, (x) => s.endsWith(x))],
  lower: ["", (s) => str(s.toLowerCase())],
  lstrip: ["chars", (s, c) => str(lstrip(s, textOr(c, CHARS)))],
  replace: [
    "old new count",
    (s, a, b, n) => str(replace(s, textOf(a, "old"), textOf(b, "new"), n ? intOf(n, "count") : -1)),
  ],
  rstrip: ["chars", (s, c) => str(rstrip(s, textOr(c, CHARS)))],
  split: ["sep maxsplit", (s, by, n) => new List(split(s, textOr(by, "sep"), n ? intOf(n, "maxsplit") : -1).map(str))],
  startswith: ["prefix", (s, v) => someAffix(v, (x) => s.startsWith(x))],
  strip: ["chars", (s, c) => str(rstrip(lstrip(s, textOr(c, CHARS)), textOr(c, CHARS)))],
  title: ["", (s) => str(s.replace(/\p{L}+/gu, capitalize))],
  upper: ["", (s) => str(s.toUpperCase())],
};

const DICT: Readonly<Record<string, Named<InstanceType<typeof Dict>>>> = {
  get: ["key default", (d, k, or) => (k instanceof Str ? d.value.get(k.value) : undefined) ?? or ?? NONE],
  items: ["", (d) => new View(pairs(d))],
  keys: ["", (d) => new View([...d.value.keys()].map(str))],
  values: ["", (d) => new View([...d.value.values()])],
};

/** What `loop` is. It changes from pass to pass, and its attributes are computed where they are asked for. */
export class Loop extends Namespace {
  index0 = 0;
  readonly #items: readonly Value[];
  constructor(items: readonly Value[]) {
    super(new Map());
    this.#items = items;
  }
  get(name: string): Value {
    const [i, n] = [this.index0, this.#items.length];
    const counts = { index: i + 1, index0: i, revindex: n - i, revindex0: n - i - 1, length: n };
    if (Object.hasOwn(counts, name)) return new Int(counts[name as keyof typeof counts]);
    if (name === "first" || name === "last") return bool(i === (name === "first" ? 0 : n - 1));
    if (name === "previtem" || name === "nextitem")
      return this.#items[name === "previtem" ? i - 1 : i + 1] ?? UNDEFINED;
    return unsupported(`loop.${name}`);
  }
}

function attribute(box: Value, name: string): Value | undefined {
  if (box instanceof Loop) return box.get(name);
  if (box instanceof Namespace) return box.value.get(name);
  const bound = <T>(table: Readonly<Record<string, Named<T>>>, self: T): Value | undefined =>
    Object.hasOwn(table, name)
      ? new Func((args) => call(`${name}()`, table[name]!, self, ...splitArguments(args)))
      : undefined;
  return box instanceof Str ? bound(STR, box.value) : box instanceof Dict ? bound(DICT, box) : undefined;
}

/** `x.name`: attributes come before keys (`x.items`), as in Python. */
export function member(box: Value, name: string): Value {
  return attribute(box, name) ?? (box instanceof Dict ? box.value.get(name) : undefined) ?? UNDEFINED;
}

/** `x[key]`: keys come before attributes. */
export function subscript(box: Value, key: Value): Value {
  if (key instanceof Str) return (box instanceof Dict && box.value.get(key.value)) || member(box, key.value);
  const items = isList(box) ? box.value : box instanceof Str ? Array.from(box.value, str) : [];
  return (key instanceof Int || key instanceof Bool ? items.at(Number(key.value)) : undefined) ?? UNDEFINED;
}

/** `a.b.0`: elements of elements. Errors: TemplateError for one of nothing. */
export function lookup(item: Value, path: Value): Value {
  if (!(path instanceof Str)) return subscript(item, path);
  return path.value.split(".").reduce((v, key) => {
    if (v instanceof Undefined) throw new TemplateError(`what has ${key} must be defined`);
    return subscript(v, /^\d+$/.test(key) ? new Int(Number(key)) : str(key));
  }, item);
}
