// The functions that every chat template may call, as transformers provides them.

import { intOf, textOf } from "./arguments.ts";
import { GROUP, TUPLE } from "./rewrite.ts";
import { str } from "./print.ts";
import { strftime } from "./strftime.ts";
import { Namespace, PyFunction, TemplateError, Tuple, iterate } from "./values.ts";
import type { Value } from "./values.ts";

const MAX_RANGE = 100_000; // the sandbox's own limit

/** `raise_exception`, `strftime_now` at the given moment, `range`, `dict`, `namespace`, `joiner`. */
export function makeGlobals(now: Date): ReadonlyMap<string, Value> {
  const functions: Record<string, PyFunction["call"]> = {
    raise_exception: (args, kwargs) => {
      throw new TemplateError(str(args[0] ?? kwargs.get("message") ?? ""));
    },
    strftime_now: (args, kwargs) => strftime(now, textOf(args[0] ?? kwargs.get("format"), "a date format")),
    range: (args) => range(args.map((a) => intOf(a, "a bound of range()"))),
    dict: (args, kwargs) => new Map([...(args[0] === undefined ? [] : pairs(args[0])), ...kwargs]),
    [GROUP]: (args) => args[0]!,
    [TUPLE]: (args) => new Tuple(args),
    namespace: (args, kwargs) =>
      new Namespace(
        new Map([...(args[0] === undefined ? [] : pairs(args[0])), ...kwargs].map(([k, v]) => [str(k), v])),
      ),
    joiner: (args) => {
      const by = args[0] ?? ", ";
      let used = false;
      return new PyFunction("joiner", () => (used ? by : ((used = true), "")));
    },
  };
  return new Map(Object.entries(functions).map(([name, f]) => [name, new PyFunction(name, f)]));
}

function pairs(v: Value): (readonly [Value, Value])[] {
  if (v instanceof Map) return [...v];
  return iterate(v).map((p) => {
    const [k, x, ...more] = iterate(p);
    if (k === undefined || x === undefined || more.length > 0) throw new TemplateError("dict() needs pairs");
    return [k, x] as const;
  });
}

function range(bounds: readonly number[]): Value {
  const [a = 0, b, step = 1] = bounds;
  const [from, to] = b === undefined ? [0, a] : [a, b];
  if (step === 0) throw new TemplateError("range()'s step must not be 0");
  const count = Math.max(0, Math.ceil((to - from) / step));
  if (count > MAX_RANGE) throw new TemplateError(`range() must have at most ${MAX_RANGE} elements, got ${count}`);
  return Array.from({ length: count }, (_, i) => BigInt(from + i * step));
}
