// Reads the arguments of a function, method or filter by place or name, with Python's complaints.

import { TemplateError, typeName } from "./values.ts";
import type { Kwargs, Value } from "./values.ts";

/** Arguments by name; those not given are missing. `names` lists them in order. Errors: TemplateError. */
export function bind(
  what: string,
  names: readonly string[],
  args: readonly Value[],
  kwargs: Kwargs,
): Map<string, Value> {
  if (args.length > names.length)
    throw new TemplateError(`${what} takes at most ${names.length} arguments, got ${args.length}`);
  const out = new Map<string, Value>();
  args.forEach((v, i) => out.set(names[i]!, v));
  for (const [name, v] of kwargs) {
    if (!names.includes(name)) throw new TemplateError(`${what} has no argument ${JSON.stringify(name)}`);
    if (out.has(name)) throw new TemplateError(`${what} got ${JSON.stringify(name)} twice`);
    out.set(name, v);
  }
  return out;
}

export function textOf(v: Value | undefined, what: string): string {
  if (typeof v === "string") return v;
  throw new TemplateError(`${what} must be a string, got ${v === undefined ? "nothing" : typeName(v)}`);
}

/** A whole number within what JavaScript counts exactly. */
export function intOf(v: Value | undefined, what: string): number {
  const n = typeof v === "boolean" ? Number(v) : typeof v === "bigint" ? Number(v) : undefined;
  if (n !== undefined && Number.isSafeInteger(n)) return n;
  throw new TemplateError(`${what} must be an integer, got ${v === undefined ? "nothing" : typeName(v)}`);
}
