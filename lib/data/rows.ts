// Reads the rows of a data set file: JSON lines or one JSON array, told apart by the first character. Every error names the file and the line.

import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { DataError, whyUnread } from "../errors.ts";
import { JsonError, JsonReader, kindOf, parseJson } from "./json.ts";
import type { Json, JsonObject } from "./json.ts";

/** One row: `row` counts from 0 in file order, `line` from 1 (where the row starts). */
export interface Row {
  readonly row: number;
  readonly line: number;
  readonly value: JsonObject;
}

/** Called with every chunk of bytes as it is read, so that the caller can hash the file on the way. */
export type OnBytes = (bytes: Uint8Array) => void;

const MAX_LINE = 256 * 1024 * 1024;
const MAX_ARRAY = 480 * 1024 * 1024; // a JavaScript string holds about 512 Mi units

/** Strict UTF-8 to text. Errors: DataError naming `where` and the first bad byte. */
export function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    const at = firstBadByte(bytes);
    const shown = `0x${(bytes[at] ?? 0).toString(16).padStart(2, "0")}`;
    throw new DataError(
      `${where}: text must be UTF-8, got byte ${shown} at byte ${at + 1} (convert the file to UTF-8)`,
    );
  }
}

/** Index of the first byte that no valid UTF-8 text continues with. */
function firstBadByte(bytes: Uint8Array): number {
  let low = 0;
  let high = bytes.length;
  const decoder = () => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  while (low < high) {
    const mid = (low + high + 1) >> 1;
    try {
      decoder().decode(bytes.subarray(0, mid), { stream: true });
      low = mid;
    } catch {
      high = mid - 1;
    }
  }
  return Math.min(low, Math.max(bytes.length - 1, 0));
}

function rowError(file: string, line: number, e: unknown): DataError {
  if (!(e instanceof JsonError)) throw e;
  // A first line that is no JSON at all is another kind of file.
  const mend = line === 1 && e.at === 0 ? "write the rows as JSON lines, one object a line" : `column ${e.at + 1}`;
  return new DataError(`${file}:${line}: a row must be a JSON object: ${e.message} (${mend})`, { cause: e });
}

function asObject(value: Json, file: string, line: number): JsonObject {
  if (value instanceof Map) return value;
  throw new DataError(`${file}:${line}: a row must be a JSON object, got ${kindOf(value)}`);
}

/**
 * Rows of a JSONL file (one object a line; empty lines are skipped, CRLF and a leading BOM allowed) or of a JSON file that holds one array of objects.
 * Errors: DataError with file and line for text that is not UTF-8, not JSON or not an object; system errors of reading become DataError too.
 */
export async function* readRows(path: string, onBytes?: OnBytes): AsyncGenerator<Row> {
  const file = basename(path);
  const lines = readLines(path, file, onBytes);
  let row = 0;
  try {
    for (;;) {
      const next = await lines.next(false);
      if (next.done) return;
      const { line, text } = next.value;
      const trimmed = text.trimStart();
      if (trimmed === "") continue;
      if (row === 0 && trimmed.startsWith("[")) {
        const rest = await lines.next(true);
        if (!rest.done) yield* arrayRows(text + "\n" + rest.value.text, file, line);
        return;
      }
      let value: Json;
      try {
        value = parseJson(text);
      } catch (e) {
        throw rowError(file, line, e);
      }
      yield { row: row++, line, value: asObject(value, file, line) };
    }
  } finally {
    await lines.return(); // closes the file, also where a row is wrong or nobody wants more
  }
}

interface Line {
  readonly line: number;
  readonly text: string;
}

/** Lines of a file without their ends. `next(true)` hands over all that is left as one text. */
async function* readLines(path: string, file: string, onBytes?: OnBytes): AsyncGenerator<Line, void, boolean> {
  let parts: Uint8Array[] = [];
  let held = 0;
  let line = 1;
  let whole = false;
  let first = true;
  const hold = (bytes: Uint8Array): void => {
    parts.push(bytes);
    held += bytes.length;
    if (held > (whole ? MAX_ARRAY : MAX_LINE)) {
      const [what, limit, mend] = whole
        ? ["a JSON array", MAX_ARRAY, "write it as JSON lines"]
        : ["a line", MAX_LINE, "one row a line"];
      throw new DataError(`${file}:${line}: ${what} must be at most ${limit >> 20} MiB, got more (${mend})`);
    }
  };
  const flush = (): Line => {
    let text = decodeUtf8(parts.length === 1 ? parts[0]! : Buffer.concat(parts), `${file}:${line}`);
    parts = [];
    held = 0;
    if (first && text.startsWith("\ufeff")) text = text.slice(1);
    first = false;
    if (text.endsWith("\r")) text = text.slice(0, -1);
    return { line, text };
  };
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
      onBytes?.(chunk);
      if (first && held === 0 && (hasUtf16Mark(chunk) || chunk[0] === 0x1f)) {
        const what = chunk[0] === 0x1f ? "a gzip file" : "UTF-16";
        throw new DataError(`${file}: text must be UTF-8, got ${what} (convert the file to UTF-8 text)`);
      }
      let from = 0;
      while (!whole) {
        const end = chunk.indexOf(0x0a, from);
        if (end < 0) break;
        hold(chunk.subarray(from, end));
        from = end + 1;
        whole = yield flush();
        line++;
      }
      if (from < chunk.length) hold(chunk.subarray(from));
    }
  } catch (e) {
    if (e instanceof DataError) throw e;
    throw new DataError(`${path}: must be a data file, .jsonl or .json, got ${whyUnread(e)}`, { cause: e });
  }
  if (held > 0 || whole) {
    const again = yield flush();
    if (again && !whole) yield { line, text: "" };
  }
}

function hasUtf16Mark(bytes: Uint8Array): boolean {
  return (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
}

function* arrayRows(text: string, file: string, firstLine: number): Generator<Row> {
  const reader = new JsonReader(text);
  let line = firstLine;
  let counted = 0;
  const lineAt = (at: number): number => {
    for (let i = text.indexOf("\n", counted); i >= 0 && i < at; i = text.indexOf("\n", counted)) {
      line++;
      counted = i + 1;
    }
    return line;
  };
  try {
    reader.take(0x5b);
    if (!reader.take(0x5d)) {
      for (let row = 0; ; row++) {
        reader.peek();
        const at = lineAt(reader.at);
        yield { row, line: at, value: asObject(reader.value(), file, at) };
        if (reader.take(0x5d)) break;
        if (!reader.take(0x2c)) reader.fail('"," or "]" must follow a row');
      }
    }
    reader.end();
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    const at = lineAt(e.at);
    const column = e.at - text.lastIndexOf("\n", e.at - 1);
    throw new DataError(
      `${file}:${at}: a data file must be one JSON array of objects: ${e.message} (column ${column})`,
      { cause: e },
    );
  }
}
