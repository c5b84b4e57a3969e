// `npm run bench` reaches every op of the registry: its own inputs, tiny, one run, in both dtypes. No op is named here.
import { describe, expect, test } from "vitest";
import "#lib/ops/index.js";
import { kernelOps, type OpDef } from "#lib/ir/op.js";
import { benchOp, readBy, runOnce, sizes } from "../../bench/op_run.mjs";

const tiny = { ...sizes, tokens: 24, heads: 4, kvHeads: 2, headDim: 16, hidden: 40, intermediate: 48, vocab: 50, rows: 9, examples: 3, window: 5 };
const once = { threads: 2, seconds: 0, iterations: 1, warmup: 0, peak: { float32: 1e9, bfloat16: 1e9, copy: 1e9 } };
/** Every choice of mask and of form, for the ops that have one. */
const asked = (def: OpDef): object[] => {
  const read = readBy(def);
  const masks = read.includes("mask") ? ["causal", "packed", "tree", "window"] : ["packed"];
  const forms = read.includes("form") ? ["forward", "dx", "dw"] : ["forward"];
  return masks.flatMap((mask) => forms.map((form) => ({ ...tiny, mask, form })));
};

describe.each(["float32", "bfloat16"])("%s", (dtype) => {
  test.each(kernelOps())("$name", async (def) => {
    for (const a of asked(def)) {
      const r = await benchOp(def, { ...a, dtype }, once);
      expect(r).toMatchObject({ op: def.name, samples: 1, threads: 2 });
      expect(r.median_ms).toBeGreaterThan(0);
      expect(r.bytes).toBeGreaterThan(0);
      expect(r.peak_share).toBeGreaterThan(0);
      expect(Number.isFinite(r.gflops_per_second)).toBe(true);
    }
  });
});

test("a mask's share of the pairs: counted again, pair by pair", async () => {
  const { masked } = await import("#lib/ops/samples.js");
  for (const mask of ["causal", "packed", "tree", "window"] as const) {
    const { end, pos, window, share } = masked({ ...tiny, mask, form: "forward", dtype: "float32" });
    const [e, p] = [end.values as number[], pos.values as number[]];
    const n = e.length;
    let pairs = 0;
    for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) if (i < e[j]! && (!window || p[i]! - p[j]! < window)) pairs++;
    const counted = window ? n * window - window ** 2 / 2 : n ** 2 / 2;
    expect(share, mask).toBeCloseTo(pairs / counted, 12);
  }
});

test("--once launches each op once, a backward op behind what it needs of its forward", async () => {
  for (const def of kernelOps()) {
    const { ran } = await runOnce(def, { ...tiny, dtype: "float32" }, { threads: 2 });
    expect(ran.filter((name: string) => name === def.name), def.name).toHaveLength(1);
  }
});
