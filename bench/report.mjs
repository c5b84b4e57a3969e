// What the benches print alike: the machine that figures belong to, medians and tables.
import { readFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { cpuInfo } from "#lib/runtime/host.js";

export const gib = (bytes) => (bytes / 2 ** 30).toFixed(2);

/** The value that a share `q` of the list lies below. */
export const quantile = (list, q) => list.toSorted((a, b) => a - b)[Math.min(list.length - 1, Math.floor(q * list.length))];
export const median = (list) => quantile(list, 0.5);

/** CPU, its family and level, threads, and how busy the machine was before: figures of two machines are never compared. */
export function machine() {
  let info = "";
  try {
    info = readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    // not Linux: no family
  }
  const field = (name) => Number(info.match(new RegExp(`^${name}\\s*: (\\d+)$`, "m"))?.[1]);
  const { level, threads } = cpuInfo();
  return { cpu: cpus()[0].model.trim(), family: field("cpu family"), model: field("model"), level, threads, node: process.version, load: loadavg()[0] };
}

export function printMachine(m, versions = {}) {
  const peer = Object.entries(versions).map(([name, v]) => `, ${name} ${v}`);
  console.log(`${m.cpu}, family ${m.family} model ${m.model}, ${m.level}, ${m.threads} threads, Node ${m.node}${peer.join("")}, load before ${m.load.toFixed(1)}`);
}

/** Columns as wide as they must be; the first to the left, the others to the right. */
export function printTable(head, rows) {
  const widths = head.map((h, i) => Math.max(h.length, ...rows.map((r) => r[i].length)));
  for (const line of [head, ...rows]) console.log(line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join("  "));
}
