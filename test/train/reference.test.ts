// The reference pass: stopped anywhere it goes on where it was, with the bits of a pass never stopped; and it scores the model it is told to.
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { scoreRows } from "#lib/evaluate/score.js";
import { initModel } from "#lib/io/init.js";
import { resolveConfig, type RunConfig } from "#lib/train/config.js";
import { loadModel } from "#lib/engine/model.js";
import { referenceLogps, type ReferenceOptions } from "#lib/train/reference.js";
import { prepareSets } from "#lib/train/trainer.js";

const recipe = new URL("../../examples/quickstart/", import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), "attune-reference-"));
const [cache, pairs] = [join(dir, "cache"), join(dir, "pairs.jsonl")];
const ROWS = 150; // three groups, the last one short
let base: ReferenceOptions;
beforeAll(async () => {
  process.env["XDG_CACHE_HOME"] = cache;
  const config = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 2, hidden_size: 64, intermediate_size: 96 }));
  for (const seed of [1, 2])
    await initModel({ configPath: join(dir, "config.json"), tokenizerDir: join(recipe, "model"), outputDir: join(dir, `model-${seed}`), seed, version: "test" });
  writeFileSync(pairs, readFileSync(join(recipe, "data/dpo.jsonl"), "utf8").split("\n").slice(0, ROWS).join("\n"));
  const run = resolveConfig("dpo", { model: join(dir, "model-1"), dataset: pairs, output_dir: join(dir, "out") }).config as RunConfig;
  const { data } = await prepareSets("dpo", run, { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined });
  base = { trees: data.trees, dataHash: data.hash, tokensPerBatch: 1024, sharePrompt: true, signal: new AbortController().signal, onProgress: () => undefined };
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const files = (): string[] => readdirSync(join(cache, "attune")).filter((n) => n.startsWith("reference-"));
beforeEach(() => files().forEach((n) => rmSync(join(cache, "attune", n))));

async function pass(o: Partial<ReferenceOptions> = {}, model = "model-1"): Promise<{ logps: Float64Array; cached: number }> {
  const loaded = await loadModel(join(dir, model), { device: "cpu", dtype: "float32" });
  try {
    return await referenceLogps(loaded, { ...base, ...o });
  } finally {
    await loaded.session.close();
  }
}
const kept = (): Buffer => {
  expect(files()).toHaveLength(1);
  return readFileSync(join(cache, "attune", files()[0]!));
};
const same = (a: Float64Array, b: Float64Array): void => expect(Buffer.from(a.buffer).equals(Buffer.from(b.buffer))).toBe(true);

test("stopped after a group, and again after the next, it computes what is missing and nothing else", async () => {
  const whole = await pass();
  const bytes = kept();
  rmSync(join(cache, "attune", files()[0]!));
  for (const done of [64, 128]) {
    const stop = new AbortController();
    await expect(pass({ signal: stop.signal, onProgress: (n) => n === done && stop.abort() })).rejects.toThrow(/abort/);
  }
  const seen: number[] = [];
  const rest = await pass({ onProgress: (n) => seen.push(n) });
  expect([rest.cached, ...seen]).toEqual([128, ROWS]);
  same(rest.logps, whole.logps);
  expect(kept().equals(bytes)).toBe(true);
  expect((await pass()).cached).toBe(ROWS);
});

test("a record that a kill tore, or that is damaged, is computed again", async () => {
  const whole = await pass();
  const [path, bytes] = [join(cache, "attune", files()[0]!), kept()];
  const record = bytes.length / 3;
  for (const [length, cached] of [[record * 2 - 7, 64], [record + 31, 64], [record - 1, 0]] as const) {
    truncateSync(path, length);
    const again = await pass();
    expect(again.cached).toBe(cached);
    same(again.logps, whole.logps);
    expect(kept().equals(bytes)).toBe(true);
  }
  const damaged = Buffer.from(bytes);
  damaged[record + 100]! ^= 1;
  writeFileSync(path, damaged);
  same((await pass()).logps, whole.logps);
});

test("another packing, dtype or list of rows is another cache; a cache of another model is never used", async () => {
  await pass();
  await pass({ tokensPerBatch: 512 });
  await pass({ sharePrompt: false });
  const some = await pass({ places: Int32Array.of(3, 70, 149) });
  const other = await pass({}, "model-2");
  expect(files()).toHaveLength(5);
  expect(other.cached).toBe(0);
  const asked = [...some.logps].flatMap((x, i) => (Number.isNaN(x) ? [] : [i]));
  expect(asked).toEqual([6, 7, 140, 141, 298, 299]);
});

test("a copy of the model elsewhere shares its cache", async () => {
  await pass();
  const copy = join(dir, "copy");
  await initModel({ configPath: join(dir, "config.json"), tokenizerDir: join(recipe, "model"), outputDir: copy, seed: 1, version: "test" });
  copyFileSync(join(dir, "model-1", "model.safetensors"), join(copy, "model.safetensors"));
  expect((await pass({}, "copy")).cached).toBe(ROWS);
});

test("its numbers are those of `attune score` on the same completions", async () => {
  const { logps } = await pass({ places: Int32Array.of(0, 1, 2, 3) }, "model-2");
  const rows = Array.from({ length: 4 }, (_, i) => base.trees.at(i)).flatMap((t) => t.branches.map((b) => ({ input_ids: [...t.trunk, ...b.ids], from: b.trained[0]![0] })));
  const data = join(dir, "score.jsonl");
  writeFileSync(data, rows.map(({ input_ids }) => JSON.stringify({ input_ids })).join("\n"));
  const options = { model: join(dir, "model-2"), data, device: "cpu", dtype: null, threads: null, tokensPerBatch: null, skipInvalid: false } as const;
  let i = 0;
  for await (const s of scoreRows(options, { signal: base.signal, onStage: () => undefined, log: () => undefined })) {
    const sum = s.logps.slice(rows[i]!.from - 1).reduce((a, b) => a + b, 0);
    expect(Math.abs(logps[i]! - sum)).toBeLessThan(1e-5 * Math.abs(sum));
    i++;
  }
  expect(i).toBe(8);
});
