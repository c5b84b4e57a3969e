// Jinja's tests (`x is name`).

import { TemplateError, PyFunction, Tuple, Undefined, compare, contains, equal, typeName } from "./values.ts";
import type { Value } from "./values.ts";

type Test = (v: Value, arg: Value) => boolean;

const isInt = (v: Value): boolean => typeof v === "bigint";
const isList = (v: Value): boolean => Array.isArray(v) || v instanceof Tuple;

function whole(v: Value): bigint {
  if (typeof v === "bigint") return v;
  if (typeof v === "boolean") return v ? 1n : 0n;
  if (v instanceof Undefined) return v.fail();
  throw new TemplateError(`a test of parity needs an integer, got ${typeName(v)}`);
}

const TESTS: Readonly<Record<string, Test>> = {
  boolean: (v) => typeof v === "boolean",
  callable: (v) => v instanceof PyFunction,
  defined: (v) => !(v instanceof Undefined),
  divisibleby: (v, n) => whole(v) % whole(n) === 0n,
  eq: equal,
  equalto: equal,
  escaped: () => false,
  even: (v) => whole(v) % 2n === 0n,
  false: (v) => v === false,
  float: (v) => typeof v === "number",
  ge: (v, x) => compare(v, x) >= 0,
  greaterthan: (v, x) => compare(v, x) > 0,
  gt: (v, x) => compare(v, x) > 0,
  in: (v, box) => contains(box, v),
  integer: isInt,
  iterable: (v) => isList(v) || typeof v === "string" || v instanceof Map || v instanceof Undefined,
  le: (v, x) => compare(v, x) <= 0,
  lessthan: (v, x) => compare(v, x) < 0,
  lower: (v) => typeof v === "string" && /\p{Ll}/u.test(v) && v === v.toLowerCase(),
  lt: (v, x) => compare(v, x) < 0,
  mapping: (v) => v instanceof Map,
  ne: (v, x) => !equal(v, x),
  none: (v) => v === null,
  number: (v) => isInt(v) || typeof v === "number" || typeof v === "boolean",
  odd: (v) => whole(v) % 2n !== 0n,
  sameas: (v, x) => v === x,
  sequence: (v) => isList(v) || typeof v === "string" || v instanceof Map || v instanceof Undefined,
  string: (v) => typeof v === "string",
  true: (v) => v === true,
  undefined: (v) => v instanceof Undefined,
  upper: (v) => typeof v === "string" && /\p{Lu}/u.test(v) && v === v.toUpperCase(),
};

/** Runs a test. Errors: TemplateError for an unknown one. */
export function runTest(name: string, v: Value, args: readonly Value[]): boolean {
  if (!Object.hasOwn(TESTS, name)) throw new TemplateError(`no test named ${JSON.stringify(name)}`);
  return TESTS[name]!(v, args[0] ?? null);
}
