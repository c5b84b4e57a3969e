// The data worker: prepares a data set on its own thread and posts the trees, or posts the records of inspect.

import { parentPort, workerData } from "node:worker_threads";
import { AttuneError } from "../errors.ts";
import { PushSource } from "./push_source.ts";
import { runJob } from "./job.ts";
import type { FromWorker, Job, ToWorker } from "./messages.ts";

const port = parentPort!;
const { job, watch } = workerData as { job: Job; watch: SharedArrayBuffer };
const post = (message: FromWorker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

const pushed = job.path === null ? new PushSource(() => post({ type: "need" })) : null;
port.on("message", (message: ToWorker) => {
  if (message.type === "rows") pushed?.push(message.rows);
  else if (message.type === "end") pushed?.end();
});

runJob(job, pushed, watch, post)
  .catch((e: unknown) => {
    const error = e instanceof Error ? e : new Error(String(e));
    const code = error instanceof AttuneError ? error.code : null;
    post({ type: "error", name: error.name, code, message: error.message, stack: error.stack ?? "" });
  })
  .finally(() => port.close());
