// Python's operators on template values.

import { formatPercent } from "./format.ts";
import { str } from "./print.ts";
import { TemplateError, Tuple, Undefined, compare, contains, equal, numeric, typeName } from "./values.ts";
import type { Value } from "./values.ts";

const MAX_ITEMS = 1_000_000;
const MAX_BITS = 100_000;

/** A binary operator other than `and` and `or`. Errors: TemplateError where Python would raise. */
export function binary(op: string, a: Value, b: Value): Value {
  switch (op) {
    case "==":
      return equal(a, b);
    case "!=":
      return !equal(a, b);
    case "in":
      return contains(b, a);
    case "not in":
      return !contains(b, a);
    case "~":
      return str(a) + str(b);
    case "<":
      return compare(a, b) < 0;
    case ">":
      return compare(a, b) > 0;
    case "<=":
      return compare(a, b) <= 0;
    case ">=":
      return compare(a, b) >= 0;
  }
  if (a instanceof Undefined) a.fail();
  if (b instanceof Undefined) b.fail();
  if (op === "%" && typeof a === "string") return formatPercent(a, b);
  const x = numeric(a);
  const y = numeric(b);
  if (x !== undefined && y !== undefined) return arithmetic(op, x, y);
  if (op === "+") {
    if (typeof a === "string" && typeof b === "string") return a + b;
    if (Array.isArray(a) && Array.isArray(b)) return bounded([...a, ...b]);
    if (a instanceof Tuple && b instanceof Tuple) return new Tuple(bounded([...a.items, ...b.items]));
  }
  if (op === "*") {
    if (typeof y === "bigint") return repeat(a, y);
    if (typeof x === "bigint") return repeat(b, x);
  }
  throw new TemplateError(`${op} does not work on ${typeName(a)} and ${typeName(b)}`);
}

function bounded<T>(items: T[]): T[] {
  if (items.length > MAX_ITEMS)
    throw new TemplateError(`a list must have at most ${MAX_ITEMS} elements, got ${items.length}`);
  return items;
}

function repeat(v: Value, times: bigint): Value {
  const n = times < 0n ? 0 : Number(times);
  if (typeof v === "string") {
    if (v.length * n > 1 << 28) throw new TemplateError(`a text must be shorter than ${1 << 28} units`);
    return v.repeat(n);
  }
  const list = Array.isArray(v) ? v : v instanceof Tuple ? v.items : undefined;
  if (!list) throw new TemplateError(`* does not work on ${typeName(v)}`);
  if (list.length * n > MAX_ITEMS) throw new TemplateError(`a list must have at most ${MAX_ITEMS} elements`);
  const out = Array.from({ length: list.length * n }, (_, i) => list[i % list.length]!);
  return Array.isArray(v) ? out : new Tuple(out);
}

function arithmetic(op: string, x: bigint | number, y: bigint | number): Value {
  if (typeof x === "bigint" && typeof y === "bigint" && op !== "/") return whole(op, x, y);
  const [p, q] = [Number(x), Number(y)];
  if (op === "+") return p + q;
  if (op === "-") return p - q;
  if (op === "*") return p * q;
  if (op === "**") return power(p, q);
  if (q === 0) throw new TemplateError("division by zero");
  if (op === "/") return p / q;
  const rest = p % q;
  const floor = rest !== 0 && rest < 0 !== q < 0;
  if (op === "%") return floor ? rest + q : rest;
  // Python divides what is left after the remainder, which is exact where p / q rounds.
  return Math.round((p - rest) / q) - (floor ? 1 : 0);
}

function power(p: number, q: number): number {
  if (p === 0 && q < 0) throw new TemplateError("0.0 cannot be raised to a negative power");
  const out = p ** q;
  if (Number.isNaN(out) || (!Number.isFinite(out) && Number.isFinite(p)))
    throw new TemplateError("** must give a finite real number");
  return out;
}

function whole(op: string, x: bigint, y: bigint): Value {
  if (op === "+") return x + y;
  if (op === "-") return x - y;
  if (op === "*") {
    if (x.toString(16).length + y.toString(16).length > MAX_BITS / 4)
      throw new TemplateError("an integer must be shorter");
    return x * y;
  }
  if (op === "**") {
    if (y < 0n) return power(Number(x), Number(y));
    if (x.toString(2).length * Number(y) > MAX_BITS) throw new TemplateError("an integer must be shorter");
    return x ** y;
  }
  if (y === 0n) throw new TemplateError("division by zero");
  const rest = x % y;
  const floor = rest !== 0n && rest < 0n !== y < 0n;
  return op === "%" ? (floor ? rest + y : rest) : floor ? x / y - 1n : x / y;
}
