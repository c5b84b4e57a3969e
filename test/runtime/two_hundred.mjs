// Two hundred trainers created, stepped and closed in one process: memory must not grow from the 50th to the 200th, nothing may crash, and
// the process must end by itself.
//   node test/runtime/two_hundred.mjs [--trainers 200] [--workers 4: that many threads at once share them] [--json]
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { DPOTrainer, initModel, SFTTrainer } from "attune";

const self = fileURLToPath(import.meta.url);
const GROWTH = 0.05;

/** Resident bytes of the whole process. */
const rss = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;

/** Trainers one after another, SFT and DPO in turn, each for one step. */
async function trainers(model, count, done) {
  const rows = Array.from({ length: 8 }, (_, i) => ({ prompt: `Question ${i}?`, completion: ` Answer ${i}.` }));
  const pairs = rows.map((r, i) => ({ prompt: r.prompt, chosen: r.completion, rejected: ` Nothing ${i}.` }));
  for (let i = 0; i < count; i++) {
    const options = { model, batchSize: 4, maxSteps: 2, device: "cpu", threads: 2 };
    const trainer = i % 2 ? await DPOTrainer.create({ ...options, dataset: pairs }) : await SFTTrainer.create({ ...options, dataset: rows });
    for await (const { loss } of trainer) {
      if (!Number.isFinite(loss)) throw new Error(`trainer ${i}: the loss must be finite, got ${loss}`);
      break;
    }
    await trainer.close();
    done();
  }
}

/** The work, in a process of its own: prints resident bytes after each trainer. */
async function work({ model, count, workers }) {
  const seen = [];
  let closed = 0;
  const done = () => {
    seen.push({ trainers: ++closed, rss: rss() });
  };
  if (workers === 0) await trainers(model, count, done);
  else {
    const threads = Array.from({ length: workers }, () => new Worker(self, { workerData: { model, count: count / workers } }));
    await Promise.all(
      threads.map(
        (w) =>
          new Promise((resolve, reject) => {
            w.on("message", () => {
              done();
              if (closed === count) for (const each of threads) each.postMessage("end"); // all are there when the last is measured
            });
            w.on("error", reject);
            w.on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`a worker ended with ${code}`))));
          }),
      ),
    );
  }
  process.stdout.write(JSON.stringify(seen));
}

async function main() {
  const { values: o } = parseArgs({
    options: { trainers: { type: "string", default: "200" }, workers: { type: "string", default: "0" }, json: { type: "boolean", default: false } },
  });
  const [count, workers] = [Number(o.trainers), Number(o.workers)];
  const dir = mkdtempSync(join(tmpdir(), "attune-trainers-"));
  try {
    const model = join(dir, "model");
    const recipe = fileURLToPath(new URL("../../examples/quickstart/model", import.meta.url));
    await initModel({ configPath: join(recipe, "config.json"), tokenizerDir: recipe, outputDir: model, seed: 1, version: "test" });
    const start = performance.now();
    const child = spawn(process.execPath, [self, "--work", JSON.stringify({ model, count, workers })], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, XDG_CACHE_HOME: join(dir, "cache") },
    });
    let text = "";
    let finished = 0;
    child.stdout.on("data", (d) => ((text += d), (finished = performance.now())));
    const late = setInterval(() => finished && performance.now() - finished > 30_000 && child.kill("SIGKILL"), 1000);
    const [code, signal] = await new Promise((resolve) => child.on("exit", (...how) => resolve(how)));
    clearInterval(late);
    const ending = (performance.now() - finished) / 1000;
    const seen = JSON.parse(text || "[]");
    // The median over a tenth of the trainers up to that one: with several at once a single moment says little.
    const upTo = (n) => {
      const some = seen.filter((s) => s.trainers <= n && s.trainers > n - count / 10).map((s) => s.rss);
      return some.sort((a, b) => a - b)[some.length >> 1] ?? NaN;
    };
    const [quarter, last] = [upTo(count / 4), upTo(count)];
    const growth = last / quarter - 1;
    const ok = code === 0 && growth <= GROWTH;
    const result = { trainers: count, workers, seconds: (performance.now() - start) / 1000, rss_quarter: quarter, rss_end: last, growth, exit: signal ?? code, seconds_to_exit: ending, ok };
    if (o.json) console.log(JSON.stringify({ ...result, seen }));
    else {
      for (const s of seen.filter((_, i) => (i + 1) % Math.max(1, Math.round(count / 20)) === 0)) console.log(`${String(s.trainers).padStart(5)} trainers  ${(s.rss / 2 ** 20).toFixed(1)} MiB`);
      console.log(`growth from ${count / 4} to ${count}: ${(100 * growth).toFixed(1)} % (at most ${100 * GROWTH} %); exit ${signal ?? code}, ${ending.toFixed(1)} s after the last; ${ok ? "ok" : "FAILED"}`);
    }
    process.exitCode = ok ? 0 : 1;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

if (!isMainThread) {
  const end = once(parentPort, "message");
  await trainers(workerData.model, workerData.count, () => parentPort.postMessage("done"));
  await end;
} else if (process.argv[2] === "--work") await work(JSON.parse(process.argv[3]));
else await main();
