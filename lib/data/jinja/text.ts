// Strings as Python sees them: its set of white space, and lengths and places counted in code points.

/** Python's white space (str.isspace and \s of re), as the inside of a character class. It has U+001C to U+001F and U+0085, and not U+FEFF. */
export const PY_SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

const ONE = new RegExp(`^[${PY_SPACE}]$`);

export function isPySpace(char: string): boolean {
  return ONE.test(char);
}

/** str.lstrip(), or with `chars` the characters to take away. */
export function pyLstrip(text: string, chars?: string): string {
  const gone = stripSet(chars);
  let from = 0;
  while (from < text.length) {
    const char = String.fromCodePoint(text.codePointAt(from)!);
    if (!gone(char)) break;
    from += char.length;
  }
  return text.slice(from);
}

/** str.rstrip(), or with `chars` the characters to take away. */
export function pyRstrip(text: string, chars?: string): string {
  const gone = stripSet(chars);
  let end = text.length;
  while (end > 0) {
    const low = text.charCodeAt(end - 1);
    const wide = low >= 0xdc00 && low <= 0xdfff && end > 1 && (text.charCodeAt(end - 2) & 0xfc00) === 0xd800;
    const from = end - (wide ? 2 : 1);
    if (!gone(text.slice(from, end))) break;
    end = from;
  }
  return text.slice(0, end);
}

function stripSet(chars?: string): (char: string) => boolean {
  if (chars === undefined) return isPySpace;
  const set = new Set(chars);
  return (char) => set.has(char);
}

/** Number of code points. */
export function pyLength(text: string): number {
  let n = text.length;
  for (let i = 0; i + 1 < text.length; i++)
    if ((text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      n--;
      i++;
    }
  return n;
}

/** True where a text has code points past U+FFFF, so that units and code points count differently. */
export function isWide(text: string): boolean {
  return /[\ud800-\udbff][\udc00-\udfff]/.test(text);
}
