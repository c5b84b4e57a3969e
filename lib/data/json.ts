// JSON as Python reads it: integers stay exact (bigint), floats stay floats (number), keys keep their order (Map). Chat templates print these values,
// so `2.0`, `1e-07` and integers past 2^53 must survive, which JSON.parse does not allow.

/** A JSON value: null, boolean, string, integer (bigint), float (number), list, or object in file order. */
export type Json = null | boolean | string | bigint | number | Json[] | JsonObject;
export type JsonObject = Map<string, Json>;

/** Where and why a text is not JSON. `at` counts UTF-16 units from the start of the text. */
export class JsonError extends Error {
  readonly at: number;
  constructor(message: string, at: number) {
    super(message);
    this.at = at;
  }
}

const MAX_DEPTH = 256;
const MAX_DIGITS = 4300; // Python's own limit for integers in text
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/**
 * Reads values one after another from a text, so that a large array can be walked element by element.
 * Errors are JsonError with the offset of what is wrong. Nesting is bounded by 256 levels.
 */
export class JsonReader {
  readonly text: string;
  at: number;

  constructor(text: string, at = 0) {
    this.text = text;
    this.at = at;
  }

  /** Moves past white space and returns the next character code, or NaN at the end. */
  peek(): number {
    const { text } = this;
    for (;;) {
      const c = text.charCodeAt(this.at);
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return c;
      this.at++;
    }
  }

  fail(message: string, at = this.at): never {
    throw new JsonError(message, at);
  }

  /** Reads one value. */
  value(depth = 0): Json {
    if (depth > MAX_DEPTH) this.fail(`nesting must be at most ${MAX_DEPTH} levels deep, got more`);
    const c = this.peek();
    if (c === 0x22) return this.#string();
    if (c === 0x7b) return this.#object(depth);
    if (c === 0x5b) return this.#array(depth);
    if (c === 0x2d || (c >= 0x30 && c <= 0x39)) return this.#number();
    if (this.text.startsWith("true", this.at)) return this.#word(4, true);
    if (this.text.startsWith("false", this.at)) return this.#word(5, false);
    if (this.text.startsWith("null", this.at)) return this.#word(4, null);
    if (Number.isNaN(c)) this.fail("a value must follow, got the end of the text");
    return this.fail(`a value must follow, got ${shown(this.text, this.at)}`);
  }

  /** Fails unless only white space is left. */
  end(): void {
    if (!Number.isNaN(this.peek())) this.fail(`nothing must follow the value, got ${shown(this.text, this.at)}`);
  }

  /** Moves past `code` if it comes next. */
  take(code: number): boolean {
    if (this.peek() !== code) return false;
    this.at++;
    return true;
  }

  #word<T>(length: number, value: T): T {
    this.at += length;
    return value;
  }

  #number(): bigint | number {
    NUMBER.lastIndex = this.at;
    const m = NUMBER.exec(this.text);
    if (!m) return this.fail(`a number must follow, got ${shown(this.text, this.at)}`);
    const next = this.text.charCodeAt(this.at + m[0].length);
    if ((next >= 0x30 && next <= 0x39) || next === 0x2e)
      this.fail(`a number must follow, got ${shown(this.text, this.at)}`);
    if (m[1] === undefined && m[2] === undefined) {
      if (m[0].length > MAX_DIGITS) this.fail(`an integer must have at most ${MAX_DIGITS} digits, got ${m[0].length}`);
      this.at += m[0].length;
      return BigInt(m[0]);
    }
    this.at += m[0].length;
    return Number(m[0]);
  }

  #string(): string {
    const { text } = this;
    const open = this.at++;
    let out = "";
    let from = this.at;
    for (;;) {
      const c = text.charCodeAt(this.at);
      if (c === 0x22) {
        out += text.slice(from, this.at++);
        return out;
      }
      if (c === 0x5c) {
        out += text.slice(from, this.at) + this.#escape();
        from = this.at;
      } else if (c < 0x20) {
        this.fail(`a control character in a string must be escaped, got ${shown(text, this.at)}`);
      } else if (Number.isNaN(c)) {
        this.fail("a string must end with a quote, got the end of the text", open);
      } else {
        this.at++;
      }
    }
  }

  #escape(): string {
    const letter = this.text[this.at + 1] ?? "";
    if (letter === "u") {
      const hex = this.text.slice(this.at + 2, this.at + 6);
      if (!/^[0-9a-fA-F]{4}$/.test(hex)) this.fail("\\u must be followed by four hexadecimal digits");
      this.at += 6;
      return String.fromCharCode(parseInt(hex, 16));
    }
    const plain = Object.hasOwn(ESCAPES, letter) ? ESCAPES[letter] : undefined;
    if (plain === undefined)
      return this.fail(`an escape must be one of \\" \\\\ \\/ \\b \\f \\n \\r \\t \\u, got \\${letter}`);
    this.at += 2;
    return plain;
  }

  #array(depth: number): Json[] {
    const out: Json[] = [];
    this.at++;
    if (this.take(0x5d)) return out;
    for (;;) {
      out.push(this.value(depth + 1));
      if (this.take(0x5d)) return out;
      if (!this.take(0x2c)) this.fail(`"," or "]" must follow an element, got ${shown(this.text, this.at)}`);
    }
  }

  #object(depth: number): JsonObject {
    const out: JsonObject = new Map();
    this.at++;
    if (this.take(0x7d)) return out;
    for (;;) {
      if (this.peek() !== 0x22) this.fail(`a key in quotes must follow, got ${shown(this.text, this.at)}`);
      const key = this.#string();
      if (!this.take(0x3a)) this.fail(`":" must follow a key, got ${shown(this.text, this.at)}`);
      out.set(key, this.value(depth + 1));
      if (this.take(0x7d)) return out;
      if (!this.take(0x2c)) this.fail(`"," or "}" must follow a value, got ${shown(this.text, this.at)}`);
    }
  }
}

function shown(text: string, at: number): string {
  return at >= text.length ? "the end of the text" : JSON.stringify(text.slice(at, at + 12));
}

/** Reads one JSON text as a whole. Errors: JsonError. */
export function parseJson(text: string): Json {
  const reader = new JsonReader(text);
  const value = reader.value();
  reader.end();
  return value;
}

/**
 * A JavaScript value as a Json value: whole numbers become integers, since JavaScript does not tell 2 from 2.0; undefined fields are left out.
 * Errors: JsonError (at 0) for functions, symbols, cycles and other things that JSON cannot hold.
 */
export function fromJs(value: unknown, depth = 0): Json {
  if (depth > MAX_DEPTH) throw new JsonError(`nesting must be at most ${MAX_DEPTH} levels deep, without cycles`, 0);
  if (value === null || typeof value === "boolean" || typeof value === "string" || typeof value === "bigint")
    return value;
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new JsonError(`a number must be finite, got ${value}`, 0);
    return Number.isSafeInteger(value) && !Object.is(value, -0) ? BigInt(value) : value;
  }
  if (Array.isArray(value)) return value.map((x) => fromJs(x ?? null, depth + 1));
  if (typeof value !== "object") throw new JsonError(`a value must be JSON, got a ${typeof value}`, 0);
  const entries = value instanceof Map ? [...value] : Object.entries(value);
  const out: JsonObject = new Map();
  for (const [k, v] of entries) {
    if (typeof k !== "string") throw new JsonError(`a key must be a string, got a ${typeof k}`, 0);
    if (v !== undefined) out.set(k, fromJs(v, depth + 1));
  }
  return out;
}

/** What kind of thing a value is, in JSON's words, for messages. */
export function kindOf(value: Json | undefined): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (value instanceof Map) return "an object";
  if (typeof value === "string") return "a string";
  return typeof value === "boolean" ? "true or false" : "a number";
}

/** Whether two values are the same, numbers by value, objects whatever their order. */
export function sameJson(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((x, i) => sameJson(x, b[i]));
  if (a instanceof Map)
    return b instanceof Map && a.size === b.size && [...a].every(([k, v]) => b.has(k) && sameJson(v, b.get(k)));
  return false;
}
