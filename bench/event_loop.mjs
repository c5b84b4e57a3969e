// How long attune keeps Node's event loop from its work: the largest gap between two turns while a trainer is created, trains, saves
// and generates, and what reading a file costs meanwhile against nothing running. Each phase is repeated for --seconds, so that its p99 is no single read; "nothing"
// is measured between the phases, a share of --seconds each time, so that a machine's bad minute falls on both sides.
//
//     node bench/event_loop.mjs --model DIR --dataset ROWS [--task sft|dpo] [--seconds 5] [--threads N] [--json]
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { DPOTrainer, openGenerator, SFTTrainer } from "attune";

const { values: o } = parseArgs({
  options: {
    model: { type: "string" },
    dataset: { type: "string" },
    task: { type: "string", default: "dpo" },
    seconds: { type: "string", default: "5" },
    threads: { type: "string" },
    json: { type: "boolean", default: false },
  },
});
if (!o.model || !o.dataset) {
  console.error("usage: node bench/event_loop.mjs --model DIR --dataset ROWS [--task sft|dpo] [--seconds 5] [--threads N] [--json]");
  process.exit(2);
}

const dir = mkdtempSync(join(tmpdir(), "attune-loop-"));
process.env.XDG_CACHE_HOME = join(dir, "cache"); // nothing prepared beforehand
const file = join(dir, "4k"); // larger ones make garbage, whose collection would be measured
writeFileSync(file, Buffer.alloc(1 << 12, 1));

/** Measure one phase: a timer of 1 ms sees each gap, a reader times one read after another. */
async function phase(name, work) {
  let last = performance.now();
  let gap = 0;
  const tick = () => {
    const now = performance.now();
    gap = Math.max(gap, now - last);
    last = now;
  };
  const timer = setInterval(tick, 1);
  const reads = [];
  let going = true;
  const reader = (async () => {
    while (going) {
      const from = performance.now();
      await readFile(file);
      reads.push(performance.now() - from);
      await sleep(2);
    }
  })();
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1000;
  await sleep(5);
  tick();
  going = false;
  clearInterval(timer);
  await reader;
  return { phase: name, seconds, gap, reads };
}

const nothing = { phase: "nothing", seconds: 0, gap: 0, reads: [] };
const phases = [nothing];
const run = async (name, work) => {
  await rest();
  const until = performance.now() + 1000 * Number(o.seconds);
  const whole = async () => {
    do await work();
    while (performance.now() < until);
  };
  phases.push(await phase(name, whole));
};
const rest = async () => {
  const more = await phase("nothing", () => sleep(400 * Number(o.seconds)));
  nothing.seconds += more.seconds;
  nothing.gap = Math.max(nothing.gap, more.gap);
  nothing.reads.push(...more.reads);
};

try {
  await sleep(200);
  const Trainer = o.task === "dpo" ? DPOTrainer : SFTTrainer;
  const threads = o.threads && { threads: Number(o.threads) };
  const options = { model: o.model, dataset: o.dataset, batchSize: 4, maxLength: 512, maxSteps: 1e6, invalidRows: "drop", ...threads };
  let trainer;
  await run("create", async () => {
    await trainer?.close();
    rmSync(process.env.XDG_CACHE_HOME, { recursive: true, force: true });
    trainer = await Trainer.create(options);
  });
  const steps = trainer[Symbol.asyncIterator]();
  await run("train", () => steps.next());
  await run("save", () => trainer.save(join(dir, "model")));
  await trainer.close();
  const generator = await openGenerator({ model: join(dir, "model"), ...threads });
  await run("generate", async () => {
    for await (const _ of generator.generate(["Once", "Is it"], { maxNewTokens: 64, temperature: 1, topK: 0, topP: 1, seed: 1 }));
  });
  await generator[Symbol.asyncDispose]();
  await rest();
} finally {
  rmSync(dir, { recursive: true, force: true });
}

const rows = phases.map(({ phase, seconds, gap, reads }) => {
  reads.sort((a, b) => a - b);
  return { phase, seconds, largest_gap_ms: gap, read_p50_ms: reads[reads.length >> 1], read_p99_ms: reads[Math.floor(reads.length * 0.99)], reads: reads.length };
});
if (o.json) console.log(JSON.stringify(rows));
else
  console.table(
    rows.map((r) => ({ phase: r.phase, seconds: r.seconds.toFixed(1), "largest gap ms": r.largest_gap_ms.toFixed(1), "read p50 ms": r.read_p50_ms.toFixed(2), "read p99 ms": r.read_p99_ms.toFixed(2), "p99 / nothing": (r.read_p99_ms / rows[0].read_p99_ms).toFixed(1) })),
  );
