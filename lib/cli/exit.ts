// How a command ends: the exit code of each kind of error, and the text on stderr.

import {
  AttuneError,
  ConfigError,
  DataError,
  DeviceError,
  NumericError,
  OutOfMemoryError,
  WriteError,
} from "../errors.ts";
import { printable } from "./text.ts";

/** Exit codes, as documented: the same in every command. */
export const EXIT = {
  done: 0,
  bug: 1,
  config: 2,
  data: 3,
  memory: 4,
  device: 5,
  numeric: 6,
  write: 7,
  interrupted: 130,
  terminated: 143,
} as const;

const CLASSES: readonly (readonly [new (...args: never[]) => AttuneError, number])[] = [
  [ConfigError, EXIT.config],
  [DataError, EXIT.data],
  [OutOfMemoryError, EXIT.memory],
  [DeviceError, EXIT.device],
  [NumericError, EXIT.numeric],
  [WriteError, EXIT.write],
];
const DISK_FULL: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT", "EIO", "EFBIG"]);
const UNREADABLE: ReadonlySet<string> = new Set([
  "ENOENT",
  "EACCES",
  "EPERM",
  "EISDIR",
  "ENOTDIR",
  "ELOOP",
  "ENAMETOOLONG",
]);

/** The exit code of an error: by its class, and for errors of the file system by their code. */
export function exitCodeOf(error: unknown): number {
  for (const [type, code] of CLASSES) if (error instanceof type) return code;
  if (error instanceof AttuneError) return EXIT.bug;
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  if (code !== undefined && syscall !== undefined) {
    if (DISK_FULL.has(code)) return EXIT.write;
    if (code === "EROFS") return EXIT.config;
    if (UNREADABLE.has(code)) return EXIT.data;
  }
  return EXIT.bug;
}

/** What stderr says about an error: one line a problem, and the stack only where ATTUNE_DEBUG asks for it. */
export function errorLines(error: unknown, debug: boolean): string[] {
  const message = error instanceof Error ? error.message || error.name : String(error);
  const bug = exitCodeOf(error) === EXIT.bug;
  const tail = bug ? " (a bug of attune: please report it with the output of ATTUNE_DEBUG=1)" : "";
  const lines = message.split("\n").filter((line) => line.trim() !== "");
  const said = (bug ? [lines.join(" ")] : lines).map((line) => `attune: error: ${printable(line)}${tail}`);
  if (debug && error instanceof Error) {
    for (let e: unknown = error; e instanceof Error; e = e.cause) said.push(printable(e.stack ?? String(e), true));
  }
  return said;
}
