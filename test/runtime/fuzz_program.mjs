// Fuzzes the program decoder: node test/runtime/fuzz_program.mjs [--seconds 300] [--seed 1]
// Seeds are one program per op and sample of the registry. Damaged ones must load or be refused, and then run on the null
// device. With a sanitizer build: node scripts/install.mjs --sanitize, then
//   ATTUNE_ADDON=build-asan/Release/attune.node ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" node test/runtime/fuzz_program.mjs
import { parseArgs } from "node:util";
import "#lib/ops/index.js";
import { kernelOps } from "#lib/ir/op.js";
import { bytes, type } from "#lib/ir/types.js";
import { encode, encodeOne, paramsOf } from "#lib/program/encode.js";
import { loadAddon } from "#lib/runtime/addon.js";
import { Session } from "#lib/runtime/session.js";

const { values } = parseArgs({ options: { seconds: { type: "string" }, seed: { type: "string" } } });
const seconds = Number(values.seconds ?? 300);
let state = Number(values.seed ?? 1) >>> 0;
const random = (n) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};

const param = (v) => (typeof v === "boolean" ? Number(v) : v);

function seedsOf(def) {
  return def.samples.map((sample) => {
    const dim = { name: "N", capacity: 64 };
    const inputs = [...def.inputs, ...def.optional].map((name) => {
      const x = sample.inputs[name];
      return x && type(x.shape, x.dtype === "flex" ? "float32" : x.dtype);
    });
    const known = Object.fromEntries(
      [...def.inputs, ...def.optional].map((n, i) => [n, inputs[i]]).filter(([, t]) => t),
    );
    const outs = def.infer(known, sample.attrs);
    const types = [...inputs, ...def.outputs.map((n) => outs[n])];
    let at = 0;
    const buffers = new Map([["inputs/rows", type([dim, 4])]]);
    const slots = types.map((t, i) => {
      if (t === undefined) return undefined;
      if (i % 3 === 2) {
        buffers.set(`${["weights", "outputs", "cache"][i % 2]}/b${i}`, t);
        return { space: { buffer: `${["weights", "outputs", "cache"][i % 2]}/b${i}` }, offset: 0, type: t };
      }
      const slot = { space: "arena", offset: at, type: t };
      at += Math.ceil(bytes(t) / 64) * 64;
      return slot;
    });
    const params = paramsOf(def).map(([name]) => param(sample.attrs[name]));
    const code = { def, name: `seed/${def.name}`, slots, params, scratch: { offset: at, bytes: 64 } };
    const program = {
      dims: [dim],
      buffers,
      instructions: [code, code],
      arenaBytes: at + 64,
      liveBytes: 0,
      scratchBytes: 0,
    };
    return { program: encode(program), one: encodeOne(code) };
  });
}

const hard = [0, 1, 2, 3, 4, 5, 63, 64, 255, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffc0, 0xffffffff];
function damage(seed, other) {
  let out = seed.slice();
  for (let k = 1 + random(6); k > 0; k--) {
    const at = random(out.length);
    const way = random(8) > 0 ? random(3) : 3 + random(3); // mostly small changes
    if (way === 0) out[at] ^= 1 << random(8);
    else if (way === 1) out[at] = random(256);
    else if (way === 2 && out.length >= 4)
      new DataView(out.buffer).setUint32(random(out.length >> 2) * 4, hard[random(hard.length)], true);
    else if (way === 3) out = out.slice(0, at + 1);
    else if (way === 4) out.set(other.subarray(0, Math.min(random(64), other.length, out.length - at)), at);
    else out = Uint8Array.from([...out.subarray(0, at), ...out.subarray(random(out.length), random(out.length) + 4)]);
    if (out.length === 0) return out;
  }
  return out;
}

const expected = new Set(["ERR_DATA", "ERR_SHAPE", "ERR_STATE", "ERR_MEMORY", "ERR_CONFIG", "ERR_DEVICE"]);
const check = (error, input) => {
  if (expected.has(error?.code)) return;
  console.error(`unexpected ${error?.stack}\ninput ${Buffer.from(input).toString("base64")}`);
  process.exit(1);
};

const seeds = kernelOps().flatMap((def) => seedsOf(def));
const addon = loadAddon();
for (const { program } of seeds) {
  const sound = Session.create({ device: "null" });
  await sound.load(program);
  await sound.close();
}

let [tried, loaded, ran] = [0, 0, 0];
const end = performance.now() + seconds * 1000;
while (performance.now() < end) {
  const session = Session.create({ device: "null" });
  for (let i = 0; i < 100; i++) {
    const [seed, other] = [seeds[random(seeds.length)], seeds[random(seeds.length)]];
    const input = damage(seed.program, other.program);
    tried += 1;
    try {
      const p = await session.load(input);
      loaded += 1;
      const counts = Object.fromEntries(p.dims.map((d) => [d.name, random(Math.min(d.capacity, 64) + 1)]));
      const rows = new Float32Array(4 * (counts.N ?? 64));
      const outputs = p.buffers.filter((b) => b.bytes < 1 << 20).map((b) => b.name);
      const done = await session
        .run(p, { counts, inputs: { "inputs/rows": rows }, outputs })
        .catch((e) => check(e, input));
      if (done) ran += 1;
      await session.unload(p);
    } catch (error) {
      check(error, input);
    }
    const one = damage(seed.one, other.one);
    try {
      addon.scratch("null", one);
    } catch (error) {
      if (!error?.message.startsWith("program: instruction")) check(error, one);
    }
  }
  await session.close();
}
console.log(JSON.stringify({ seconds, seeds: seeds.length, tried, loaded, ran }));
