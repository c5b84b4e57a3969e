// What the kernel takes long for: syncing files and freeing them, on a thread of their own. fs.promises would do it in Node's pool, whose threads are as
// urgent as the event loop: a service would wait for a processor. Errors are the system's, code and all. Nothing here makes a file larger: past a
// limit on its size (ulimit -f) the signal SIGXFSZ ends the process, but for threads that block it, as those of Node's pool do.
import { SharedThread } from "../thread.ts";
import type { DiskFunctions } from "./disk_worker.ts";

const thread = new SharedThread<DiskFunctions>(new URL("./disk_worker.js", import.meta.url), "disk");

export const disk: { readonly [K in keyof DiskFunctions]: (...args: Parameters<DiskFunctions[K]>) => Promise<void> } = {
  sync: (path) => thread.call("sync", [path]),
  rename: (from, to) => thread.call("rename", [from, to]),
  remove: (path) => thread.call("remove", [path]),
};
