// Runs of one program on the emulator, all asked for while the first computes, each with an input of its own: left alone, one of them aborted, the session
// closed. Prints what each gave, as JSON.
import "#lib/ops/index.js";
import { kernelOps } from "#lib/ir/op.js";
import { type } from "#lib/ir/types.js";
import { encode } from "#lib/program/encode.js";
import { Session } from "#lib/runtime/session.js";

const [vector, matrix] = [type([64]), type([256, 256])];
const types = { "inputs/x": vector, "outputs/y": vector, "weights/a": matrix, "weights/product": matrix };
const slot = (buffer) => ({ space: { buffer }, offset: 0, type: types[buffer] });
const line = (op, slots, params) => ({ def: kernelOps().find((d) => d.name === op), name: op, slots: slots.map((s) => s && slot(s)), params, scratch: { offset: 0, bytes: 0 } });
const instructions = [
  line("add", ["inputs/x", "inputs/x", "outputs/y"], []),
  line("gemm", ["weights/a", "weights/a", null, null, "weights/product"], [0, 0]), // takes its time
];
const bytes = encode({ dims: [], buffers: new Map(Object.entries(types)), instructions, arenaBytes: 0, liveBytes: 0, scratchBytes: 0 });

const session = Session.create({ device: "simt" });
const program = await session.load(bytes);
/** Six runs, and what each gave: the element that all of its output are, or its error. */
function runs(signals = {}) {
  const begun = Array.from({ length: 6 }, (_, i) => session.run(program, { inputs: { "inputs/x": new Float32Array(64).fill(i) }, signal: signals[i] }));
  return begun.map((r) => r.then((o) => [...new Set(o["outputs/y"])].join(), String));
}
const whole = await Promise.all(runs());

const way = new AbortController();
const stopped = runs({ 4: way.signal });
await stopped[1];
way.abort("aborted"); // two others are under way
const aborted = await Promise.all(stopped);

const ended = runs();
await ended[1];
await session.close();
console.log(JSON.stringify({ whole, aborted, closed: await Promise.all(ended) }));
