// What @huggingface/jinja has and does not export or type: the classes of its values, and what of its interpreter ours stands on. The version is pinned.

import { Environment, Interpreter } from "@huggingface/jinja";

/** A value of a running template. */
export interface Value {
  readonly type: string;
  readonly value: unknown;
  __bool__(): { readonly value: boolean };
}
export interface Of<T> extends Value {
  readonly value: T;
}

/** Variables of a block; looked up outwards. */
export class Scope {
  readonly variables = new Map<string, Value>();
  readonly parent: Scope | undefined;
  constructor(parent?: Scope) {
    this.parent = parent;
  }
  setVariable(name: string, value: Value): void {
    this.variables.set(name, value);
  }
}

/** A node of the syntax tree, with the fields that its type has. */
export type Node = { readonly type: string } & Readonly<Record<string, any>>;

export interface Library {
  evaluate(node: Node | undefined, scope: Scope): Value;
  evaluateBlock(body: readonly Node[], scope: Scope): Of<string>;
  evaluateArguments(args: readonly Node[], scope: Scope): [Value[], Kwargs];
}
export const Library = Interpreter as unknown as new () => Library;
export type Kwargs = ReadonlyMap<string, Value>;
export type Call = (args: Value[], scope: Scope) => Value;

const samples = new Environment();
const classOf = <T>(sample: unknown): new (value: T) => Of<T> =>
  samples.set(`sample ${samples.variables.size}`, sample).constructor;

export const Str = classOf<string>("");
/** Integers within 2^53 are numbers, larger ones bigint: those print, but are not computed with. */
export const Int = classOf<number | bigint>(1);
export const Float = classOf<number>(0.5);
export const Bool = classOf<boolean>(true);
export const None = classOf<null>(null);
export const Undefined = classOf<undefined>(undefined);
export const List = classOf<Value[]>([]);
export const Dict = classOf<Map<string, Value>>({});
export const Func = classOf<Call>(() => null);
export const NAMESPACE: Of<Call> = samples.lookupVariable("namespace");
export const Namespace = NAMESPACE.value([], samples).constructor as typeof Dict;
/** The library forgets that a tuple is one where it prints or unpacks it. */
export class Tuple extends List {}
/** What Python does not print as a list: dict.keys(), values() and items(). */
export class View extends List {}
/** What it walks over once, and takes for true: map, select and the like. */
export class Lazy extends View {
  override __bool__(): Of<boolean> {
    return new Bool(true);
  }
}

export const NONE = new None(null);
export const UNDEFINED = new Undefined(undefined);
export const str = (text: string): Of<string> => new Str(text);
const [NO, YES] = [new Bool(false), new Bool(true)];
export const bool = (b: boolean): Of<boolean> => (b ? YES : NO);
/** A missing argument is false. */
export const truth = (v: Value | undefined): boolean => v?.__bool__().value ?? false;
export const isList = (v: Value): v is Of<Value[]> => v instanceof List && !(v instanceof View);
export const pairs = (d: Of<Map<string, Value>>): Tuple[] => [...d.value].map(([k, v]) => new Tuple([str(k), v]));

/** What stops a template: a message for its user. */
export class TemplateError extends Error {}

export function unsupported(what: string): never {
  throw new TemplateError(
    `${what} is not supported (write it otherwise and name the template with chat_template_path)`,
  );
}

/** Rows as JSON values -> values of a template. Numbers stay as they are written. */
export function toValue(v: unknown): Value {
  if (typeof v === "string") return new Str(v);
  if (typeof v === "bigint") return new Int(Number.isSafeInteger(Number(v)) ? Number(v) : v);
  if (typeof v === "number") return new Float(v);
  if (typeof v === "boolean") return new Bool(v);
  if (Array.isArray(v)) return new List(v.map(toValue));
  return v instanceof Map ? new Dict(new Map([...v].map(([k, x]) => [k as string, toValue(x)]))) : NONE;
}
