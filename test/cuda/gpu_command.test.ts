// The GPU command's runner: a crash, a hang and a missing tool are rows, and the next part runs.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { root } from "../runtime/tools.ts";

const part = (name: string, code: string, seconds = 20): object => ({ name, seconds, read: "text", command: ["{node}", "-e", code] });

test("planted faults become rows", () => {
  const dir = mkdtempSync(join(tmpdir(), "attune-gpu-test-"));
  const missing = { name: "missing", seconds: 5, read: "text", command: ["no-such-tool"] };
  const parts = [part("crash", "process.kill(process.pid, 'SIGSEGV')"), part("hang", "setInterval(() => {}, 1000)", 1), missing, part("after", "console.log('done')")];
  writeFileSync(join(dir, "parts.json"), JSON.stringify(parts));
  const out = join(dir, "out");
  const args = [join(root, "bench/gpu/run.mjs"), "--out", out, "--device", "simt", "--parts", join(dir, "parts.json")];
  const ended = spawnSync(process.execPath, args, { encoding: "utf8", env: {} });
  const results = readFileSync(join(out, "results.md"), "utf8");
  const files = readdirSync(out);
  rmSync(dir, { recursive: true });
  expect(ended.status).toBe(1);
  for (const row of ["crashed: SIGSEGV", "hung: killed after 1 s", "missing: no-such-tool", "| ok | done |"]) expect(results).toContain(row);
  expect(files.length).toBeLessThanOrEqual(8);
});
