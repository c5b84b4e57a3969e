// A session whose device is lost in its second run, in a process of its own: prints what each later call says, as JSON.
import "#lib/ops/index.js";
import { kernelOps } from "#lib/ir/op.js";
import { type } from "#lib/ir/types.js";
import { encode } from "#lib/program/encode.js";
import { Session } from "#lib/runtime/session.js";

const f32 = type([64]);
const slot = (buffer) => ({ space: { buffer }, offset: 0, type: f32 });
const def = kernelOps().find((d) => d.name === "add");
const slots = [slot("inputs/a"), slot("weights/b"), slot("outputs/y")];
const instructions = [{ def, name: "sum", slots, params: [], scratch: { offset: 0, bytes: 0 } }];
const buffers = new Map(["inputs/a", "weights/b", "outputs/y"].map((name) => [name, f32]));
const bytes = encode({ dims: [], buffers, instructions, arenaBytes: 0, liveBytes: 0, scratchBytes: 0 });

const said = [];
const call = async (work) => {
  try {
    await work();
    said.push("good");
  } catch (error) {
    said.push(`${error.name}: ${error.message}`);
  }
};
const session = Session.create({ device: "simt" });
const program = await session.load(bytes);
const inputs = { "inputs/a": new Float32Array(64) };
for (let i = 0; i < 3; i++) await call(() => session.run(program, { inputs, outputs: ["outputs/y"] }));
await call(() => session.read("weights/b"));
await call(() => session.load(bytes));
await call(() => session.close());
console.log(JSON.stringify(said));
