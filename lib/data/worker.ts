// The data worker: prepares a data set on its own thread, or notes the records of inspect.

import { note, serve } from "../thread.ts";
import type { Moved } from "../thread.ts";
import { PushSource } from "./push_source.ts";
import { runJob } from "./job.ts";
import type { Done, Job, Note, Told } from "./messages.ts";

let pushed: PushSource | undefined;
const say = (message: Note): void => note(message);

const functions = {
  run(job: Job, watch: SharedArrayBuffer): Promise<Moved<Done>> {
    if (job.path === null) pushed = new PushSource(() => say({ type: "need" }));
    return runJob(job, pushed ?? null, watch, say);
  },
};
export type DataFunctions = typeof functions;
serve(functions, (message) => {
  const m = message as Told;
  if (m.type === "rows") pushed?.push(m.rows);
  else pushed?.end();
});
