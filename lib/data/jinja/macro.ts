// How a macro or a call block takes its arguments, by Jinja's rules.

import type { Name, Node } from "./ast.ts";
import type { Scope } from "./scope.ts";
import { TemplateError, Tuple, Undefined, given } from "./values.ts";
import type { Kwargs, Value } from "./values.ts";

interface Macro {
  readonly name: string;
  readonly params: readonly Node[];
  readonly body: readonly Node[];
}

/**
 * Puts the arguments of a call into the macro's scope: by place, by name, by default (computed there), and `caller`, `kwargs` and `varargs` where the
 * body reads them. Errors: TemplateError for arguments that have no place.
 */
export function bindMacro(
  { name, params, body }: Macro,
  args: readonly Value[],
  kwargs: Kwargs,
  scope: Scope,
  evaluate: (node: Node) => Value,
): void {
  const left = new Map(kwargs);
  const missing: (readonly [string, Node])[] = [];
  params.forEach((p, i) => {
    const key = p.type === "KeywordArgumentExpression" ? p.key.value : (p as Name).value;
    if (i < args.length && left.has(key)) throw new TemplateError(`macro ${name} got ${JSON.stringify(key)} twice`);
    const v = i < args.length ? args[i] : left.get(key);
    left.delete(key);
    if (v === undefined && p.type === "KeywordArgumentExpression") missing.push([key, p.value]);
    scope.names.set(key, given(v, new Undefined(JSON.stringify(key))));
  });
  const uses = specialNames(body);
  if (uses.has("caller")) {
    scope.names.set("caller", given(left.get("caller"), new Undefined("caller")));
    left.delete("caller");
  }
  if (uses.has("kwargs")) scope.names.set("kwargs", new Map<Value, Value>(left));
  else if (left.size > 0)
    throw new TemplateError(`macro ${name} has no argument ${JSON.stringify([...left.keys()][0])}`);
  if (uses.has("varargs")) scope.names.set("varargs", new Tuple(args.slice(params.length)));
  else if (args.length > params.length)
    throw new TemplateError(`macro ${name} takes at most ${params.length} arguments, got ${args.length}`);
  for (const [key, fallback] of missing) scope.names.set(key, evaluate(fallback));
}

const SPECIAL = new Set(["caller", "kwargs", "varargs"]);
const specialsOf = new WeakMap<readonly Node[], ReadonlySet<string>>();

/** Which of `caller`, `kwargs` and `varargs` a macro's body reads: only then may it be called with what goes there. */
function specialNames(body: readonly Node[]): ReadonlySet<string> {
  const known = specialsOf.get(body);
  if (known) return known;
  const found = new Set<string>();
  const walk = (x: unknown): void => {
    if (x instanceof Map)
      for (const [k, v] of x) {
        walk(k);
        walk(v);
      }
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
