// `x.name` and `x[key]` as Jinja's sandbox looks them up: attributes first for a dot, elements first for a bracket.

import { method } from "./methods.ts";
import { Loop, Namespace, PyFunction, TemplateError, Undefined, equal, given, listOf } from "./values.ts";
import type { Value } from "./values.ts";

/** `x.name`. A dict's methods come before its keys (`x.items`), as in Python. Errors: TemplateError for an attribute of nothing. */
export function member(box: Value, name: string): Value {
  if (box instanceof Undefined) box.fail();
  const found = attribute(box, name);
  if (found !== undefined) return found;
  if (box instanceof Map && box.has(name)) return box.get(name)!;
  return new Undefined(JSON.stringify(name));
}

/** `x[key]`. */
export function subscript(box: Value, key: Value): Value {
  if (box instanceof Undefined) box.fail();
  if (box instanceof Map && box.has(key)) return box.get(key)!;
  const list = listOf(box);
  if ((list || typeof box === "string") && (typeof key === "bigint" || typeof key === "boolean")) {
    const i = Number(key);
    const v = list ? list.at(i) : Array.from(box as string).at(i);
    return v === undefined ? new Undefined(`element ${i}`) : v;
  }
  const found = typeof key === "string" ? attribute(box, key) : undefined;
  return given(found, new Undefined(typeof key === "string" ? JSON.stringify(key) : "an element"));
}

function attribute(box: Value, name: string): Value | undefined {
  if (box instanceof Namespace) return box.attributes.get(name);
  if (box instanceof Loop) return loopAttribute(box, name);
  return method(box, name);
}

function loopAttribute(loop: Loop, name: string): Value | undefined {
  const { items, index0: i } = loop;
  const n = items.length;
  switch (name) {
    case "index":
      return BigInt(i + 1);
    case "index0":
      return BigInt(i);
    case "revindex":
      return BigInt(n - i);
    case "revindex0":
      return BigInt(n - i - 1);
    case "first":
      return i === 0;
    case "last":
      return i === n - 1;
    case "length":
      return BigInt(n);
    case "depth":
      return 1n;
    case "depth0":
      return 0n;
    case "previtem":
      return i > 0 ? items[i - 1]! : new Undefined("there is no previous item");
    case "nextitem":
      return i < n - 1 ? items[i + 1]! : new Undefined("there is no next item");
    case "cycle":
      return new PyFunction("cycle", (args) => {
        if (args.length === 0) throw new TemplateError("cycle() needs items");
        return args[i % args.length]!;
      });
    case "changed":
      return new PyFunction("changed", (args) => {
        const now: Value = [...args];
        const same = loop.changed !== undefined && equal(loop.changed, now);
        loop.changed = now;
        return !same;
      });
    default:
      return undefined;
  }
}
