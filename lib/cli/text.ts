// Text for terminals: nothing that comes from a file may steer the terminal that shows it.

/** Control characters, C1 included, and those that turn the direction of writing. */
// oxlint-disable-next-line no-control-regex -- they are what is looked for
const UNSAFE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const BREAKS = /[\n\t]/g;

/** The text with control characters written out (`\x1b`); line breaks and tabs stay only where `lines` is set. */
export function printable(text: string, lines = false): string {
  const safe = text.replace(UNSAFE, escape);
  return lines ? safe : safe.replace(BREAKS, (c) => (c === "\n" ? "\\n" : "\\t"));
}

function escape(c: string): string {
  const code = c.charCodeAt(0);
  return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** A length of time for people: 4.2s, 3m 05s, 2h 07m. */
export function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "?";
  if (seconds < 1) return `${(seconds * 1000).toFixed(0)}ms`;
  if (seconds < 60) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number): string => String(n).padStart(2, "0");
  return h > 0 ? `${h}h ${two(m)}m` : `${m}m ${two(s)}s`;
}

/** A number for people: at most four significant digits. */
export function formatNumber(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US");
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}
