// Strings as Python sees them: its set of white space, and lengths counted in code points.

/** Python's white space (str.isspace and \s of re), as the inside of a character class. It has U+001C to U+001F and U+0085, and not U+FEFF. */
export const PY_SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const LINE_ENDS = "\\r\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029";
/** What ends a line for str.splitlines(), besides \n. */
export const LINE_END = new RegExp(`[${LINE_ENDS}]`);
const SPACE = new RegExp(`^[${PY_SPACE}]`);

/** str.lstrip() of white space, or of the characters in `chars`. */
export function lstrip(text: string, chars?: string): string {
  let from = 0;
  for (let c = charAt(text, 0); c !== "" && gone(c, chars); c = charAt(text, from)) from += c.length;
  return text.slice(from);
}

/** str.rstrip(). */
export function rstrip(text: string, chars?: string): string {
  let to = text.length;
  const last = (): string => (charAt(text, to - 2).length === 2 ? charAt(text, to - 2) : charAt(text, to - 1));
  while (to > 0 && gone(last(), chars)) to -= last().length;
  return text.slice(0, to);
}

const charAt = (text: string, at: number): string =>
  at >= 0 && at < text.length ? String.fromCodePoint(text.codePointAt(at)!) : "";
const gone = (c: string, chars?: string): boolean => (chars === undefined ? SPACE.test(c) : chars.includes(c));

/** Number of code points. */
export function pyLength(text: string): number {
  return text.length - (text.match(/[\ud800-\udbff][\udc00-\udfff]/g)?.length ?? 0);
}
