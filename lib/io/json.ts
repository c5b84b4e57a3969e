// Bounded JSON files, read off the event loop. Files are downloads: every failure is a DataError that names the file, and the text is
// kept beside the value, because saving a model edits a base's text instead of rewriting its numbers.
import { readFile, stat } from "node:fs/promises";
import { DataError, whyUnread } from "../errors.ts";

export interface JsonFile {
  /** The text as read, without a byte order mark. */
  readonly text: string;
  readonly value: unknown;
}

export type JsonObject = { readonly [key: string]: unknown };

/** True for a JSON object (not null, not an array). */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Shows a value inside a message: JSON, at most 80 characters. */
export function show(value: unknown): string {
  let text: string = typeof value;
  try {
    text = value === undefined ? "nothing" : JSON.stringify(value);
  } catch {
    // Nested too deeply to print: the type says enough.
  }
  return text.length > 80 ? text.slice(0, 77) + "..." : text;
}

/** Reads a UTF-8 JSON file of at most `maxBytes` (default 64 MiB). Throws DataError: missing, no plain file, too large, not JSON. */
export async function readJson(path: string, options: { readonly maxBytes?: number } = {}): Promise<JsonFile> {
  const maxBytes = options.maxBytes ?? 64 * 2 ** 20;
  let bytes: Buffer;
  try {
    const info = await stat(path);
    if (!info.isFile()) throw new DataError(`${path}: must be a plain file, got ${info.isDirectory() ? "a folder" : "something else"}`);
    if (info.size > maxBytes) throw new DataError(`${path}: must be at most ${maxBytes} bytes, got ${info.size}`);
    bytes = await readFile(path);
  } catch (error) {
    throw readError(path, error);
  }
  return parseJson(bytes, path);
}

/** Like `readJson`, but null where there is no such file. */
export async function readJsonIfPresent(
  path: string,
  options?: { readonly maxBytes?: number },
): Promise<JsonFile | null> {
  try {
    await stat(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw readError(path, error);
  }
  return readJson(path, options);
}

/** Parses UTF-8 JSON; `name` stands in messages. A byte order mark is allowed. */
export function parseJson(bytes: Uint8Array, name: string): JsonFile {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new DataError(`${name}: must be UTF-8 text, got other bytes`, { cause: error });
  }
  try {
    return { text, value: JSON.parse(text) };
  } catch (error) {
    throw new DataError(`${name}: must be JSON, got an error: ${(error as Error).message}`, { cause: error });
  }
}

/** Turns a failed read into a DataError that names the file; a DataError passes through. */
export function readError(path: string, error: unknown): Error {
  if (error instanceof DataError) return error;
  return new DataError(`${path}: must be readable, got ${whyUnread(error)}`, { cause: error });
}

/** The system's error code ("ENOENT", "ENOSPC", ...), or "". */
export function errorCode(error: unknown): string {
  return String((error as { code?: unknown } | null)?.code ?? "");
}
