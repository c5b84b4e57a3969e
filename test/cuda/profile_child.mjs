// Two training steps on the emulator, the second timed as asked (false, true or "repeats"), in a process of its own: node profile_child.mjs RUN TIMED.
// Prints as JSON the steps' losses, the hashes of what the session holds, what was timed, and the device's memory in use.
import { readFileSync } from "node:fs";
import { resolveConfig } from "#lib/train/config.js";
import { Trainer } from "#lib/train/trainer.js";

const [file, timed] = process.argv.slice(2);
const { config } = resolveConfig("sft", JSON.parse(readFileSync(file, "utf8")));
const hooks = { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined };
const trainer = await Trainer.create("sft", config, hooks);
const losses = [(await trainer.next()).loss];
trainer.engine.profile = JSON.parse(timed);
losses.push((await trainer.next()).loss);
const { session } = trainer.loaded;
const hashes = {};
for (const { name } of session.buffers()) hashes[name] = await session.hash(name);
const timings = (await trainer.engine.timings()).map((t) => [t.op, t.nanoseconds]);
console.log(JSON.stringify({ losses, hashes, timings, peak: session.peakBytes }));
await trainer[Symbol.asyncDispose]();
