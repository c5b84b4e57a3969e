// Every example runs as its first lines say, on a few rows.
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { initModel } from "#lib/io/init.js";

const root = new URL("../..", import.meta.url).pathname;
const recipe = join(root, "examples/quickstart");
const { service } = (await import(join(root, "examples/service.mjs"))) as { service: () => Server };
const dir = mkdtempSync(join(tmpdir(), "attune-examples-"));
const model = join(dir, "model");
const rows = (name: string): string => join(dir, `${name}.jsonl`);
const example = async (name: string, ...args: string[]): Promise<string> =>
  (await promisify(execFile)(process.execPath, [join(root, "examples", name), ...args], { env: { ...process.env, XDG_CACHE_HOME: join(dir, "cache") } })).stdout;

beforeAll(async () => {
  process.env["XDG_CACHE_HOME"] = join(dir, "cache");
  const config = JSON.parse(readFileSync(join(recipe, "model/config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 1 }));
  await initModel({ configPath: join(dir, "config.json"), tokenizerDir: join(recipe, "model"), outputDir: model, seed: 1, version: "test" });
  for (const name of ["sft", "dpo"]) writeFileSync(rows(name), readFileSync(join(recipe, `data/${name}.jsonl`), "utf8").split("\n").slice(0, 16).join("\n"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("train.mjs trains twice and saves a model", async () => {
  const out = await example("train.mjs", "--model", model, "--sft", rows("sft"), "--dpo", rows("dpo"), "--out", join(dir, "out"), "--steps", "2");
  expect(out).toMatch(/sft {2}step 2 .*\n.*dpo {2}step 1 {2}loss 0\.6931/);
  expect(readFileSync(join(dir, "out/dpo/config.json"), "utf8")).toContain("LlamaForCausalLM");
});

test("score.mjs says a perplexity for each row: about the vocabulary's size for a random model", async () => {
  writeFileSync(rows("texts"), '{"text": "A cat sat."}\n{"prompt": "Is it?", "completion": " Yes, it is."}\n');
  const out = (await example("score.mjs", model, rows("texts"))).trim().split("\n");
  expect(out).toHaveLength(3);
  expect(Number(/perplexity (\S+)/.exec(out[2]!)![1])).toBeGreaterThan(500);
});

test("kernel.mjs agrees with the formula", async () => {
  expect(await example("kernel.mjs")).toMatch(/largest difference from the formula \d\.\de-\d/);
});

describe("service.mjs", () => {
  const server = service();
  let base = "";
  beforeAll(() => new Promise<void>((done) => server.listen(0, "127.0.0.1", () => ((base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`), done()))));
  afterAll(() => server.close());
  const post = (body: unknown): Promise<Response> => fetch(`${base}/jobs`, { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) });
  const events = async (id: number): Promise<string> => (await fetch(`${base}/jobs/${id}/metrics`)).text();
  const job = { model, batchSize: 4, maxLength: 128 };

  test("trains in the background, streams a line a step, and answers meanwhile", async () => {
    const made = await post({ ...job, task: "dpo", dataset: rows("dpo"), maxSteps: 3, outputDir: join(dir, "service-dpo") });
    expect(made.status).toBe(202);
    expect((await post({ ...job, task: "sft", dataset: rows("sft"), outputDir: join(dir, "other") })).status).toBe(409);
    expect(await (await fetch(`${base}/jobs/1`)).json()).toMatchObject({ id: 1, state: "running" });
    const stream = await events(1);
    expect(stream.match(/^event: metrics$/gm)).toHaveLength(3);
    expect(stream).toMatch(/event: end\ndata: .*"state":"done","step":3/);
    expect(readFileSync(join(dir, "service-dpo/config.json"), "utf8")).toContain("LlamaForCausalLM");
    expect((await events(1)).match(/^event: metrics$/gm)).toHaveLength(3); // a late reader misses nothing
  });
  test("is stopped by DELETE after the step in flight, and saves", async () => {
    await post({ ...job, task: "sft", dataset: rows("sft"), maxSteps: 100_000, outputDir: join(dir, "service-sft") });
    const stream = events(2);
    await fetch(`${base}/jobs/2`, { method: "DELETE" });
    expect(await stream).toMatch(/event: end\ndata: .*"state":"stopped"/);
  });
  test("answers a bad request, and a job that cannot run, with the reason", async () => {
    expect((await post("{")).status).toBe(400);
    expect((await post({ task: "ppo", outputDir: "x" })).status).toBe(400);
    await post({ ...job, task: "dpo", dataset: join(dir, "none.jsonl"), outputDir: join(dir, "x") });
    expect(await events(3)).toMatch(/"state":"failed".*"code":"ERR_\w+".*none\.jsonl/);
  });
});
