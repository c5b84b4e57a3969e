// The emulator that native/cuda is tested on: each instruction against what the PTX manual says of it, and each mistake that it must catch.
// Compiled here from its sources and run.
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { root } from "../runtime/tools.ts";

const run = promisify(execFile);
const dir = mkdtempSync(join(tmpdir(), "attune-emulator-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const cxx = process.env["CXX"] ?? "g++";
const emulator = join(root, "native/simt");
const include = `-I${join(emulator, "include")}`;

describe.skipIf(process.arch !== "x64" || process.platform !== "linux")("the emulator", () => {
  beforeAll(async () => {
    const sources = readdirSync(emulator).filter((f) => f.endsWith(".cc"));
    for (const f of sources)
      await run(cxx, [
        "-std=c++20",
        "-O1",
        "-fno-exceptions",
        "-w",
        include,
        "-c",
        join(emulator, f),
        "-o",
        join(dir, `${f}.o`),
      ]);
    for (const f of ["probes.cu", "probes_wgmma.cu", "faults.cu", "faults.cc"]) {
      const source = join(root, `native/check/${f}`);
      await run(cxx, [
        "-std=c++20",
        "-w",
        "-x",
        "c++",
        "-DATTUNE_SIMT",
        include,
        "-c",
        source,
        "-o",
        join(dir, `${f}.o`),
      ]);
    }
    const objects = sources.map((f) => join(dir, `${f}.o`));
    await run(cxx, [join(dir, "probes.cu.o"), join(dir, "probes_wgmma.cu.o"), ...objects, "-o", join(dir, "probes")]);
    await run(cxx, [join(dir, "faults.cu.o"), join(dir, "faults.cc.o"), ...objects, "-o", join(dir, "faults")]);
  }, 300_000);

  test.each(["early", "late"].flatMap((timing) => [1, 2, 3].map((seed) => [timing, seed] as const)))(
    "does what the manual says (%s, seed %i)",
    async (timing, seed) => {
      const env = { ...process.env, ATTUNE_SIMT_TIMING: timing, ATTUNE_SIMT_SEED: `${seed}` };
      const { stdout } = await run(join(dir, "probes"), [], { env }); // rejects, with what it printed, unless all are ok
      expect(stdout).toMatch(/^0 failed$/m);
      expect(stdout).not.toMatch(/^skip/m);
    },
  );

  test("skips what an older device lacks", async () => {
    const { stdout } = await run(join(dir, "probes"), [], { env: { ...process.env, ATTUNE_SIMT_ARCH: "80" } });
    expect(stdout).toMatch(/^skip wgmma_shared$/m);
    expect(stdout).toMatch(/^ok +mma/m);
  });

  test("catches every mistake", async () => {
    const { stdout } = await run(join(dir, "faults"), []);
    expect(stdout).toMatch(/^0 missed$/m);
  });
});
