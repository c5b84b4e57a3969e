// The C++ checks of the kernels beside this file: shapes across every block and panel edge, each level of the CPU, one to three threads, against
// plain double loops. Compiled against the library that the build left, and run.
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, describe, expect, test } from "vitest";
import { cpuInfo } from "#lib/runtime/host.js";
import { root } from "../runtime/tools.ts";

const run = promisify(execFile);
const dir = mkdtempSync(join(tmpdir(), "attune-native-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const core = join(root, "build/Release/attune_core.a");
const flags = ["-std=c++20", "-O1", "-fno-math-errno", "-ffp-contract=fast", "-pthread"];

/** Each program and the other files that it is made of. */
const programs = [["gemm"], ["attention"], ["kernels1"], ["kernels2", "primitives"]];

describe("kernels against plain double loops", () => {
  test("the build left its library", () => expect(existsSync(core), `${core} (npm run build)`).toBe(true));
  test.concurrent.each(programs)("%s", async (...files) => {
    const program = join(dir, files[0]!);
    const sources = files.map((f) => join(root, `test/native/${f}_test.cc`));
    await run(process.env["CXX"] ?? "g++", [...flags, "-o", program, ...sources, core]);
    const { stdout } = await run(program, [], { cwd: root }); // rejects, with what it printed, unless every check holds
    for (const level of cpuInfo().levels) expect(stdout).toMatch(new RegExp(`^${level} +ok$`, "m"));
  });
}, 300_000);
