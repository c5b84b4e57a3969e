// What every chat template sees, as transformers provides it, and Python's strftime in the C locale.

import { Func, Int, List, NAMESPACE, TemplateError, UNDEFINED, str, toValue, unsupported } from "./library.ts";
import type { Call, Value } from "./library.ts";
import { call, intOf, splitArguments, textOf } from "./members.ts";
import type { Named } from "./members.ts";
import { text } from "./print.ts";
import { GENERATION } from "./source.ts";

const MAX_RANGE = 100_000; // the sandbox's own limit

/** Variables by name; `strftime_now` prints `now`, and `mark` wraps what a generation block prints. */
export function makeGlobals(now: Date, mark: (printed: string) => string): Map<string, Value> {
  const functions: Readonly<Record<string, Named<null>>> = {
    raise_exception: ["message", raise],
    strftime_now: ["format", (_, format) => str(strftime(now, textOf(format, "a date's format")))],
    range: ["start stop step", (_, ...bounds) => range(...bounds.map((a) => intOf(a, "a bound of range()")))],
  };
  const out = new Map<string, Value>();
  for (const [name, f] of Object.entries(functions))
    out.set(name, new Func((args) => call(`${name}()`, f, null, ...splitArguments(args))));
  const generation: Call = (_, scope) => str(mark(text((scope.variables.get("caller")!.value as Call)([], scope))));
  out.set("namespace", NAMESPACE);
  out.set(GENERATION, new Func(generation));
  for (const [name, v] of Object.entries({
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
  }))
    out.set(name, toValue(v));
  return out;
}

function raise(_: null, message: Value = UNDEFINED): never {
  throw new TemplateError(text(message));
}

function range(a = 0, b?: number, step = 1): Value {
  const [from, to] = b === undefined ? [0, a] : [a, b];
  const count = Math.max(0, Math.ceil((to - from) / step));
  if (!(count <= MAX_RANGE)) throw new TemplateError(`range() must have at most ${MAX_RANGE} elements, got ${count}`);
  return new List(Array.from({ length: count }, (_, i) => new Int(from + i * step)));
}

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = "January February March April May June July August September October November December".split(" ");

function strftime(date: Date, format: string): string {
  const two = (n: number): string => String(n).padStart(2, "0");
  const [day, month, hour] = [DAYS[date.getDay()]!, MONTHS[date.getMonth()]!, date.getHours()];
  const parts: Readonly<Record<string, string>> = {
    a: day.slice(0, 3),
    A: day,
    b: month.slice(0, 3),
    B: month,
    d: two(date.getDate()),
    H: two(hour),
    I: two(hour % 12 || 12),
    m: two(date.getMonth() + 1),
    M: two(date.getMinutes()),
    p: hour < 12 ? "AM" : "PM",
    S: two(date.getSeconds()),
    y: two(date.getFullYear() % 100),
    Y: String(date.getFullYear()),
    "%": "%",
  };
  return format.replace(/%(-?)(.?)/gs, (whole, minus: string, letter: string) => {
    const part = Object.hasOwn(parts, letter) ? parts[letter]! : unsupported(`strftime_now with ${whole}`);
    return minus ? part.replace(/^0+(?=.)/, "") : part;
  });
}
