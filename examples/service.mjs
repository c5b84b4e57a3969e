// Training as a background job of an HTTP service. Training has its own thread, so requests are answered while it runs.
//
//     node examples/service.mjs [--port 8080]
//     curl -X POST localhost:8080/jobs -d '{"task": "dpo", "model": "runs/sft", "dataset": "pairs.jsonl", "outputDir": "runs/dpo"}'
//     curl -N localhost:8080/jobs/1/metrics        server-sent events: one `metrics` a step, then `end`
//     curl localhost:8080/jobs/1                   its state
//     curl -X DELETE localhost:8080/jobs/1         stop after the step in flight, with a checkpoint: POST it again with "resume": true
//
// It binds 127.0.0.1: a request names folders of this machine, so put your own authentication in front of it.
import { EventEmitter } from "node:events";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { AttuneError, DPOTrainer, SFTTrainer } from "attune";

const trainers = { sft: SFTTrainer, dpo: DPOTrainer };
const MOST_BODY = 1 << 16;

/** @typedef {{ id: number, state: "running" | "done" | "stopped" | "failed", step: number, metrics: object[], error?: object, events: EventEmitter, stop: AbortController, outputDir: string }} Job */

async function train(job, { task, ...options }) {
  let trainer;
  try {
    trainer = await trainers[task].create({ ...options, signal: job.stop.signal }); // the run keeps outputDir
    for await (const metrics of trainer) {
      job.step = metrics.step;
      job.metrics.push(metrics);
      job.events.emit("metrics", metrics);
    }
    job.state = job.stop.signal.aborted ? "stopped" : "done";
  } catch (error) {
    job.state = job.stop.signal.aborted ? "stopped" : "failed";
    // Typed errors say what must hold; anything else is a bug and stays in the log.
    job.error = error instanceof AttuneError ? { code: error.code, message: error.message } : { code: "ERR_INTERNAL", message: "see the log" };
    if (!(error instanceof AttuneError) && job.state === "failed") console.error(error);
  } finally {
    await trainer?.close();
  }
  job.events.emit("end");
}

async function bodyOf(request) {
  let text = "";
  for await (const piece of request) {
    text += piece;
    if (text.length > MOST_BODY) throw new Error(`the body must be at most ${MOST_BODY} bytes`);
  }
  return JSON.parse(text);
}

/** A server that trains one model at a time; `listen` it. */
export function service() {
  /** @type {Map<number, Job>} */
  const jobs = new Map();
  const view = ({ id, state, step, error, outputDir }) => ({ id, state, step, outputDir, ...(error && { error }) });

  const start = async (request) => {
    const options = await bodyOf(request);
    if (!(options.task in trainers)) return [400, { error: `task: must be sft or dpo, got ${options.task}` }];
    if (typeof options.outputDir !== "string") return [400, { error: "outputDir: must be a folder for the run" }];
    if ([...jobs.values()].some((j) => j.state === "running")) return [409, { error: "a job is running: wait for it, or DELETE it" }];
    const job = { id: jobs.size + 1, state: "running", step: 0, metrics: [], events: new EventEmitter(), stop: new AbortController(), outputDir: options.outputDir };
    jobs.set(job.id, job);
    train(job, options);
    return [202, view(job)];
  };

  const stream = (job, request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const send = (event, data) => response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
    const end = () => {
      send("end", view(job));
      response.end();
    };
    const metrics = (m) => send("metrics", m);
    job.metrics.forEach(metrics); // what it missed
    if (job.state !== "running") return end();
    job.events.on("metrics", metrics).once("end", end);
    request.on("close", () => job.events.off("metrics", metrics).off("end", end));
  };

  return createServer(async (request, response) => {
    const reply = ([status, body]) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    try {
      const [, kind, id, part] = new URL(request.url, "http://localhost").pathname.split("/");
      const job = jobs.get(Number(id));
      if (kind !== "jobs") return reply([404, { error: "there are jobs, and nothing else" }]);
      if (id === undefined && request.method === "POST") return reply(await start(request));
      if (id === undefined) return reply([200, [...jobs.values()].map(view)]);
      if (!job) return reply([404, { error: `no job ${id}` }]);
      if (part === "metrics") return stream(job, request, response);
      if (request.method === "DELETE") job.stop.abort();
      return reply([200, view(job)]);
    } catch (error) {
      reply([400, { error: error.message }]);
    }
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { port: { type: "string", default: "8080" } } });
  service().listen(Number(values.port), "127.0.0.1", function () {
    console.log(`listening on http://127.0.0.1:${this.address().port}`);
  });
}
