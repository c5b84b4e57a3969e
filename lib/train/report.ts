// report.html of a run folder: curves, figures, configuration and samples on one page that needs no network and no server.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, join, resolve } from "node:path";
import { writeWhole } from "../io/atomic_folder.ts";
import { parseRunFile } from "./config_file.ts";
import { renderReport } from "./report_page.ts";
import type { ReportData } from "./report_page.ts";

type Rec = Record<string, unknown>;

/** Points of a curve at most; longer runs show means of neighbouring lines. */
const MAX_POINTS = 2000;
const MAX_SAMPLES = 200;

/**
 * Writes `report.html` from the folder's metrics.jsonl, config.yaml and samples.jsonl as they are now; files that are
 * missing leave their part out. The page replaces an older one at once or not at all. @throws WriteError.
 */
export async function writeReport(dir: string): Promise<void> {
  const html = renderReport(await reportData(dir), await plotFiles());
  await writeWhole(join(dir, "report.html"), html);
}

async function reportData(dir: string): Promise<ReportData> {
  const lines = await readLines(join(dir, "metrics.jsonl"));
  const summary = lines.findLast((line) => "train_runtime" in line) ?? null;
  const logged = lines.filter((line) => !("train_runtime" in line) && typeof line["step"] === "number");
  const config = await readConfig(join(dir, "config.yaml"));
  const samples = (await readLines(join(dir, "samples.jsonl"))).slice(-MAX_SAMPLES);
  return { name: basename(resolve(dir)), config, summary, ...columns(logged), samples };
}

async function readConfig(path: string): Promise<Rec> {
  try {
    return { ...parseRunFile(path, await readFile(path, "utf8")).values };
  } catch {
    return {};
  }
}

/** The records of a JSONL file; a line that is cut short is passed over. Gives the event loop its turn now and then. */
async function readLines(path: string): Promise<Rec[]> {
  const text = await readFile(path, "utf8").catch(() => "");
  const records: Rec[] = [];
  let parsed = 0;
  for (let from = 0; from < text.length;) {
    const end = text.indexOf("\n", from);
    const line = text.slice(from, end < 0 ? text.length : end);
    from = end < 0 ? text.length : end + 1;
    try {
      const value: unknown = JSON.parse(line);
      if (typeof value === "object" && value !== null && !Array.isArray(value)) records.push(value as Rec);
    } catch {
      // Half-written: the run was killed while it wrote.
    }
    if (++parsed % 200 === 0) await new Promise((done) => setImmediate(done));
  }
  return records;
}

/** One column a metric over the logged steps; null where a step did not log it. */
function columns(lines: readonly Rec[]): Pick<ReportData, "steps" | "series" | "pooled"> {
  const byStep = new Map<number, Rec>();
  for (const line of lines) {
    const step = line["step"] as number;
    byStep.set(step, { ...byStep.get(step), ...line });
  }
  const rows = [...byStep].sort(([a], [b]) => a - b);
  const pooled = Math.max(1, Math.ceil(rows.length / MAX_POINTS));
  const keys = new Set(rows.flatMap(([, row]) => Object.keys(row).filter((key) => typeof row[key] === "number")));
  keys.delete("step");
  const steps: number[] = [];
  const series: Record<string, (number | null)[]> = Object.fromEntries([...keys].map((key) => [key, []]));
  for (let i = 0; i < rows.length; i += pooled) {
    const bucket = rows.slice(i, i + pooled);
    steps.push(bucket.at(-1)![0]);
    for (const key of keys) {
      const values = bucket.map(([, row]) => row[key]).filter((value): value is number => typeof value === "number");
      series[key]!.push(values.length > 0 ? values.reduce((a, b) => a + b, 0) / values.length : null);
    }
  }
  return { steps, series, pooled };
}

/** uPlot's code and style, from the installed package. */
async function plotFiles(): Promise<{ js: string; css: string }> {
  const require = createRequire(import.meta.url);
  const read = (name: string): Promise<string> => readFile(require.resolve(`uplot/dist/${name}`), "utf8");
  const [js, css] = await Promise.all([read("uPlot.iife.min.js"), read("uPlot.min.css")]);
  return { js, css };
}
