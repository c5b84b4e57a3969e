// The values of a template while it runs, as Python has them: int is bigint, float is number, list is an array, dict is a Map in order.

import { pyLength } from "./text.ts";

export type Value =
  null | boolean | string | bigint | number | Value[] | Tuple | Dict | Undefined | Namespace | PyFunction | Loop;
export type Dict = Map<Value, Value>;
export type Kwargs = ReadonlyMap<string, Value>;

/** A template that fails while it runs: an error of its own (`raise_exception`) or a mistake such as an attribute of nothing. */
export class TemplateError extends Error {
  override name = "TemplateError";
}

export class Tuple {
  readonly items: readonly Value[];
  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** A missing variable, attribute or element: prints as nothing, is false, has no attributes. */
export class Undefined {
  readonly what: string;
  constructor(what: string) {
    this.what = what;
  }
  fail(): never {
    throw new TemplateError(`${this.what} is undefined`);
  }
}

export class Namespace {
  readonly attributes: Map<string, Value>;
  constructor(attributes: Map<string, Value>) {
    this.attributes = attributes;
  }
}

export class PyFunction {
  readonly name: string;
  readonly call: (args: readonly Value[], kwargs: Kwargs) => Value;
  constructor(name: string, call: (args: readonly Value[], kwargs: Kwargs) => Value) {
    this.name = name;
    this.call = call;
  }
}

/** The `loop` variable of a for loop. */
export class Loop {
  readonly items: readonly Value[];
  index0 = 0;
  changed: Value | undefined;
  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

export function typeName(v: Value): string {
  if (v === null) return "NoneType";
  if (typeof v === "boolean") return "bool";
  if (typeof v === "string") return "str";
  if (typeof v === "bigint") return "int";
  if (typeof v === "number") return "float";
  if (Array.isArray(v)) return "list";
  if (v instanceof Tuple) return "tuple";
  if (v instanceof Map) return "dict";
  if (v instanceof Undefined) return "Undefined";
  if (v instanceof Namespace) return "Namespace";
  return v instanceof Loop ? "LoopContext" : "function";
}

export function truth(v: Value): boolean {
  if (v === null || v instanceof Undefined) return false;
  if (typeof v === "boolean") return v;
  if (typeof v === "string") return v !== "";
  if (typeof v === "bigint") return v !== 0n;
  if (typeof v === "number") return v !== 0;
  if (Array.isArray(v)) return v.length > 0;
  if (v instanceof Tuple) return v.items.length > 0;
  if (v instanceof Map) return v.size > 0;
  return true;
}

/** A bool, int or float as a number to compute with; undefined for anything else. */
export function numeric(v: Value): bigint | number | undefined {
  if (typeof v === "boolean") return v ? 1n : 0n;
  return typeof v === "bigint" || typeof v === "number" ? v : undefined;
}

/** Python's ==. */
export function equal(a: Value, b: Value): boolean {
  if (a === b) return true;
  const x = numeric(a);
  const y = numeric(b);
  // bigint and number compare by value
  if (x !== undefined && y !== undefined) return x == y;
  if (Array.isArray(a)) return Array.isArray(b) && sameItems(a, b);
  if (a instanceof Tuple) return b instanceof Tuple && sameItems(a.items, b.items);
  if (a instanceof Map)
    return b instanceof Map && a.size === b.size && [...a].every(([k, v]) => b.has(k) && equal(v, b.get(k)!));
  return a instanceof Undefined && b instanceof Undefined;
}

function sameItems(a: readonly Value[], b: readonly Value[]): boolean {
  return a.length === b.length && a.every((x, i) => equal(x, b[i]!));
}

/** Python's ordering: below 0, 0 or above 0. Errors: TemplateError for kinds that do not compare. */
export function compare(a: Value, b: Value): number {
  if (a instanceof Undefined) a.fail();
  if (b instanceof Undefined) b.fail();
  const x = numeric(a);
  const y = numeric(b);
  if (x !== undefined && y !== undefined) return x < y ? -1 : x > y ? 1 : 0;
  if (typeof a === "string" && typeof b === "string") return compareText(a, b);
  const [p, q] = [listOf(a), listOf(b)];
  if (p && q && typeName(a) === typeName(b)) {
    for (let i = 0; i < Math.min(p.length, q.length); i++) if (!equal(p[i]!, q[i]!)) return compare(p[i]!, q[i]!);
    return p.length - q.length;
  }
  throw new TemplateError(`values must be comparable, got ${typeName(a)} and ${typeName(b)}`);
}

/** By code points: UTF-16 puts code points past U+FFFF before U+E000. */
export function compareText(a: string, b: string): number {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) {
      const wide = (c: number): number => (c >= 0xd800 && c <= 0xdfff ? c + 0x10000 : c);
      return wide(x) - wide(y);
    }
  }
  return a.length - b.length;
}

/** `v`, or `fallback` where it is missing. Unlike ??, None is not missing. */
export function given(v: Value | undefined, fallback: Value): Value {
  return v === undefined ? fallback : v;
}

/** Elements of a list or tuple; undefined for anything else. */
export function listOf(v: Value): readonly Value[] | undefined {
  return Array.isArray(v) ? v : v instanceof Tuple ? v.items : undefined;
}

/** What a for loop walks over. Errors: TemplateError. */
export function iterate(v: Value): readonly Value[] {
  const list = listOf(v);
  if (list) return list;
  if (typeof v === "string") return Array.from(v);
  if (v instanceof Map) return [...v.keys()];
  if (v instanceof Undefined) return [];
  throw new TemplateError(`a ${typeName(v)} is not iterable`);
}

/** Python's len(). Errors: TemplateError. */
export function lengthOf(v: Value): number {
  if (typeof v === "string") return pyLength(v);
  if (v instanceof Map) return v.size;
  if (v instanceof Undefined) return 0;
  const list = listOf(v);
  if (list) return list.length;
  throw new TemplateError(`a ${typeName(v)} has no length`);
}

/** Python's `in`. Errors: TemplateError. */
export function contains(box: Value, v: Value): boolean {
  if (typeof box === "string") {
    if (typeof v === "string") return box.includes(v);
    throw new TemplateError(`'in <string>' needs a string on its left, got ${typeName(v)}`);
  }
  if (box instanceof Map) return box.has(v);
  return iterate(box).some((x) => equal(x, v));
}
