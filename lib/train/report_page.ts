// The page of a report as text. Everything that comes from a run is escaped, and the page's own policy lets only its own
// two scripts run.

import { createHash } from "node:crypto";
import { formatBytes } from "./config_bytes.ts";
import { CLIENT, STYLE } from "./report_client.ts";

export interface ReportData {
  /** Name of the run's folder. */
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  /** The last line of a finished run, or null. */
  readonly summary: Readonly<Record<string, unknown>> | null;
  readonly steps: readonly number[];
  readonly series: Readonly<Record<string, readonly (number | null)[]>>;
  /** Logged lines that one point stands for. */
  readonly pooled: number;
  readonly samples: readonly Readonly<Record<string, unknown>>[];
}

interface Chart {
  readonly title: string;
  readonly keys: readonly string[];
}

/** Charts in their order on the page; a chart shows those of its keys that the run logged. */
const CHARTS: readonly Chart[] = [
  { title: "Loss", keys: ["loss", "eval_loss"] },
  { title: "Rewards", keys: ["rewards/chosen", "rewards/rejected"] },
  { title: "Reward margin", keys: ["rewards/margins", "eval_rewards/margins"] },
  { title: "Reward accuracy", keys: ["rewards/accuracies", "eval_rewards/accuracies"] },
  { title: "Log-probabilities", keys: ["logps/chosen", "logps/rejected"] },
  { title: "Logits", keys: ["logits/chosen", "logits/rejected"] },
  { title: "Token accuracy", keys: ["mean_token_accuracy", "eval_mean_token_accuracy"] },
  { title: "Entropy", keys: ["entropy", "eval_entropy"] },
  { title: "Gradient norm", keys: ["grad_norm"] },
  { title: "Learning rate", keys: ["learning_rate"] },
  { title: "Tokens per second", keys: ["tokens_per_second"] },
];
/** Logged, but no curve that anybody watches. */
const NO_CHART: ReadonlySet<string> = new Set(["epoch", "num_tokens", "step_seconds", "peak_bytes"]);
const MAX_TEXT = 4000;

/** Escapes a text for HTML, in elements and in quoted attributes. */
export function escapeHtml(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return (
    text
      .replace(/[&<>"']/g, (c) => names[c]!)
      // A control character has no place in HTML; it is shown as its picture instead.
      // oxlint-disable-next-line no-control-regex
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
      .replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd")
  );
}

/** JSON that may stand inside a script element. */
export function embedJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** The whole page. `plot` is uPlot's code and style. */
export function renderReport(data: ReportData, plot: { readonly js: string; readonly css: string }): string {
  const charts = chartsOf(data);
  const hashes = [plot.js, CLIENT].map((text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`);
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src ${hashes.join(" ")}; base-uri 'none'; form-action 'none'`;
  const task = typeof data.config["task"] === "string" ? data.config["task"] : "run";
  const title = `${task} \u2013 ${data.name}`;
  const plotData = {
    steps: data.steps,
    charts: charts.map(({ title, keys }) => ({
      title,
      series: keys.map((key) => ({ key, values: data.series[key] })),
    })),
  };
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${escapeHtml(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(title)}</title>
<style>${plot.css}${STYLE}</style>
</head>
<body>
<header>
<h1>${escapeHtml(title)}</h1>
<p class="from">${from(data)}</p>
</header>
<main>
${tiles(data)}
${
  charts.length > 0
    ? `<section class="charts" id="charts"><noscript>The curves need JavaScript.</noscript></section>
<p class="note">${data.pooled > 1 ? `Each point is the mean of ${data.pooled} logged lines. ` : ""}Point at a curve for its values.</p>`
    : `<p class="note">No step has been logged yet.</p>`
}
${samples(data)}
<div class="tables">
${data.summary ? section("Summary", table(data.summary)) : ""}
${Object.keys(data.config).length > 0 ? section("Configuration", table(data.config)) : ""}
</div>
</main>
<script type="application/json" id="data">${embedJson(plotData)}</script>
<script>${plot.js}</script>
<script>${CLIENT}</script>
</body>
</html>
`;
}

function chartsOf({ series }: ReportData): Chart[] {
  const left = new Set(Object.keys(series).filter((key) => !NO_CHART.has(key) && series[key]!.some((v) => v !== null)));
  const charts = CHARTS.map(({ title, keys }) => ({ title, keys: keys.filter((key) => left.delete(key)) }));
  const rest = [...left].filter((key) => !key.startsWith("eval_")).map((key) => ({ title: key, keys: [key] }));
  return [...charts, ...rest].filter(({ keys }) => keys.length > 0);
}

function from({ config }: ReportData): string {
  const parts = [
    ["model", config["model"]],
    ["dataset", config["dataset"]],
    ["device", config["device"]],
    ["dtype", config["dtype"]],
  ].filter(([, value]) => typeof value === "string");
  return parts.map(([key, value]) => `${key} <b>${escapeHtml(String(value))}</b>`).join(" \u00b7 ");
}

/** The figures that people look for first. */
function tiles(data: ReportData): string {
  const last = (key: string): number | undefined => data.series[key]?.findLast((value) => value !== null) ?? undefined;
  const sum = (key: string): number | undefined => {
    const value = data.summary?.[key];
    return typeof value === "number" ? value : undefined;
  };
  const done = data.steps.at(-1);
  const tile = (label: string, value: string | undefined): string =>
    value === undefined ? "" : `<div class="tile"><span>${escapeHtml(label)}</span><b>${escapeHtml(value)}</b></div>`;
  const shown = (value: number | undefined, format: (value: number) => string = figure): string | undefined =>
    value === undefined ? undefined : format(value);
  return `<section class="tiles">${[
    tile("state", data.summary ? "finished" : done === undefined ? "started" : "not finished"),
    tile("steps", shown(done)),
    tile("last loss", shown(last("loss"))),
    tile("evaluation loss", shown(last("eval_loss"))),
    tile("reward accuracy", shown(last("rewards/accuracies"), percent)),
    tile("reward margin", shown(last("rewards/margins"))),
    tile("token accuracy", shown(last("mean_token_accuracy"), percent)),
    tile("time", shown(sum("train_runtime"), duration)),
    tile("tokens/s", shown(sum("train_tokens_per_second") ?? last("tokens_per_second"))),
    tile("peak memory", shown(sum("peak_bytes") ?? last("peak_bytes"), formatBytes)),
  ].join("")}</section>`;
}

function samples({ samples: rows }: ReportData): string {
  if (rows.length === 0) return "";
  const cards = rows.map((row) => {
    const step = typeof row["step"] === "number" ? `<span class="step">step ${figure(row["step"])}</span>` : "";
    const answer = row["completion"] ?? row["answer"] ?? row["text"] ?? "";
    return `<article>${step}<p class="prompt">${said(row["prompt"])}</p><p class="answer">${said(answer)}</p></article>`;
  });
  return section("Samples", `<div class="samples">${cards.join("\n")}</div>`);
}

/** A text, or the messages of a conversation. */
function said(value: unknown): string {
  if (Array.isArray(value)) {
    return value
      .map((one: unknown) => {
        const { role, content } = (typeof one === "object" && one !== null ? one : {}) as Record<string, unknown>;
        return `${escapeHtml(String(role ?? ""))}: ${said(content)}`;
      })
      .join("\n");
  }
  const text = typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value);
  return escapeHtml(text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)} \u2026` : text);
}

function section(title: string, body: string): string {
  return `<section><h2>${title}</h2>${body}</section>`;
}

function table(record: Readonly<Record<string, unknown>>): string {
  const rows = Object.entries(record).map(
    ([key, value]) => `<tr><th scope="row">${escapeHtml(key)}</th><td>${cell(key, value)}</td></tr>`,
  );
  return `<table>${rows.join("\n")}</table>`;
}

function cell(key: string, value: unknown): string {
  if (typeof value === "number") {
    if (key.endsWith("bytes")) return formatBytes(value);
    return /(runtime|seconds)$/.test(key) ? duration(value) : figure(value);
  }
  if (value === null || value === undefined) return '<span class="none">not set</span>';
  return said(typeof value === "object" ? JSON.stringify(value) : String(value));
}

function figure(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e9) return value.toExponential(3).replace(/\.?0+e/, "e");
  return size >= 1000 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)));
}

function percent(value: number): string {
  return `${(value * 100).toFixed(1)}%`;
}

function duration(seconds: number): string {
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  const whole = Math.round(seconds);
  const hours = Math.floor(whole / 3600);
  const rest = `${Math.floor(whole / 60) % 60} min ${whole % 60} s`;
  return hours > 0 ? `${hours} h ${rest}` : rest;
}
