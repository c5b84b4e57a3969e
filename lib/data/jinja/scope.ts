// What a running template stands on: nested variables, the names that are constants and the way out of a loop.

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
    const v = this.names.get(name);
    if (v !== undefined) return v;
    return this.outer ? this.outer.get(name) : new Undefined(JSON.stringify(name));
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
