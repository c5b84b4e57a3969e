// JSON as text: where each member of an object stands. For what JSON.parse hides: duplicate keys, and numbers as they were spelt.
export interface Member {
  readonly key: string;
  /** The value is `text.slice(start, end)`. */
  readonly start: number;
  readonly end: number;
}

/** Members of the object whose "{" is at or after `from`. The text must be what JSON.parse accepted; no recursion, so depth is no danger. */
export function members(text: string, from = 0): Member[] {
  const found: Member[] = [];
  let at = text.indexOf("{", from) + 1;
  for (;;) {
    at = skipSpace(text, at);
    if (at >= text.length || text[at] === "}") return found;
    if (text[at] === ",") at = skipSpace(text, at + 1);
    const keyEnd = skipString(text, at);
    const key = JSON.parse(text.slice(at, keyEnd)) as string;
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const end = skipValue(text, start);
    found.push({ key, start, end });
    at = end;
  }
}

/** The first key that stands twice in the object at `from`, or null. */
export function duplicateKey(text: string, from = 0): string | null {
  const seen = new Set<string>();
  for (const { key } of members(text, from)) {
    if (seen.has(key)) return key;
    seen.add(key);
  }
  return null;
}

/** The text of an object with top-level `key` set to `value`: every other character stays; a new key goes to the end. */
export function withMember(text: string, key: string, value: unknown): string {
  const list = members(text);
  const old = list.findLast((m) => m.key === key);
  const written = JSON.stringify(value, null, 2).replaceAll("\n", "\n  ");
  if (old !== undefined) return text.slice(0, old.start) + written + text.slice(old.end);
  const last = list.at(-1);
  const entry = `\n  ${JSON.stringify(key)}: ${written}`;
  if (last === undefined) return `{${entry}\n}\n`;
  return `${text.slice(0, last.end)},${entry}${text.slice(last.end)}`;
}

/** The text of `value` as this project writes JSON files. */
export function jsonText(value: unknown): string {
  return JSON.stringify(value, null, 2) + "\n";
}

function skipSpace(text: string, at: number): number {
  while (at < text.length && " \t\r\n".includes(text[at]!)) at++;
  return at;
}

function skipString(text: string, at: number): number {
  for (at++; at < text.length && text[at] !== '"'; at++) if (text[at] === "\\") at++;
  return at + 1;
}

function skipValue(text: string, at: number): number {
  let depth = 0;
  for (;;) {
    const c = text[at];
    if (c === undefined) return at;
    if (c === '"') {
      at = skipString(text, at);
    } else if (c === "{" || c === "[") {
      depth++;
      at++;
    } else if (c === "}" || c === "]") {
      if (depth === 0) return at;
      depth--;
      at++;
    } else if (depth > 0) {
      at++;
      continue;
    } else {
      while (at < text.length && !",}] \t\r\n".includes(text[at]!)) at++;
    }
    if (depth === 0) return at;
  }
}
