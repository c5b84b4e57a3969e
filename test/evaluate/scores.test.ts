// `attune score` against transformers in float64, on random models of odd shapes: test/fixtures/oracle/make_scores.py recorded them.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { scoreRows } from "#lib/evaluate/score.js";
import { attune } from "../cli/attune.ts";
import { respell } from "../models/respell.ts";

interface Row {
  readonly input_ids: readonly number[];
  readonly logps: readonly number[];
}
const oracle = new URL("../fixtures/oracle/", import.meta.url).pathname;
const recorded = JSON.parse(readFileSync(join(oracle, "scores.json"), "utf8")) as Record<string, Row[]>;
const dir = mkdtempSync(join(tmpdir(), "attune-scores-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Log-probabilities per row, as the command prints them. */
async function command(model: string, rows: readonly Row[]): Promise<number[][]> {
  const ran = await attune(["score", "--model", model, "--data", write(rows), "--device", "cpu"]);
  expect(ran.stderr + ran.code).toBe("0");
  return ran.stdout.trim().split("\n").map((line) => (JSON.parse(line) as { logps: number[] }).logps);
}
/** The same from the library, which costs no process. */
async function library(model: string, rows: readonly Row[], dtype: "float32" | "bfloat16"): Promise<number[][]> {
  const options = { model, data: write(rows), device: "cpu", dtype, threads: null, skipInvalid: false, tokensPerBatch: null } as const;
  const hooks = { signal: new AbortController().signal, onStage: () => undefined, log: () => undefined };
  const out: number[][] = [];
  for await (const s of scoreRows(options, hooks)) out.push([...s.logps]);
  return out;
}
function write(rows: readonly Row[]): string {
  const path = join(dir, "rows.jsonl");
  writeFileSync(path, rows.map((r) => `${JSON.stringify({ input_ids: r.input_ids })}\n`).join(""));
  return path;
}
function worst(got: readonly (readonly number[])[], rows: readonly Row[]): number {
  expect(got.map((r) => r.length)).toEqual(rows.map((r) => r.logps.length));
  return Math.max(...rows.flatMap((r, i) => r.logps.map((x, t) => Math.abs(x - got[i]![t]!))));
}

describe.each(Object.entries(recorded))("%s", (name, rows) => {
  const model = join(oracle, "scores", name);
  test("float32: every token within 1e-4; the folder as transformers 4 spells it: the same bits", async () => {
    const got = await command(model, rows);
    note("float32", worst(got, rows), 1e-4);
    const old = join(dir, name);
    cpSync(model, old, { recursive: true });
    const file = join(old, "config.json");
    writeFileSync(file, JSON.stringify(respell(JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>)));
    expect(await library(old, rows, "float32")).toEqual(got);
  });
  // Measured: from 0.026 to 0.114, with activations of 8 bits between layers.
  test("bfloat16: every token within 0.2", async () => note("bfloat16", worst(await library(model, rows, "bfloat16"), rows), 0.2));

  function note(dtype: string, off: number, limit: number): void {
    console.log(`${name} ${dtype}: ${off.toExponential(2)} at worst`);
    expect(off).toBeLessThanOrEqual(limit);
  }
});
