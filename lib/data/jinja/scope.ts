// What a running template stands on: nested variables, the names that are constants, the way out of a loop, and which names a macro's body reads.

import type { Node } from "./ast.ts";
import { Undefined } from "./values.ts";
import type { Value } from "./values.ts";

/** Thrown by break and continue. */
export class LoopExit extends Error {
  readonly kind: "Break" | "Continue";
  constructor(kind: "Break" | "Continue") {
    super(kind);
    this.kind = kind;
  }
}

/** Variables of a block; looked up outwards. */
export class Scope {
  readonly names = new Map<string, Value>();
  readonly outer: Scope | null;
  constructor(outer: Scope | null) {
    this.outer = outer;
  }
  get(name: string): Value {
    for (let scope: Scope | null = this; scope; scope = scope.outer) {
      const v = scope.names.get(name);
      if (v !== undefined) return v;
    }
    return new Undefined(JSON.stringify(name));
  }
}

export const CONSTANTS: ReadonlyMap<string, Value> = new Map<string, Value>([
  ["true", true],
  ["True", true],
  ["false", false],
  ["False", false],
  ["none", null],
  ["None", null],
]);
const SPECIAL = new Set(["caller", "kwargs", "varargs"]);
const specialsOf = new WeakMap<readonly Node[], ReadonlySet<string>>();

/** Which of `caller`, `kwargs` and `varargs` a macro's body reads: only then may it be called with what goes there. */
export function specialNames(body: readonly Node[]): ReadonlySet<string> {
  const known = specialsOf.get(body);
  if (known) return known;
  const found = new Set<string>();
  const walk = (x: unknown): void => {
    if (x instanceof Map) for (const [k, v] of x) (walk(k), walk(v));
    else if (Array.isArray(x)) x.forEach(walk);
    else if (typeof x === "object" && x !== null) {
      const node = x as Node;
      if (node.type === "Identifier" && SPECIAL.has(node.value)) found.add(node.value);
      Object.values(x).forEach(walk);
    }
  };
  walk(body);
  specialsOf.set(body, found);
  return found;
}
