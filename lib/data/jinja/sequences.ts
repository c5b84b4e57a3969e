// The filters that work on lists of things: sorting, selecting, mapping, grouping.

import { bind } from "./arguments.ts";
import type { RunFilter } from "./filters.ts";
import { runTest } from "./tests.ts";
import { Namespace, TemplateError, Tuple, Undefined, compare, equal, given, iterate, listOf, truth } from "./values.ts";
import type { Kwargs, Value } from "./values.ts";

/** `a.b.0`: attributes and elements by a dotted path, or one element by its number; `fallback` for each that is missing. */
export function lookup(item: Value, path: Value, fallback?: Value): Value {
  const step = (v: Value, key: Value): Value => {
    const found = element(v, key);
    return found instanceof Undefined && fallback !== undefined && fallback !== null ? fallback : found;
  };
  if (typeof path !== "string") return step(item, path);
  return path.split(".").reduce<Value>((v, key) => step(v, /^\d+$/.test(key) ? BigInt(key) : key), item);
}

function element(v: Value, key: Value): Value {
  const missing = (): Undefined => new Undefined(`an element ${JSON.stringify(String(key))}`);
  if (v instanceof Map) return v.has(key) ? v.get(key)! : missing();
  if (v instanceof Namespace) return given(v.attributes.get(String(key)), missing());
  if (v instanceof Undefined) v.fail();
  const list = listOf(v) ?? (typeof v === "string" ? Array.from(v) : undefined);
  return typeof key === "bigint" && list ? given(list[Number(key)], missing()) : missing();
}

interface Arrange {
  readonly reverse?: boolean;
  readonly caseSensitive?: boolean;
  readonly attribute?: Value | undefined;
}

/** Sorted, stable, by an attribute or several (`"a,b"`), strings without case unless told. */
export function arrange(v: Value, o: Arrange): Value[] {
  const paths = typeof o.attribute === "string" ? o.attribute.split(",") : [o.attribute ?? null];
  const keyed = iterate(v).map((item) => ({
    item,
    keys: paths.map((p) => fold(p === null ? item : lookup(item, p), o.caseSensitive ?? false)),
  }));
  const sign = o.reverse ? -1 : 1;
  keyed.sort((a, b) => {
    for (let i = 0; i < paths.length; i++) {
      const c = equal(a.keys[i]!, b.keys[i]!) ? 0 : compare(a.keys[i]!, b.keys[i]!);
      if (c !== 0) return sign * c;
    }
    return 0;
  });
  return keyed.map((k) => k.item);
}

const fold = (v: Value, caseSensitive: boolean): Value =>
  typeof v === "string" && !caseSensitive ? v.toLowerCase() : v;

export function dictSort(v: Value, a: ReadonlyMap<string, Value>): Value {
  if (!(v instanceof Map)) throw new TemplateError("dictsort needs a dict");
  const at = (a.get("by") ?? "key") === "value" ? 1n : 0n;
  const items = [...v].map(([k, x]) => new Tuple([k, x]));
  return arrange(items, {
    reverse: truth(a.get("reverse") ?? false),
    caseSensitive: truth(a.get("case_sensitive") ?? false),
    attribute: at,
  });
}

export function groupBy(v: Value, a: ReadonlyMap<string, Value>): Value {
  const attribute = a.get("attribute") ?? 0n;
  const key = (x: Value): Value => lookup(x, attribute, a.get("default"));
  const caseSensitive = truth(a.get("case_sensitive") ?? false);
  const items = iterate(v).map((x) => new Tuple([fold(key(x), caseSensitive), key(x), x]));
  const groups: { fold: Value; key: Value; list: Value[] }[] = [];
  for (const item of arrange(items, { attribute: 0n, caseSensitive: true })) {
    const [folded, name, x] = (item as Tuple).items as [Value, Value, Value];
    const last = groups.at(-1);
    if (last && equal(last.fold, folded)) last.list.push(x);
    else groups.push({ fold: folded, key: name, list: [x] });
  }
  return groups.map((g) => new Tuple([g.key, g.list]));
}

/** select, reject and their *attr forms. */
export function pick(keep: boolean, byAttribute: boolean): (v: Value, args: readonly Value[], kwargs: Kwargs) => Value {
  return (v, args, kwargs) => {
    bind("a filter", [], [], kwargs);
    const [attribute, ...more] = byAttribute ? args : [null, ...args];
    const [name, ...testArgs] = more;
    if (!truth(v)) return []; // as Jinja, whatever it is
    return iterate(v).filter((item) => {
      const x = byAttribute ? lookup(item, attribute ?? "") : item;
      return (name === undefined ? truth(x) : runTest(String(name), x, testArgs)) === keep;
    });
  };
}

/** map("filter", ...) or map(attribute=..., default=...). */
export function mapItems(v: Value, args: readonly Value[], kwargs: Kwargs, run: RunFilter): Value {
  if (!truth(v)) return []; // as Jinja, whatever it is
  if (args.length === 0 && kwargs.has("attribute"))
    return iterate(v).map((x) => lookup(x, kwargs.get("attribute")!, kwargs.get("default")));
  const [name, ...rest] = args;
  if (typeof name !== "string") throw new TemplateError("map needs the name of a filter or an attribute");
  return iterate(v).map((x) => run(name, x, rest, kwargs));
}

export function batch(items: readonly Value[], size: number, fill: Value): Value {
  if (size < 1) throw new TemplateError(`batch needs a size of at least 1, got ${size}`);
  const out: Value[][] = [];
  for (let i = 0; i < items.length; i += size) out.push(items.slice(i, i + size));
  const last = out.at(-1);
  if (last && fill !== null) while (last.length < size) last.push(fill);
  return out;
}

export function slices(items: readonly Value[], count: number, fill: Value): Value {
  if (count < 1) throw new TemplateError(`slice needs a count of at least 1, got ${count}`);
  const each = Math.floor(items.length / count);
  const extra = items.length % count;
  let at = 0;
  return Array.from({ length: count }, (_, i) => {
    const part = items.slice(at, (at += each + (i < extra ? 1 : 0)));
    if (fill !== null && i >= extra && extra > 0) part.push(fill);
    return part;
  });
}

/** Python's slice of a list. */
export function pySlice<T>(
  items: readonly T[],
  start: number | undefined,
  stop: number | undefined,
  step: number,
): T[] {
  if (step === 0) throw new TemplateError("a slice's step must not be 0");
  const n = items.length;
  const clamp = (i: number): number => {
    const at = i < 0 ? i + n : i;
    return step > 0 ? Math.min(Math.max(at, 0), n) : Math.min(Math.max(at, -1), n - 1);
  };
  const from = start === undefined ? (step > 0 ? 0 : n - 1) : clamp(start);
  const to = stop === undefined ? (step > 0 ? n : -1) : clamp(stop);
  const out: T[] = [];
  for (let i = from; step > 0 ? i < to : i > to; i += step) out.push(items[i]!);
  return out;
}
