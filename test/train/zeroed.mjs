// Three optimiser steps, and what they leave: as they are, with gradients that are no numbers before each, or with gradients set to zero before each and
// added onto by every micro-batch. `node zeroed.mjs TASK RUN HOW` prints it as JSON.
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";
import { encode } from "#lib/program/encode.js";
import { resolveConfig } from "#lib/train/config.js";
import { Micro } from "#lib/train/engine.js";
import { GRADIENTS } from "#lib/train/programs.js";
import { Trainer } from "#lib/train/trainer.js";

const hooks = { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined };

/** `how`: "written over" or "zeroed". */
export async function train(task, raw, how) {
  const trainer = await Trainer.create(task, resolveConfig(task, { ...raw, max_steps: 3 }).config, hooks);
  const { training } = trainer.engine;
  const { session } = trainer.loaded;
  const gradients = session.buffers().filter((b) => b.part && /^grads\/(?!.*\.\.)/.test(b.name)); // spans have what lies between parts too
  const micros = [];
  training.run = (fed, scale, extra, { overwrite, ...options }) => {
    micros.push(Boolean(overwrite));
    if (how === "zeroed" && overwrite) void session.zero(GRADIENTS);
    return Micro.prototype.run.call(training, fed, scale, extra, how === "zeroed" ? options : { overwrite, ...options });
  };
  const steps = [];
  for (let step = 0; step < 3; step++) {
    if (how === "written over") for (const b of gradients) await session.write(b.name, new Float32Array(b.bytes / 4).fill(NaN));
    const { loss, grad_norm } = await trainer.next();
    steps.push([loss, grad_norm]);
    // What was recorded with the arena's old place must not be replayed.
    if (step === 1) await session.load(encode({ dims: [], buffers: new Map(), instructions: [], arenaBytes: session.arenaBytes + 64, liveBytes: 0, scratchBytes: 0 }));
  }
  const hashes = {};
  for (const { name } of session.buffers()) if (/^(weights|optimizer)/.test(name)) hashes[name] = await session.hash(name);
  await trainer[Symbol.asyncDispose]();
  return { micros, steps, hashes };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [task, file, how] = process.argv.slice(2);
  console.log(JSON.stringify(await train(task, JSON.parse(readFileSync(file, "utf8")), how)));
}
