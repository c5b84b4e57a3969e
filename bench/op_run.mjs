// One op of the registry at the sizes asked for: its inputs from the op's own `bench`, its program, and the time that its kernel takes inside
// the session, so that no copy counts. A backward op runs behind its forward, from which it gets what was saved.
import { Bench } from "tinybench";
import "#lib/ops/index.js";
import { buffer, emit, rewrite, store, trace } from "#lib/ir/graph.js";
import { vjp } from "#lib/ir/vjp.js";
import { size, type } from "#lib/ir/types.js";
import { plan } from "#lib/passes/plan.js";
import { costOf, encode, tableHash } from "#lib/program/encode.js";
import { scratchOf } from "#lib/runtime/host.js";
import { loadAddon } from "#lib/runtime/addon.js";
import { Session } from "#lib/runtime/session.js";
import { watch } from "./gpu/watch.mjs";
import { quantile } from "./report.mjs";

/** What each flag means and what it is where nothing is said; `heads` is spelt H/K. */
export const sizes = {
  tokens: 2048, heads: 6, kvHeads: 2, headDim: 64, hidden: 384, intermediate: 1024, vocab: 8192, rows: 1024, examples: 64,
  mask: "packed", window: 512, form: "forward", dtype: "float32",
};

const benchOf = (def) => (def.backwardOf ?? def).bench;

/** The sizes that an op reads. */
export function readBy(def) {
  const read = new Set();
  benchOf(def)(new Proxy(sizes, { get: (all, k) => (read.add(k), all[k]) }));
  return Object.keys(sizes).filter((k) => read.has(k) || k === "dtype" || (k === "heads" && read.has("kvHeads")));
}

const SPAN = 1 << 16;
let normals;
/** Standard normal numbers, the same ones again and again: mulberry32, Box-Muller. */
function draw(i) {
  if (!normals) {
    let s = 7;
    const next = () => {
      s = (s + 0x6d2b79f5) >>> 0;
      let t = Math.imul(s ^ (s >>> 15), 1 | s);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    normals = Float32Array.from({ length: SPAN }, () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
  }
  return normals[i % SPAN];
}

/** Elements of a buffer as the device takes them. */
function content(t, values, seed) {
  const n = size(t);
  const at = Array.isArray(values) ? (i) => values[i] : values === "positive" ? (i) => 0.5 + Math.abs(draw(i + seed)) : (i) => draw(i + seed);
  const x = t.dtype === "int32" ? new Int32Array(n) : new Float32Array(n);
  for (let i = 0; i < n; i++) x[i] = at(i);
  if (t.dtype !== "bfloat16") return x;
  const [bits, halves] = [new Uint32Array(x.buffer), new Uint16Array(n)];
  for (let i = 0; i < n; i++) halves[i] = bits[i] >>> 16;
  return halves;
}

/** The graph of one op with its data: buffers by name. What may be in place is, as in a training step. */
function graphOf(def, asked) {
  const forward = def.backwardOf ?? def;
  const sample = forward.bench(asked);
  const data = new Map();
  const filled = (name, t, values) => (data.set(name, content(t, values, 977 * data.size)), buffer(name, t));
  const graph = trace(() => {
    const ins = {};
    for (const [k, x] of Object.entries(sample.inputs)) {
      if (!x) continue;
      const t = type(x.shape, x.dtype === "flex" ? asked.dtype : x.dtype);
      ins[k] = filled(`${x.weight ? "weights" : "bench"}/${k}`, t, x.values);
    }
    let outs = Object.values(emit(forward, ins, sample.attrs));
    if (def !== forward) {
      const seeds = outs.filter((v) => !forward.stats.includes(v.out)).map((v) => [v, filled(`bench/d${v.out}`, v.type, "normal")]);
      const wrt = Object.entries(ins).filter(([k, v]) => v.type.dtype !== "int32" && !forward.constant.includes(k));
      outs = vjp(seeds, wrt.map(([, v]) => v)).filter(Boolean);
    }
    for (const v of outs) store(homeOf(v), v);
  });
  return { graph: rewrite(graph), data, share: sample.share ?? 1 };
}

/** The buffer that an output ends in: the one it may take over, or its own. */
function homeOf(v) {
  const { def, inputs } = v.node;
  const over = inputs[def.accumulate[v.out] ?? ""] ?? inputs[def.inplace[v.out] ?? ""];
  const fits = over && !over.node && over.type.dtype === v.type.dtype && size(over.type) === size(v.type);
  return fits ? over.out : `bench/=${v.out}`;
}

/**
 * Time `def` in a session of its own: milliseconds at the median, p20 and p80, the rate by the op's own cost, and the share of `peak` that it reaches
 * (the larger of its operations' and its bytes' time at the peak, over the median). On a GPU also the gemm in use and, as medians while it ran (its
 * warm-up too), clock, power and temperature.
 */
export const benchOp = (def, asked, options = {}) => inSession(options, (session) => timed(session, def, asked, options));

/** Launch `def` exactly once (a backward op behind its forward): what a profiler of kernels is to see. */
export const runOnce = (def, asked, options = {}) => {
  process.env.ATTUNE_CUBLASLT_TUNE ??= "off"; // timing a product's algorithms would launch them too
  return inSession(options, async (session) => {
    const { loaded, names } = await loadOp(session, def, asked);
    await session.run(loaded);
    return { op: def.name, sizes: sizesOf(def, asked), device: session.device, ran: names };
  });
};

async function inSession({ device = "cpu", threads }, work) {
  const session = Session.create({ device, tableHash: tableHash(), ...(threads && { threads }) });
  try {
    return await work(session);
  } finally {
    await session.close();
  }
}

const sizesOf = (def, asked) => Object.fromEntries(readBy(def).map((k) => [k, asked[k]]));

/** The op's program with its data in place. */
async function loadOp(session, def, asked) {
  const { graph, data, share } = graphOf(def, asked);
  const program = plan(graph, { scratch: scratchOf(session.device) });
  const loaded = await session.load(encode(program));
  for (const [name, x] of data) await session.write(name, x);
  return { graph, data, share, program, loaded, names: program.instructions.map((c) => c.def.name) };
}

async function timed(session, def, asked, { seconds = 0.5, iterations = 5, warmup = 2, peak }) {
  const { graph, data, share, program, loaded } = await loadOp(session, def, asked);
  const mine = program.instructions.flatMap((c, i) => (c.def === def ? [i] : []));
  const overwritten = [...graph.stores.keys()].filter((name) => data.has(name));
  const gpu = session.device === "cuda" ? { seen: watch(), gemm: loadAddon().gpus().products } : undefined;
  const warmupTime = gpu ? 300 : 0; // its clocks rise in that time
  const bench = new Bench({ time: seconds * 1000, iterations, warmupIterations: warmup, warmupTime, retainSamples: true, throws: true });
  let last = performance.now();
  bench.add(
    def.name,
    async () => {
      await session.run(loaded, { profile: true });
      const spent = await session.profile(loaded, { reset: true });
      const kernel = mine.reduce((n, i) => n + spent[i], 0) / 1e6;
      const [before, now] = [last, performance.now()];
      last = now;
      return { overriddenDuration: kernel, overriddenIterationCost: now - before }; // with the buffers that were written anew: they can take far longer
    },
    { async: true, beforeEach: async () => { for (const name of overwritten) await session.write(name, data.get(name)); } },
  );
  let seen;
  try {
    await bench.run();
  } finally {
    seen = gpu && { gemm: gpu.gemm, ...(await gpu.seen.stop()) };
  }
  const { samples } = bench.tasks[0].result.latency;
  const [flops, bytes] = mine.map((i) => costOf(program.instructions[i])).reduce(([f, b], c) => [f + c.flops * share, b + c.bytes], [0, 0]);
  const median = quantile(samples, 0.5);
  const perSecond = (n) => n / (median / 1000);
  const floor = peak && { compute: flops / peak[asked.dtype], memory: bytes / peak.copy };
  return {
    op: def.name, sizes: sizesOf(def, asked), threads: session.threads, samples: samples.length, ...seen,
    median_ms: median, p20_ms: quantile(samples, 0.2), p80_ms: quantile(samples, 0.8),
    flops, bytes, gflops_per_second: perSecond(flops) / 1e9, gb_per_second: perSecond(bytes) / 1e9,
    ...(floor && { bound: floor.compute > floor.memory ? "compute" : "memory", peak_share: (Math.max(floor.compute, floor.memory) * 1000) / median }),
  };
}
