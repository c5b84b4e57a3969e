// Runs a parsed template with Python's meaning: scopes, undefined values, printing, methods, and bounds on time and size.

import type { Call, Name, Node, Program, Slice } from "./ast.ts";
import { intOf } from "./arguments.ts";
import { runFilter } from "./filters.ts";
import { TEST, TEST_NOT } from "./rewrite.ts";
import { member, subscript } from "./members.ts";
import { binary } from "./operators.ts";
import { str } from "./print.ts";
import { bindMacro } from "./macro.ts";
import { CONSTANTS, LoopExit, Scope } from "./scope.ts";
import { pySlice } from "./sequences.ts";
import { runTest } from "./tests.ts";
import {
  Loop,
  Namespace,
  PyFunction,
  TemplateError,
  Tuple,
  Undefined,
  iterate,
  listOf,
  numeric,
  truth,
  typeName,
} from "./values.ts";
import type { Kwargs, Value } from "./values.ts";

export interface Limits {
  /** Nodes evaluated. */
  readonly steps: number;
  /** UTF-16 units of any one text. */
  readonly text: number;
}

const COMPARISONS = new Set(["==", "!=", "<", ">", "<=", ">=", "in", "not in"]);
const NO_KWARGS: Kwargs = new Map();

/** Renders a program. Errors: TemplateError, and what `globals` throw. */
export function render(program: Program, globals: ReadonlyMap<string, Value>, limits: Limits): string {
  return new Run(limits).program(program, globals);
}

class Run {
  readonly #limits: Limits;
  #steps = 0;
  #depth = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  program(program: Program, globals: ReadonlyMap<string, Value>): string {
    const outer = new Scope(null);
    for (const [name, v] of globals) outer.names.set(name, v);
    const out: string[] = [];
    try {
      this.#block(program.body, new Scope(outer), out);
    } catch (e) {
      if (e instanceof LoopExit) throw new TemplateError("break and continue must be inside a loop");
      if (e instanceof RangeError) throw new TemplateError(`a template must stay within its limits, got ${e.message}`);
      throw e;
    }
    return this.#sized(out.join(""));
  }

  #sized<T extends Value>(v: T): T {
    if (typeof v === "string" && v.length > this.#limits.text)
      throw new TemplateError(`a text must have at most ${this.#limits.text} characters, got ${v.length}`);
    return v;
  }

  #body(body: readonly Node[], scope: Scope): string {
    const out: string[] = [];
    this.#block(body, scope, out);
    return this.#sized(out.join(""));
  }

  #block(body: readonly Node[], scope: Scope, out: string[]): void {
    for (const node of body) this.#statement(node, scope, out);
  }

  #statement(node: Node, scope: Scope, out: string[]): void {
    switch (node.type) {
      case "Comment":
        return;
      case "If":
        return this.#block(truth(this.#value(node.test, scope)) ? node.body : node.alternate, scope, out);
      case "For":
        return this.#for(node, scope, out);
      case "Break":
      case "Continue":
        throw new LoopExit(node.type);
      case "Set":
        return this.#set(node, scope);
      case "Macro":
        scope.names.set(node.name.value, this.#macro(node.name.value, node.args, node.body, scope));
        return;
      case "CallStatement": {
        const caller = this.#macro("caller", node.callerArgs ?? [], node.body, scope);
        out.push(str(this.#call(node.call, scope, caller)));
        return;
      }
      case "FilterStatement":
        out.push(str(this.#filter(this.#body(node.body, new Scope(scope)), node.filter, scope)));
        return;
      default:
        out.push(str(this.#value(node, scope)));
    }
  }

  #for(node: Extract<Node, { type: "For" }>, scope: Scope, out: string[]): void {
    const select = node.iterable.type === "SelectExpression" ? node.iterable : null;
    let items = iterate(this.#value(select ? select.lhs : node.iterable, scope));
    if (select)
      items = items.filter((item) => {
        const inner = new Scope(scope);
        this.#assign(node.loopvar, item, inner);
        return truth(this.#value(select.test, inner));
      });
    // Jinja runs the else block unless a pass through the body came to its end.
    let passed = false;
    const loop = new Loop(items);
    for (let i = 0; i < items.length; i++) {
      this.#step();
      loop.index0 = i;
      const inner = new Scope(scope);
      inner.names.set("loop", loop);
      this.#assign(node.loopvar, items[i]!, inner);
      try {
        this.#block(node.body, inner, out);
        passed = true;
      } catch (e) {
        if (!(e instanceof LoopExit)) throw e;
        if (e.kind === "Break") break;
      }
    }
    if (!passed) this.#block(node.defaultBlock, new Scope(scope), out);
  }

  #set(node: Extract<Node, { type: "Set" }>, scope: Scope): void {
    if (node.value) return this.#assign(node.assignee, this.#value(node.value, scope), scope);
    const text = this.#body(node.body, new Scope(scope));
    if (node.assignee.type !== "FilterExpression") return this.#assign(node.assignee, text, scope);
    // {% set x | upper %}...{% endset %}: the filters apply to the body.
    const filters: (Name | Call)[] = [];
    let target: Node = node.assignee;
    while (target.type === "FilterExpression") {
      filters.unshift(target.filter);
      target = target.operand;
    }
    this.#assign(
      target,
      filters.reduce<Value>((v, f) => this.#filter(v, f, scope), text),
      scope,
    );
  }

  #assign(target: Node, v: Value, scope: Scope): void {
    if (target.type === "Identifier") {
      scope.names.set(target.value, v);
    } else if (target.type === "TupleLiteral" || target.type === "ArrayLiteral") {
      const items = iterate(v);
      if (items.length !== target.value.length)
        throw new TemplateError(`${target.value.length} names need as many values, got ${items.length}`);
      target.value.forEach((t, i) => this.#assign(t, items[i]!, scope));
    } else if (target.type === "MemberExpression" && !target.computed && target.property.type === "Identifier") {
      const box = this.#value(target.object, scope);
      if (!(box instanceof Namespace))
        throw new TemplateError(`only a namespace takes attributes, got ${typeName(box)}`);
      box.attributes.set(target.property.value, v);
    } else throw new TemplateError("set needs a name, names or an attribute of a namespace");
  }

  /** A macro closes over the scope it is written in; its arguments' defaults are computed when it is called. */
  #macro(name: string, params: readonly Node[], body: readonly Node[], scope: Scope): PyFunction {
    return new PyFunction(name, (args, kwargs) => {
      const inner = new Scope(scope);
      bindMacro({ name, params, body }, args, kwargs, inner, (node) => this.#value(node, inner));
      return this.#body(body, inner);
    });
  }

  #step(): void {
    if (++this.#steps > this.#limits.steps)
      throw new TemplateError(`a template must finish within ${this.#limits.steps} steps`);
  }

  #value(node: Node, scope: Scope): Value {
    this.#step();
    if (++this.#depth > 400) throw new TemplateError("a template must not nest or recurse more than 400 levels deep");
    try {
      return this.#sized(this.#evaluate(node, scope));
    } finally {
      this.#depth--;
    }
  }

  #evaluate(node: Node, scope: Scope): Value {
    switch (node.type) {
      case "StringLiteral":
        return node.value;
      case "Identifier": {
        const constant = CONSTANTS.get(node.value);
        return constant === undefined ? scope.get(node.value) : constant;
      }
      case "IntegerLiteral":
        return BigInt(node.value);
      case "FloatLiteral":
        return node.value;
      case "ArrayLiteral":
        return node.value.map((x) => this.#value(x, scope));
      case "TupleLiteral":
        return new Tuple(node.value.map((x) => this.#value(x, scope)));
      case "ObjectLiteral":
        return new Map([...node.value].map(([k, v]) => [this.#value(k, scope), this.#value(v, scope)]));
      case "BinaryExpression": {
        const op = node.operator.value;
        const left = this.#value(node.left, scope);
        if (op === "and") return truth(left) ? this.#value(node.right, scope) : left;
        if (op === "or") return truth(left) ? left : this.#value(node.right, scope);
        if (COMPARISONS.has(op) && node.left.type === "BinaryExpression" && COMPARISONS.has(node.left.operator.value)) {
          // a < b < c is a < b and b < c; with parentheses it would be a call.
          return truth(left) ? binary(op, this.#value(node.left.right, scope), this.#value(node.right, scope)) : left;
        }
        return binary(op, left, this.#value(node.right, scope));
      }
      case "UnaryExpression":
        return this.#unary(node.operator.value, this.#value(node.argument, scope));
      case "Ternary":
        return this.#value(truth(this.#value(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
      case "SelectExpression":
        return truth(this.#value(node.test, scope))
          ? this.#value(node.lhs, scope)
          : new Undefined("the inline if-expression without an else");
      case "MemberExpression":
        return this.#member(node, scope);
      case "CallExpression":
        return this.#call(node, scope);
      case "FilterExpression":
        return this.#filter(this.#value(node.operand, scope), node.filter, scope);
      default:
        throw new TemplateError(`an expression must be a value, got ${node.type}`);
    }
  }

  #unary(op: string, v: Value): Value {
    if (op === "not") return !truth(v);
    const n = numeric(v);
    if (v instanceof Undefined) v.fail();
    if (n === undefined) throw new TemplateError(`${op} needs a number, got ${typeName(v)}`);
    return op === "-" ? -n : n;
  }

  #member(node: Extract<Node, { type: "MemberExpression" }>, scope: Scope): Value {
    const box = this.#value(node.object, scope);
    if (!node.computed)
      return node.property.type === "Identifier"
        ? member(box, node.property.value)
        : subscript(box, this.#value(node.property, scope));
    if (node.property.type === "SliceExpression") return this.#slice(box, node.property, scope);
    return subscript(box, this.#value(node.property, scope));
  }

  #slice(box: Value, node: Slice, scope: Scope): Value {
    const bound = (n: Node | undefined): number | undefined => {
      const v = n ? this.#value(n, scope) : null;
      return v === null ? undefined : intOf(v, "a bound of a slice");
    };
    const [start, stop, step] = [bound(node.start), bound(node.stop), bound(node.step) ?? 1];
    if (box instanceof Undefined) box.fail();
    const items = typeof box === "string" ? Array.from(box) : listOf(box);
    if (!items) throw new TemplateError(`a slice needs a list or a string, got ${typeName(box)}`);
    const part = pySlice(items as readonly Value[], start, stop, step);
    return typeof box === "string" ? part.join("") : Array.isArray(box) ? part : new Tuple(part);
  }

  #call(node: Call, scope: Scope, caller?: Value): Value {
    const f = this.#value(node.callee, scope);
    const [args, kwargs] = this.#arguments(node.args, scope);
    if (caller !== undefined) kwargs.set("caller", caller);
    if (f instanceof Undefined) f.fail();
    if (!(f instanceof PyFunction)) throw new TemplateError(`a ${typeName(f)} cannot be called`);
    return f.call(args, kwargs);
  }

  #arguments(nodes: readonly Node[], scope: Scope): [Value[], Map<string, Value>] {
    const args: Value[] = [];
    const kwargs = new Map<string, Value>();
    const put = (key: string, v: Value): void => {
      if (kwargs.has(key)) throw new TemplateError(`the argument ${JSON.stringify(key)} is given twice`);
      kwargs.set(key, v);
    };
    for (const n of nodes) {
      if (n.type === "SpreadExpression") args.push(...iterate(this.#value(n.argument, scope)));
      else if (n.type === "KeywordArgumentExpression") put(n.key.value, this.#value(n.value, scope));
      else if (n.type === "KeywordSpreadExpression") {
        const v = this.#value(n.argument, scope);
        if (!(v instanceof Map)) throw new TemplateError(`** needs a dict, got ${typeName(v)}`);
        for (const [k, x] of v) put(str(k), x);
      } else args.push(this.#value(n, scope));
    }
    return [args, kwargs];
  }

  #filter(v: Value, filter: Name | Call, scope: Scope): Value {
    const callee: Node = filter.type === "CallExpression" ? filter.callee : filter;
    if (callee.type !== "Identifier") throw new TemplateError("a filter must be a name, with arguments or without");
    const name = callee.value;
    const [args, kwargs] = filter.type === "Identifier" ? [[], NO_KWARGS] : this.#arguments(filter.args, scope);
    if (name === TEST || name === TEST_NOT) return runTest(str(args[0] ?? ""), v, args.slice(1)) === (name === TEST);
    return runFilter(name, v, args, kwargs);
  }
}
