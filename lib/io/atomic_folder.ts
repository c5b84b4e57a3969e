// Files and folders that appear whole or not at all: written under a temporary name, synced, renamed. A temporary name says which process owns it, so
// that leftovers of a killed one can be told from another's work.
import { randomBytes } from "node:crypto";
import { mkdir, readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { disk } from "./disk.ts";
import { errorCode } from "./json.ts";
import { sync, writeText, writing } from "./write.ts";

const temporary = /^(.+)\.tmp-(\d+)-(\d+)-[0-9a-f]{8}$/;

/** A fresh temporary name for `path`, in the same folder. */
export function temporaryName(path: string): string {
  return `${path}.tmp-${process.pid}-${processStart()}-${randomBytes(4).toString("hex")}`;
}

// Seconds since 1970. Process ids repeat (in a container often at once), start times hardly.
function processStart(): number {
  return Math.round(Date.now() / 1000 - process.uptime());
}

/** Writes a file that is never seen half-written. Throws WriteError, with an older file of that name intact. */
export async function writeWhole(path: string, text: string): Promise<void> {
  const draft = temporaryName(path);
  try {
    await writeText(draft, text);
    await sync(draft);
    await writing(path, () => disk.rename(draft, path));
  } catch (error) {
    await disk.remove(draft).catch(() => undefined);
    throw error;
  }
}

/**
 * Lets `write` fill a temporary folder beside `dir`, makes it durable and renames it to `dir`; an older folder of that name is replaced.
 * Where anything fails the temporary folder is removed, `dir` is as before, and the error goes on (system errors as WriteError).
 */
export async function writeFolder(dir: string, write: (temporaryDir: string) => Promise<void>): Promise<void> {
  const draft = temporaryName(dir);
  try {
    await writing(dir, () => mkdir(draft, { recursive: true }));
    await write(draft);
    await syncFolder(draft);
    await replace(draft, dir);
    await sync(dirname(dir));
  } catch (error) {
    await removeQuietly(draft);
    throw error;
  }
}

/**
 * Like `writeFolder`, for the root of an output folder that holds other things: `write` fills a temporary folder inside `dir`, whose files
 * then move into `dir`, `last` after all others: once `last` is there, everything is. Files that match `stale` and are not part of the new
 * set are removed first. Throws WriteError.
 */
export async function writeInto(
  dir: string,
  write: (temporaryDir: string) => Promise<void>,
  options: { readonly last: string; readonly stale: RegExp },
): Promise<void> {
  const draft = temporaryName(join(dir, ".files"));
  try {
    await writing(dir, () => mkdir(draft, { recursive: true }));
    await write(draft);
    await syncFolder(draft);
    await writing(dir, async () => {
      const names = await readdir(draft);
      await disk.remove(join(dir, options.last));
      for (const old of await readdir(dir)) {
        if (options.stale.test(old) && !names.includes(old)) await disk.remove(join(dir, old));
      }
      for (const name of names) if (name !== options.last) await disk.rename(join(draft, name), join(dir, name));
      await sync(dir);
      if (names.includes(options.last)) await disk.rename(join(draft, options.last), join(dir, options.last));
    });
    await sync(dir);
  } finally {
    await removeQuietly(draft);
  }
}

async function syncFolder(dir: string): Promise<void> {
  for (const name of await writing(dir, () => readdir(dir))) await sync(join(dir, name));
  await sync(dir);
}

async function replace(draft: string, dir: string): Promise<void> {
  const old = temporaryName(dir);
  const moved = await writing(dir, () =>
    disk.rename(dir, old).then(
      () => true,
      (error: unknown) => {
        if (errorCode(error) === "ENOENT") return false;
        throw error;
      },
    ),
  );
  await writing(dir, () => disk.rename(draft, dir));
  if (moved) await removeQuietly(old);
}

/** Removes a folder so that a kill leaves either the whole of it or a temporary. Throws WriteError. */
export async function removeFolder(dir: string): Promise<void> {
  const old = temporaryName(dir);
  await writing(dir, () => disk.rename(dir, old));
  await writing(dir, () => disk.remove(old));
}

async function removeQuietly(dir: string): Promise<void> {
  await disk.remove(dir).catch(() => undefined);
}

/** Removes temporaries in `dir` whose process is gone, and returns their names. A missing `dir` has none. Throws WriteError. */
export async function removeDeadTemporaries(dir: string): Promise<string[]> {
  const names = await readdir(dir).catch(() => [] as string[]);
  const dead = names.filter((name) => {
    const match = temporary.exec(name);
    return match !== null && !isAlive(Number(match[2]), Number(match[3]));
  });
  for (const name of dead) await writing(join(dir, name), () => disk.remove(join(dir, name)));
  return dead.map((name) => basename(name));
}

function isAlive(pid: number, started: number): boolean {
  if (pid === process.pid) return Math.abs(started - processStart()) <= 2;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) !== "ESRCH";
  }
}
