// The syntax tree that @huggingface/jinja's parser gives, as types. The library parses; evaluate.ts gives it Python's meaning.

import { parse } from "@huggingface/jinja";
import { lex } from "./lex.ts";

export type Node =
  | { type: "Program"; body: Node[] }
  | { type: "If"; test: Node; body: Node[]; alternate: Node[] }
  | { type: "For"; loopvar: Node; iterable: Node; body: Node[]; defaultBlock: Node[] }
  | { type: "Break" | "Continue" | "Comment" }
  | { type: "Set"; assignee: Node; value: Node | null; body: Node[] }
  | { type: "Macro"; name: Name; args: Node[]; body: Node[] }
  | { type: "CallStatement"; call: Call; callerArgs: Node[] | null; body: Node[] }
  | { type: "FilterStatement"; filter: Name | Call; body: Node[] }
  | { type: "MemberExpression"; object: Node; property: Node; computed: boolean }
  | Call
  | Name
  | { type: "IntegerLiteral" | "FloatLiteral"; value: number }
  | { type: "StringLiteral"; value: string }
  | { type: "ArrayLiteral" | "TupleLiteral"; value: Node[] }
  | { type: "ObjectLiteral"; value: Map<Node, Node> }
  | { type: "BinaryExpression"; operator: { value: string }; left: Node; right: Node }
  | { type: "FilterExpression"; operand: Node; filter: Name | Call }
  | { type: "SelectExpression"; lhs: Node; test: Node }
  | { type: "UnaryExpression"; operator: { value: string }; argument: Node }
  | Slice
  | { type: "KeywordArgumentExpression"; key: Name; value: Node }
  | { type: "SpreadExpression" | "KeywordSpreadExpression"; argument: Node }
  | { type: "Ternary"; condition: Node; trueExpr: Node; falseExpr: Node };

export type Name = { type: "Identifier"; value: string };
export type Call = { type: "CallExpression"; callee: Node; args: Node[] };
export type Slice = { type: "SliceExpression"; start?: Node; stop?: Node; step?: Node };
export type Program = Extract<Node, { type: "Program" }>;

/** Reads a template. Errors: TemplateSyntaxError for its tokens, the library's errors for its grammar, SyntaxError for a loop's exit outside of one. */
export function parseTemplate(source: string): Program {
  const program = parse(lex(source) as never) as unknown as Program;
  checkExits(program.body, false);
  return program;
}

/** `break` and `continue` must be inside a loop, and not cross the border of a macro or a call block: Python compiles those to functions. */
function checkExits(body: readonly Node[], inLoop: boolean): void {
  for (const node of body) {
    if ((node.type === "Break" || node.type === "Continue") && !inLoop)
      throw new SyntaxError(`${node.type.toLowerCase()} must be inside a loop`);
    if (node.type === "If") checkExits([...node.body, ...node.alternate], inLoop);
    else if (node.type === "For") {
      checkExits(node.body, true);
      checkExits(node.defaultBlock, inLoop);
    } else if (node.type === "Macro" || node.type === "CallStatement") checkExits(node.body, false);
    else if (node.type === "Set" || node.type === "FilterStatement") checkExits(node.body, inLoop);
  }
}
