// Results for people: nested records as indented lines, lists of records as tables. Units follow from the names of keys.

import { formatBytes } from "../train/config_bytes.ts";
import { formatNumber, formatSeconds, printable } from "./text.ts";

type Rec = Readonly<Record<string, unknown>>;

const isRecord = (value: unknown): value is Rec => typeof value === "object" && value !== null && !Array.isArray(value);

/** A value for people; `key` says its unit: `..._bytes`, `..._seconds`, `flops`, `..._share`. */
export function formatValue(key: string, value: unknown): string {
  if (typeof value === "number") {
    if (/bytes$/i.test(key))
      return `${formatBytes(value)}${value >= 1000 ? ` (${value.toLocaleString("en-US")})` : ""}`;
    if (/(seconds|runtime)$/i.test(key)) return formatSeconds(value);
    if (/flops(_?per_?step)?$/i.test(key)) return `${formatNumber(value / 1e9)} GFLOP`;
    if (/(share|roofline)$/i.test(key)) return `${(value * 100).toFixed(1)}%`;
    return formatNumber(value);
  }
  if (value === null || value === undefined) return "-";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map((one) => formatValue(key, one)).join(", ");
  return printable(isRecord(value) ? JSON.stringify(value) : String(value));
}

const words = (key: string): string => printable(key.replaceAll("_", " ").replace(/ bytes$/, ""));

/** A record, one line a key; records inside it indented, lists of records as tables. */
export function formatRecord(record: Rec, indent = ""): string {
  const plain = Object.entries(record).filter(([, value]) => !isRecord(value) && !isTable(value));
  const width = Math.max(0, ...plain.map(([key]) => words(key).length));
  const lines: string[] = [];
  for (const [key, value] of Object.entries(record)) {
    if (isRecord(value)) lines.push(`${indent}${words(key)}`, formatRecord(value, `${indent}  `));
    else if (isTable(value)) lines.push(`${indent}${words(key)}`, formatTable(value, `${indent}  `));
    else lines.push(`${indent}${words(key).padEnd(width)}  ${formatValue(key, value)}`);
  }
  return lines.filter((line) => line !== "").join("\n");
}

function isTable(value: unknown): value is Rec[] {
  return Array.isArray(value) && value.length > 0 && value.every(isRecord);
}

/** Records as rows under their keys; columns of numbers to the right. */
export function formatTable(rows: readonly Rec[], indent = ""): string {
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const columns = keys.map((key) => {
    const cells = rows.map((row) => (key in row ? formatValue(key, row[key]) : ""));
    const width = Math.max(words(key).length, ...cells.map((cell) => cell.length));
    const right = rows.every((row) => row[key] === undefined || row[key] === null || typeof row[key] === "number");
    const fit = (cell: string): string => (right ? cell.padStart(width) : cell.padEnd(width));
    return [fit(words(key)), ...cells.map(fit)];
  });
  return [...Array(rows.length + 1).keys()]
    .map(
      (i) =>
        indent +
        columns
          .map((c) => c[i])
          .join("  ")
          .trimEnd(),
    )
    .join("\n");
}
