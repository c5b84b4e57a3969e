// The tokens of a tag -> tokens that @huggingface/jinja's parser takes: tests with arguments, tuples of one, large integers and generation blocks it does not.

/** A token as the parser reads it; `type` is one of the library's names. */
export interface Token {
  readonly value: string;
  readonly type: string;
}

/** Name of the function that wraps what a `{% generation %}` block prints. */
export const GENERATION = "__generation__";
/** A test `x is NAME` is parsed as a filter of this name, so that tests can take arguments. */
export const TEST = "__is__";
export const TEST_NOT = "__is_not__";

/** Name of the function that makes a tuple of its arguments. */
export const TUPLE = "__tuple__";
/** Name of the function that gives back its argument: parentheses that matter. */
export const GROUP = "__group__";

/** Operators, longest first, with the parser's name of their kind. */
export const OPERATORS: readonly (readonly [string, string])[] = [
  ["//", "MultiplicativeBinaryOperator"],
  ["**", "ExponentiationBinaryOperator"],
  ["==", "ComparisonBinaryOperator"],
  ["!=", "ComparisonBinaryOperator"],
  [">=", "ComparisonBinaryOperator"],
  ["<=", "ComparisonBinaryOperator"],
  ["+", "AdditiveBinaryOperator"],
  ["-", "AdditiveBinaryOperator"],
  ["~", "AdditiveBinaryOperator"],
  ["/", "MultiplicativeBinaryOperator"],
  ["%", "MultiplicativeBinaryOperator"],
  ["*", "MultiplicativeBinaryOperator"],
  ["[", "OpenSquareBracket"],
  ["]", "CloseSquareBracket"],
  ["(", "OpenParen"],
  [")", "CloseParen"],
  ["{", "OpenCurlyBracket"],
  ["}", "CloseCurlyBracket"],
  [">", "ComparisonBinaryOperator"],
  ["<", "ComparisonBinaryOperator"],
  ["=", "Equals"],
  [".", "Dot"],
  [":", "Colon"],
  ["|", "Pipe"],
  [",", "Comma"],
];
const name = (value: string): Token => ({ value, type: "Identifier" });
const op = (value: string): Token => ({ value, type: OPERATORS.find(([text]) => text === value)![1] });

/** The parser reads integers as doubles; larger ones go through the `int` filter. */
function exactInteger(t: Token): readonly Token[] {
  if (t.type !== "NumericLiteral" || t.value.includes(".") || Number.isSafeInteger(Number(t.value))) return [t];
  return [op("("), { value: t.value, type: "StringLiteral" }, op("|"), name("int"), op(")")];
}

export type Fail = (message: string) => never;

/** Appends the tokens of one tag. */
export function emit(inner: readonly Token[], isBlock: boolean, out: Token[], fail: Fail): void {
  out.push(isBlock ? { value: "{%", type: "OpenStatement" } : { value: "{{", type: "OpenExpression" });
  const only = isBlock && inner.length === 1 && inner[0]!.type === "Identifier" ? inner[0]!.value : "";
  if (only === "generation") out.push(name("call"), name(GENERATION), op("("), op(")"));
  else if (only === "endgeneration") out.push(name("endcall"));
  else out.push(...testsAsFilters(tuples(inner), fail).flatMap(exactInteger));
  out.push(isBlock ? { value: "%}", type: "CloseStatement" } : { value: "}}", type: "CloseExpression" });
}

const isName = (t: Token | undefined, ...names: string[]): boolean =>
  t?.type === "Identifier" && names.includes(t.value);
const OPENERS = new Set(["OpenParen", "OpenSquareBracket", "OpenCurlyBracket"]);

const KEYWORDS = ["in", "not", "and", "or", "if", "else", "is", "elif", "set"];

/**
 * `(x,)`, `(x, y,)` and `()`, which the parser does not take -> `__tuple__(x)`, ...; and `(a == b)` -> `__group__(a == b)`, since the parser forgets
 * parentheses and `a == b == c` means something else.
 */
function tuples(tokens: readonly Token[]): Token[] {
  const out = [...tokens];
  for (let i = out.length - 1; i >= 0; i--) {
    if (out[i]!.type !== "OpenParen") continue;
    const before = out[i - 1];
    const isCall =
      before !== undefined &&
      ((before.type === "Identifier" && !isName(before, ...KEYWORDS)) ||
        before.type.startsWith("Close") ||
        before.type === "StringLiteral");
    const end = closing(out, i) - 1;
    if (isCall) continue;
    if (end > i + 1 && out[end - 1]?.type !== "Comma") {
      if (compares(out, i + 1, end)) out.splice(i, 0, name(GROUP));
      continue;
    }
    if (end > i + 1) out.splice(end - 1, 1);
    out.splice(i, 0, name(TUPLE));
  }
  return out;
}

/** Whether a comparison stands between two places, outside further brackets, and no comma makes it a tuple. */
function compares(tokens: readonly Token[], from: number, to: number): boolean {
  let found = false;
  for (let i = from; i < to; i++) {
    const { type } = tokens[i]!;
    if (OPENERS.has(type)) i = closing(tokens, i) - 1;
    else if (type === "Comma") return false;
    else if (type === "ComparisonBinaryOperator" || isName(tokens[i], "in")) found = true;
  }
  return found;
}

/** `x is [not] name`, `x is name(args)` and `x is name arg` -> `x | __is__("name", args)`: Jinja gives both the same precedence. */
function testsAsFilters(tokens: readonly Token[], fail: Fail): Token[] {
  const out: Token[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const before = tokens[i - 1];
    if (!isName(tokens[i], "is") || before === undefined || before.type === "Dot" || before.type === "Pipe") {
      out.push(tokens[i]!);
      continue;
    }
    let at = i + 1;
    const not = isName(tokens[at], "not");
    if (not) at++;
    const test = tokens[at];
    if (test?.type !== "Identifier") {
      out.push(tokens[i]!);
      continue;
    }
    const end = argumentEnd(tokens, at + 1);
    const args = tokens.slice(at + 1, end);
    const inParens = args[0]?.type === "OpenParen" && closing(tokens, at + 1) === end;
    const list = testsAsFilters(inParens ? args.slice(1, -1) : args, fail);
    if (isName(tokens[end], "is")) fail("tests must not be chained with is");
    out.push(op("|"), name(not ? TEST_NOT : TEST), op("("), { value: test.value, type: "StringLiteral" });
    if (list.length > 0) out.push(op(","), ...list);
    out.push(op(")"));
    i = end - 1;
  }
  return out;
}

/** End of the argument of a test, which may come without parentheses: a primary with its members and calls. */
function argumentEnd(tokens: readonly Token[], from: number): number {
  const first = tokens[from];
  if (first === undefined) return from;
  let at: number;
  if (OPENERS.has(first.type)) at = closing(tokens, from);
  else if (first.type === "StringLiteral" || first.type === "NumericLiteral") at = from + 1;
  else if (
    first.type === "Identifier" &&
    !isName(first, "else", "or", "and", "is", "if", "in", "not", "for", "recursive")
  )
    at = from + 1;
  else return from;
  if (first.type === "OpenParen") return at;
  for (;;) {
    const next = tokens[at];
    if (next?.type === "Dot") at += 2;
    else if (next !== undefined && (next.type === "OpenParen" || next.type === "OpenSquareBracket"))
      at = closing(tokens, at);
    else return Math.min(at, tokens.length);
  }
}

/** Index after the bracket that closes the one at `at`. */
function closing(tokens: readonly Token[], at: number): number {
  let depth = 0;
  for (let i = at; i < tokens.length; i++) {
    const { type } = tokens[i]!;
    if (OPENERS.has(type)) depth++;
    else if (type.startsWith("Close") && --depth === 0) return i + 1;
  }
  return tokens.length;
}
