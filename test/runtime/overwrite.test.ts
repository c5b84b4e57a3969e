// A run that writes over a buffer what it would add onto it.
import { describe, expect, it } from "vitest";
import "#lib/ops/index.js";
import { flat } from "#lib/ir/flat.js";
import { buffer, store, trace, type Graph, type Value } from "#lib/ir/graph.js";
import { type } from "#lib/ir/types.js";
import { linear } from "#lib/ops/gemm.js";
import { add } from "#lib/ops/primitives/elementwise.js";
import { sumSquares } from "#lib/ops/adamw.js";
import { compile } from "#lib/passes/compile.js";
import { encode } from "#lib/program/encode.js";
import { scratchOf } from "#lib/runtime/host.js";
import { Session } from "#lib/runtime/session.js";

const parts = [{ name: "a", shape: [3, 5] }, { name: "b", shape: [3, 5] }];
const product = (): Value => linear(buffer("inputs/x", type([3, 4])), buffer("inputs/w", type([5, 4])));

/** sums/a += x w^T twice over, sums/b += x w^T, or what a case makes of it. */
const sums = (which: "both" | "one" | "read first"): Graph =>
  trace(() => {
    const places = flat("sums", parts);
    if (which === "read first") store("outputs/norm", sumSquares(places.find("b")!));
    store("sums/a", add(add(places.find("a")!, product()), product()));
    if (which !== "one") store("sums/b", add(places.find("b")!, product()));
  });

async function run(graph: Graph, overwrite: string[], device: "cpu" = "cpu"): Promise<number[]> {
  await using session = Session.create({ device, threads: 2 });
  const program = await session.load(encode(compile(graph, scratchOf(session.device))));
  await session.write("sums/a", new Float32Array(15).fill(100));
  await session.write("sums/b", new Float32Array(15).fill(NaN));
  const inputs = { "inputs/x": new Float32Array(12).fill(1), "inputs/w": new Float32Array(20).fill(0.5) };
  for (const name of overwrite) await session.run(program, { inputs, overwrite: name });
  return [(await session.read("sums/a"))[7]!, (await session.read("sums/b"))[7]!];
}

describe("overwrite", () => {
  it("counts a buffer's content as zeros, whatever it is, in the runs that ask for it", async () => {
    expect(await run(sums("both"), ["sums/all"])).toEqual([4, 2]);
    expect(await run(sums("both"), ["sums/all", "", ""])).toEqual([12, 6]);
    expect(await run(sums("both"), ["sums/all", "", "sums/all"])).toEqual([4, 2]);
    expect(await run(sums("both"), [""])).toEqual([104, NaN]);
  });

  it("is refused where the program leaves some of the buffer, or reads some before it writes there", async () => {
    await expect(run(sums("one"), ["sums/all"])).rejects.toThrow("overwrite sums/all: the program must write all of it, but leaves bytes 60 to 1024");
    await expect(run(sums("read first"), ["sums/all"])).rejects.toThrow(/^overwrite sums\/all: the program must write all of it before it reads it, but .*sum_squares.* reads bytes 512 to 572 first/);
  });

  it("is refused for a part, and for what is no shared buffer of the program", async () => {
    for (const name of ["sums/a", "inputs/x", "sums"]) await expect(run(sums("both"), [name])).rejects.toThrow(`overwrite ${name}: must be a shared buffer of this program, and no part of another`);
  });
});
