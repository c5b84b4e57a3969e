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
import { ReferenceCache } from "#lib/train/reference_cache.js";
import { prepareSets, Trainer } from "#lib/train/trainer.js";

const recipe = new URL("../../examples/quickstart/", import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), "attune-reference-"));
const [cache, pairs] = [join(dir, "cache"), join(dir, "pairs.jsonl")];
const ROWS = 150; // three groups, the last one short
let base: ReferenceOptions;
let run: RunConfig;
beforeAll(async () => {
  process.env["XDG_CACHE_HOME"] = cache;
  const config = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 2, hidden_size: 64, intermediate_size: 96 }));
  for (const seed of [1, 2])
    await initModel({ configPath: join(dir, "config.json"), tokenizerDir: join(recipe, "model"), outputDir: join(dir, `model-${seed}`), seed, version: "test" });
  writeFileSync(pairs, readFileSync(join(recipe, "data/dpo.jsonl"), "utf8").split("\n").slice(0, ROWS).join("\n"));
  run = resolveConfig("dpo", { model: join(dir, "model-1"), dataset: pairs, output_dir: join(dir, "out") }).config as RunConfig;
  const loaded = await loadModel(join(dir, "model-1"), { device: "cpu", dtype: "float32" });
  const { data } = await prepareSets("dpo", run, loaded, { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined });
  await loaded.session.close();
  base = { trees: data.trees, dataHash: data.hash, tokensPerBatch: 1024, sharePrompt: true, signal: new AbortController().signal, onProgress: () => undefined };
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const files = (): string[] => readdirSync(join(cache, "attune")).filter((n) => n.startsWith("reference-"));
const empty = (): void => files().forEach((n) => rmSync(join(cache, "attune", n)));
beforeEach(empty);
const reversed = Int32Array.from({ length: ROWS }, (_, i) => ROWS - 1 - i);

async function pass(o: Partial<ReferenceOptions> = {}, model = "model-1"): ReturnType<typeof referenceLogps> {
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
  await pass({ use: { order: reversed, count: 1 } });
  const other = await pass({}, "model-2");
  expect(files()).toHaveLength(5);
  expect(other.cached).toBe(0);
});

test("a run of less than an epoch has the groups scored that it uses; a longer one goes on with them, to the same bits", async () => {
  const use = (count: number): Partial<ReferenceOptions> => ({ use: { order: reversed, count } });
  const short = await pass(use(3));
  expect([short.wanted, short.cached]).toEqual([64, 0]);
  const scored = [...short.logps].flatMap((x, i) => (Number.isNaN(x) ? [] : [i]));
  expect([scored.length, scored[0]]).toEqual([128, 2 * (ROWS - 64)]);
  const long = await pass(use(100));
  expect([long.wanted, long.cached]).toEqual([128, 64]);
  expect(scored.filter((i) => long.logps[i] !== short.logps[i])).toEqual([]);
  empty();
  same((await pass(use(100))).logps, long.logps);
});

test("a run whose policy does not start at its reference says so, branch by branch; one that does says nothing", async () => {
  const firstStep = async (): Promise<string[]> => {
    const said: string[] = [];
    const hooks = { signal: base.signal, onStage: () => undefined, log: (line: string) => void said.push(line) };
    await using trainer = await Trainer.create("dpo", { ...run, batchSize: ROWS } as RunConfig, hooks);
    await trainer.next();
    return said.filter((line) => line.includes("must start at the reference"));
  };
  expect(await firstStep()).toEqual([]);
  const known = await ReferenceCache.open(join(cache, "attune", files()[0]!), 128);
  const group = known.groups.get(1)!.slice();
  group[2 * 6 + 1]! *= 1 + 3e-6; // tree 70's rejected branch
  await known.add(1, group);
  expect(await firstStep()).toEqual([expect.stringMatching(/got more for row 70 rejected \(/)]);
});

test("a copy of the model elsewhere shares its cache", async () => {
  await pass();
  const copy = join(dir, "copy");
  await initModel({ configPath: join(dir, "config.json"), tokenizerDir: join(recipe, "model"), outputDir: copy, seed: 1, version: "test" });
  copyFileSync(join(dir, "model-1", "model.safetensors"), join(copy, "model.safetensors"));
  expect((await pass({}, "copy")).cached).toBe(ROWS);
});

test("its numbers are those of `attune score` on the same completions", async () => {
  const { logps } = await pass({}, "model-2");
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
