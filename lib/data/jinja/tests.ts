// Jinja's tests (`x is name`).

import { binary } from "./operators.ts";
import { str } from "./print.ts";
import { TemplateError, PyFunction, Tuple, Undefined, compare, contains, equal } from "./values.ts";
import type { Value } from "./values.ts";

type Test = (v: Value, arg: Value) => boolean;

const isInt = (v: Value): boolean => typeof v === "bigint";
const isList = (v: Value): boolean => Array.isArray(v) || v instanceof Tuple;

/** Whether `v % by == rest`, also for floats. */
const leaves = (v: Value, by: Value, rest: bigint): boolean => equal(binary("%", v, by), rest);

const isCase = (text: string, has: RegExp, not: RegExp): boolean => has.test(text) && !not.test(text);

const TESTS: Readonly<Record<string, Test>> = {
  boolean: (v) => typeof v === "boolean",
  callable: (v) => v instanceof PyFunction,
  defined: (v) => !(v instanceof Undefined),
  divisibleby: (v, n) => leaves(v, n, 0n),
  eq: equal,
  equalto: equal,
  escaped: () => false,
  even: (v) => leaves(v, 2n, 0n),
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
  lower: (v) => isCase(str(v), /\p{Ll}/u, /[\p{Lu}\p{Lt}]/u),
  lt: (v, x) => compare(v, x) < 0,
  mapping: (v) => v instanceof Map,
  ne: (v, x) => !equal(v, x),
  none: (v) => v === null,
  number: (v) => isInt(v) || typeof v === "number" || typeof v === "boolean",
  odd: (v) => leaves(v, 2n, 1n),
  sameas: (v, x) => v === x,
  sequence: (v) => isList(v) || typeof v === "string" || v instanceof Map || v instanceof Undefined,
  string: (v) => typeof v === "string",
  true: (v) => v === true,
  undefined: (v) => v instanceof Undefined,
  upper: (v) => isCase(str(v), /\p{Lu}/u, /[\p{Ll}\p{Lt}]/u),
};

/** Runs a test. Errors: TemplateError for an unknown one. */
export function runTest(name: string, v: Value, args: readonly Value[]): boolean {
  if (!Object.hasOwn(TESTS, name)) throw new TemplateError(`no test named ${JSON.stringify(name)}`);
  return TESTS[name]!(v, args[0] ?? null);
}
