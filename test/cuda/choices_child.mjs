// One product on the emulator, large enough to be timed, in a process of its own. Adopts its arguments first, one after the other; prints as JSON
// whether each was taken, and what the session's choices are before and after the product.
import "#lib/ops/index.js";
import { kernelOps } from "#lib/ir/op.js";
import { type } from "#lib/ir/types.js";
import { encode } from "#lib/program/encode.js";
import { Session } from "#lib/runtime/session.js";

const side = 400;
const matrix = type([side, side]);
const slot = (buffer) => ({ space: { buffer }, offset: 0, type: matrix });
const def = kernelOps().find((d) => d.name === "gemm");
const slots = [slot("inputs/a"), slot("weights/b"), null, null, slot("outputs/y")];
const scratchBytes = 32 << 20;
const instructions = [{ def, name: "product", slots, params: [0, 0], scratch: { offset: 0, bytes: scratchBytes } }];
const buffers = new Map(["inputs/a", "weights/b", "outputs/y"].map((name) => [name, matrix]));
const bytes = encode({ dims: [], buffers, instructions, arenaBytes: scratchBytes, liveBytes: 0, scratchBytes });

const session = Session.create({ device: "simt" });
const adopted = [];
for (const choices of process.argv.slice(2)) adopted.push(await session.adopt(choices));
const before = await session.choices();
const program = await session.load(bytes);
await session.run(program, { inputs: { "inputs/a": new Float32Array(side * side) }, outputs: ["outputs/y"] });
const after = await session.choices();
await session.close();
console.log(JSON.stringify({ adopted, before, after }));
