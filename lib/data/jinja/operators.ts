// Python's operators on template values, and what it compares, walks over and counts.

import { Bool, Dict, Float, Int, Lazy, List, None, Str, TemplateError, Tuple, Undefined } from "./library.ts";
import { bool, isList, str, unsupported } from "./library.ts";
import type { Value } from "./library.ts";
import { compareText, text } from "./print.ts";
import { pyLength } from "./text.ts";

const MAX_ITEMS = 1_000_000;
type Num = number | bigint;

/** A binary operator other than `and` and `or`. Errors: TemplateError where Python would raise, and for what is not supported. */
export function binary(op: string, a: Value, b: Value): Value {
  if (op === "==" || op === "!=") return bool(equal(a, b) === (op === "=="));
  if (op === "in" || op === "not in") return bool(contains(b, a) === (op === "in"));
  if (op === "~") return str(text(a) + text(b));
  if (op === "<" || op === ">=") return bool(compare(a, b) < 0 === (op === "<"));
  if (op === ">" || op === "<=") return bool(compare(a, b) > 0 === (op === ">"));
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== undefined && y !== undefined) return arithmetic(op, x, y, a instanceof Float || b instanceof Float);
  if (op === "+" && a instanceof Str && b instanceof Str) return str(a.value + b.value);
  if (op === "+" && isList(a) && isList(b) && a instanceof Tuple === b instanceof Tuple) {
    const items = [...a.value, ...b.value];
    if (items.length > MAX_ITEMS) throw new TemplateError(`a list must have at most ${MAX_ITEMS} elements`);
    return a instanceof Tuple ? new Tuple(items) : new List(items);
  }
  return unsupported(`${op} of ${a.type} and ${b.type}`);
}

/** A bool, int or float as a number to compute or compare with. */
export function numeric(v: Value): Num | undefined {
  if (v instanceof Bool) return Number(v.value);
  return v instanceof Int || v instanceof Float ? v.value : undefined;
}

function arithmetic(op: string, p: Num, q: Num, isFloat: boolean): Value {
  const [x, y] = [Number(p), Number(q)];
  if (y === 0 && /[/%]/.test(op)) throw new TemplateError("a divisor must not be 0");
  let rest = x % y;
  if (rest !== 0 && rest < 0 !== y < 0) rest += y;
  const floor = Math.round((x - rest) / y);
  const out = { "+": x + y, "-": x - y, "*": x * y, "**": x ** y, "/": x / y, "%": rest, "//": floor }[op]!;
  if (isFloat || op === "/" || (op === "**" && y < 0)) return new Float(out);
  if (![p, q, out].every((n) => Number.isSafeInteger(n))) unsupported("computing with integers past 2^53");
  return new Int(out);
}

/** Python's ==. */
export function equal(a: Value, b: Value): boolean {
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== undefined && y !== undefined) return x == y; // bigint and number compare by value
  if (a instanceof Str) return b instanceof Str && a.value === b.value;
  if (a instanceof List && b instanceof List && a instanceof Tuple === b instanceof Tuple)
    return a.value.length === b.value.length && a.value.every((v, i) => equal(v, b.value[i]!));
  if (a instanceof Dict && b instanceof Dict)
    return a.value.size === b.value.size && [...a.value].every(([k, v]) => b.value.has(k) && equal(v, b.value.get(k)!));
  return a === b || (a instanceof None && b instanceof None) || (a instanceof Undefined && b instanceof Undefined);
}

/** Python's ordering of numbers and of strings: below 0, 0 or above 0. Errors: TemplateError. */
export function compare(a: Value, b: Value): number {
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== undefined && y !== undefined) return x < y ? -1 : x > y ? 1 : 0;
  if (a instanceof Str && b instanceof Str) return compareText(a.value, b.value);
  return unsupported(`comparing ${a.type} with ${b.type}`);
}

/** Python's `in`. Errors: TemplateError. */
export function contains(box: Value, v: Value): boolean {
  if (box instanceof Dict) return v instanceof Str && box.value.has(v.value);
  if (!(box instanceof Str)) return iterate(box).some((x) => equal(x, v));
  if (v instanceof Str) return box.value.includes(v.value);
  throw new TemplateError(`what is looked for in a string must be a string, got ${v.type}`);
}

/** What a loop walks over. Errors: TemplateError. */
export function iterate(v: Value): readonly Value[] {
  if (v instanceof Lazy) return v.value.splice(0);
  if (v instanceof List) return v.value;
  if (v instanceof Str) return Array.from(v.value, str);
  if (v instanceof Dict) return Array.from(v.value.keys(), str);
  if (v instanceof Undefined) return [];
  throw new TemplateError(`a loop must have something to walk over, got ${v.type}`);
}

/** Python's len(). Errors: TemplateError. */
export function lengthOf(v: Value): number {
  if (v instanceof Lazy) unsupported("the length of what is not made a list");
  return v instanceof Str ? pyLength(v.value) : iterate(v).length;
}
