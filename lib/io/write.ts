// Writing files: system errors become WriteError (a run's disk is full, its folder is gone), and what is written can be made durable.
import { existsSync } from "node:fs";
import { access, constants, mkdir, stat, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { AttuneError, ConfigError, WriteError } from "../errors.ts";
import { disk } from "./disk.ts";
import { errorCode } from "./json.ts";

const reasons: ReadonlyMap<string, string> = new Map([
  ["ENOSPC", "the disk is full"],
  ["EDQUOT", "the disk quota is used up"],
  ["EROFS", "the file system is read-only"],
  ["EACCES", "no permission"],
  ["EPERM", "no permission"],
  ["ENOENT", "the folder is gone"],
  ["ENOTDIR", "a part of the path is a file"],
  ["EIO", "the disk reports an error"],
  ["EFBIG", "the file is too large for this file system"],
  ["EMFILE", "too many open files"],
]);

/** Runs a writing action; a system error becomes a WriteError that names `path`. */
export async function writing<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof AttuneError) throw error;
    const why = reasons.get(errorCode(error)) ?? (error as Error).message;
    throw new WriteError(`${path}: must be writable, got an error: ${why}`, { cause: error });
  }
}

/** Writes a small file. Throws WriteError. */
export async function writeText(path: string, text: string | Uint8Array): Promise<void> {
  await writing(path, () => writeFile(path, text));
}

/** Makes a file's or folder's content survive a power cut. Throws WriteError. */
export async function sync(path: string): Promise<void> {
  await writing(path, () => disk.sync(path));
}

/** `mkdir -p`, a level at a time: Node's own recursion does not end where the file system takes no folder (/proc). */
async function makeFolders(dir: string): Promise<void> {
  try {
    await mkdir(dir);
  } catch (error) {
    const code = errorCode(error);
    if (code === "EEXIST") return;
    if (code !== "ENOENT" || dirname(dir) === dir || existsSync(dirname(dir))) throw error;
    await makeFolders(dirname(dir));
    await mkdir(dir);
  }
}

/** Creates the output folder where it is missing and checks, before any work, that it can be written. Throws ConfigError. */
export async function ensureWritableFolder(dir: string, key = "output_dir"): Promise<void> {
  const refusal = (why: string, cause?: unknown): ConfigError =>
    new ConfigError(`${key}: must be a folder that can be written, got ${dir}: ${why} (choose another)`, { cause });
  try {
    await makeFolders(resolve(dir));
    if (!(await stat(dir)).isDirectory()) throw refusal("it is a file");
    await access(dir, constants.W_OK | constants.X_OK);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const why = errorCode(error) === "ENOENT" ? "no folder can be made there" : reasons.get(errorCode(error));
    throw refusal(why ?? (error as Error).message, error);
  }
}
