// Changes to files that may take long, on a thread of their own. fs.promises would make them in Node's pool, whose threads are as urgent as the event
// loop: a service would wait for a processor while the kernel writes a checkpoint or frees the one before. Errors are the system's, code and all.
import { SharedThread } from "../thread.ts";
import type { DiskFunctions } from "./disk_worker.ts";

const thread = new SharedThread<DiskFunctions>(new URL("./disk_worker.js", import.meta.url), "disk");
type On<K extends keyof DiskFunctions> = (...args: Parameters<DiskFunctions[K]>) => Promise<void>;
const on =
  <K extends keyof DiskFunctions>(name: K): On<K> =>
  async (...args) =>
    void (await thread.call(name, args));

export const disk: { readonly [K in keyof DiskFunctions]: On<K> } = {
  write: on("write"),
  create: on("create"),
  copy: on("copy"),
  sync: on("sync"),
  makeFolder: on("makeFolder"),
  rename: on("rename"),
  remove: on("remove"),
};
