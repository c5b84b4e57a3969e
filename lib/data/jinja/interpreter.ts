// @huggingface/jinja's interpreter with Python's meaning where it has another: scopes of loops and macros, operators, filters, members, printing, and bounds on time and size.

import { Func, Library, NONE, Scope, Str, TemplateError, Tuple } from "./library.ts";
import { UNDEFINED, Undefined, bool, str, truth, unsupported } from "./library.ts";
import type { Call, Node, Of, Value } from "./library.ts";
import { runFilter, runTest } from "./filters.ts";
import { Loop, member, subscript } from "./members.ts";
import { binary, iterate } from "./operators.ts";
import { text } from "./print.ts";

export interface Limits {
  /** Nodes evaluated. */
  readonly steps: number;
  /** UTF-16 units of any one text. */
  readonly text: number;
}

const MAX_DEPTH = 400;
const SILENT = new Set(["Set", "Macro", "Comment"]);

/** The block of a loop's pass: where break and continue may stand. */
class Pass extends Scope {}
const inner = (scope: Scope): Scope => (scope instanceof Pass ? new Pass(scope) : new Scope(scope));

/** A value in the place of a node, for what the library goes on to evaluate. */
const known = (value: Value): Node => ({ type: "Known", value });

/** Thrown by break and continue, with what the blocks on the way out have printed. */
class LoopExit extends Error {
  isBreak = false;
  text = "";
}

export class PythonInterpreter extends Library {
  readonly #limits: Limits;
  #steps = 0;
  #depth = 0;

  constructor(limits: Limits) {
    super();
    this.#limits = limits;
  }

  override evaluate(node: Node | undefined, scope: Scope): Value {
    if (!node) return UNDEFINED; // a bound that a slice leaves out
    this.#step();
    if (++this.#depth > MAX_DEPTH) throw new TemplateError(`nesting must be at most ${MAX_DEPTH} levels deep`);
    const v = this.#rule(node, scope);
    this.#depth--; // an error ends the rendering, or a loop's pass, which knows its depth
    if (v instanceof Str) this.#sized(v.value);
    return v;
  }

  #step(): void {
    if (++this.#steps <= this.#limits.steps) return;
    throw new TemplateError(`a template must finish within ${this.#limits.steps} steps`);
  }

  #sized(s: string): string {
    if (s.length <= this.#limits.text) return s;
    throw new TemplateError(`a text must have at most ${this.#limits.text} characters, got ${s.length}`);
  }

  #rule(node: Node, scope: Scope): Value {
    switch (node.type) {
      case "Known":
        return node["value"];
      case "StringLiteral":
      case "IntegerLiteral": // made once: the library's values are slow to make
        return ((node as { made?: Value }).made ??= super.evaluate(node, scope));
      case "Identifier":
        for (let s: Scope | undefined = scope; s; s = s.parent)
          if (s.variables.has(node["value"])) return s.variables.get(node["value"])!;
        return UNDEFINED;
      case "TupleLiteral":
        return new Tuple(node["value"].map((x: Node) => this.evaluate(x, scope)));
      case "BinaryExpression": {
        const op: string = node["operator"].value;
        const left = this.evaluate(node["left"], scope);
        if ((op === "and" || op === "or") && truth(left) === (op === "or")) return left;
        const right = this.evaluate(node["right"], scope);
        return op === "and" || op === "or" ? right : binary(op, left, right);
      }
      case "MemberExpression":
        return this.#member(node, scope);
      case "CallExpression": {
        const f = this.evaluate(node["callee"], scope);
        if (f instanceof Undefined) unsupported(`${shown(node["callee"])}()`);
        return super.evaluate({ ...node, callee: known(f) }, scope);
      }
      case "FilterExpression":
        return this.#filter(this.evaluate(node["operand"], scope), node["filter"], scope);
      case "FilterStatement":
        return this.#filter(this.#captured(node["body"], scope), node["filter"], scope);
      case "TestExpression":
        return bool(runTest(node["test"].value, this.evaluate(node["operand"], scope)) !== node["negate"]);
      case "Set":
        if (node["value"]) break;
        return super.evaluate({ ...node, value: known(this.#captured(node["body"], scope)) }, scope);
      case "Macro":
        return this.#macro(node, scope);
      case "For":
        return str(this.#for(node, scope));
      case "Break":
      case "Continue":
        if (!(scope instanceof Pass)) throw new TemplateError(`${node.type.toLowerCase()} must stand in a loop`);
        throw Object.assign(new LoopExit(), { isBreak: node.type === "Break" });
    }
    return super.evaluate(node, scope);
  }

  override evaluateBlock(body: readonly Node[], scope: Scope): Of<string> {
    let out = "";
    for (const node of body) {
      try {
        const v = this.evaluate(node, scope);
        if (!SILENT.has(node.type)) out = this.#sized(out + text(v));
      } catch (e) {
        if (e instanceof LoopExit) e.text = out + e.text;
        throw e;
      }
    }
    return str(out);
  }

  /** What a block prints, for a use other than printing. */
  #captured(body: readonly Node[], scope: Scope): Of<string> {
    try {
      return this.evaluateBlock(body, inner(scope));
    } catch (e) {
      if (e instanceof LoopExit) e.text = "";
      throw e;
    }
  }

  #filter(v: Value, filter: Node, scope: Scope): Value {
    if (filter.type === "Identifier") return runFilter(filter["value"], v, [], new Map());
    return runFilter(filter["callee"].value, v, ...this.evaluateArguments(filter["args"], scope));
  }

  #member({ object, property, computed }: Node, scope: Scope): Value {
    const box = this.evaluate(object, scope);
    if (box instanceof Undefined)
      throw new TemplateError(`${shown(object)} must be defined, ${shown(property)} is asked of it`);
    if (!computed && property.type === "Identifier") return member(box, property.value);
    if (property.type !== "SliceExpression") return subscript(box, this.evaluate(property, scope));
    const part = super.evaluate({ type: "MemberExpression", object: known(box), property, computed }, scope);
    return box instanceof Tuple ? new Tuple((part as Tuple).value) : part;
  }

  /** A macro sees the variables where it is written, not those where it is called. */
  #macro(node: Node, scope: Scope): Value {
    super.evaluate(node, scope);
    const name: string = node["name"].value;
    const macro = scope.variables.get(name)!.value as Call;
    const closed: Call = (args, from) => {
      const own = new Scope(scope);
      const caller = from.variables.get("caller");
      if (caller) own.setVariable("caller", caller);
      return macro(args, own);
    };
    scope.setVariable(name, new Func(closed));
    return NONE;
  }

  #for({ iterable, loopvar, body, defaultBlock }: Node, scope: Scope): string {
    const isSelect = iterable.type === "SelectExpression";
    const pass = (item: Value): Pass => {
      this.#step();
      const s = new Pass(scope);
      assign(loopvar, item, s);
      return s;
    };
    let items = iterate(this.evaluate(isSelect ? iterable.lhs : iterable, scope));
    if (isSelect) items = items.filter((item) => truth(this.evaluate(iterable.test, pass(item))));
    const depth = this.#depth;
    const loop = new Loop(items);
    let out = "";
    let finished = false; // Jinja prints the else block unless a pass came to its end
    for (let i = 0; i < items.length; i++) {
      const s = pass(items[i]!);
      loop.index0 = i;
      s.setVariable("loop", loop);
      try {
        out = this.#sized(out + this.evaluateBlock(body, s).value);
        finished = true;
      } catch (e) {
        if (!(e instanceof LoopExit)) throw e;
        this.#depth = depth;
        out = this.#sized(out + e.text);
        if (e.isBreak) break;
      }
    }
    return finished ? out : out + this.evaluateBlock(defaultBlock, inner(scope)).value;
  }
}

function assign(target: Node, v: Value, scope: Scope): void {
  if (target.type === "Identifier") return scope.setVariable(target["value"], v);
  const names: readonly Node[] = target.type === "TupleLiteral" ? target["value"] : unsupported("such a loop variable");
  const items = iterate(v);
  if (items.length !== names.length)
    throw new TemplateError(`${names.length} names must have as many values, got ${items.length}`);
  names.forEach((t, i) => assign(t, items[i]!, scope));
}

/** An expression as its user wrote it, roughly. */
function shown(node: Node): string {
  if (node.type === "MemberExpression") return `${shown(node["object"])}.${shown(node["property"])}`;
  return node.type === "Identifier" ? node["value"] : (JSON.stringify(node["value"]) ?? "an expression");
}
