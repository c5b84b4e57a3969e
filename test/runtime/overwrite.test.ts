// A run that writes over a buffer what it would add onto it.
import { describe, expect, it } from "vitest";
import "#lib/ops/index.js";
import { flat } from "#lib/ir/flat.js";
import { buffer, store, trace, type Graph, type Value } from "#lib/ir/graph.js";
import { type } from "#lib/ir/types.js";
import { StateError } from "#lib/errors.js";
import { gemmOp, linear } from "#lib/ops/gemm.js";
import { add } from "#lib/ops/primitives/elementwise.js";
import { sumSquares } from "#lib/ops/adamw.js";
import { sumRowsOp } from "#lib/ops/sum_rows.js";
import { compile } from "#lib/passes/compile.js";
import { encode } from "#lib/program/encode.js";
import { scratchOf } from "#lib/runtime/host.js";
import { Session, type LoadedProgram } from "#lib/runtime/session.js";
import { assemble, f32, inside } from "./tools.ts";

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

async function run(graph: Graph, overwrite: string[]): Promise<number[]> {
  await using session = Session.create({ device: "cpu", threads: 2 });
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

  it("is refused where a short part is left, though it looks like the room between two", async () => {
    const graph = (bs: readonly string[]): Graph =>
      trace(() => {
        const places = flat("sums", ["a", "b", "c"].map((name) => ({ name, shape: [64] })), "bfloat16"); // 256 bytes a row of the buffer
        for (const name of bs) store(`sums/${name}`, sumRowsOp({ x: buffer("inputs/x", type([2, 64])), onto: places.find(name)! }, {}).y);
      });
    await using session = Session.create({ device: "cpu", threads: 2 });
    const load = async (bs: readonly string[]): Promise<LoadedProgram> => session.load(encode(compile(graph(bs), scratchOf("cpu"))));
    const inputs = { "inputs/x": new Float32Array(128).fill(1) };
    await session.run(await load(["a", "b", "c"]), { inputs, overwrite: "sums/all" });
    await expect(session.run(await load(["a", "c"]), { inputs, overwrite: "sums/all" })).rejects.toThrow("but leaves bytes 128 to 512");
  });

  it("is refused where what is written comes with each run", async () => {
    await using session = Session.create({ device: "cpu", threads: 2 });
    const rows = { name: "rows", capacity: 4 };
    const graph = trace(() => store("sums/x", gemmOp({ a: buffer("inputs/a", type([rows, 2])), b: buffer("inputs/b", type([2, 3])), onto: buffer("sums/x", type([rows, 3])) }, { ta: false, tb: false, dtype: "float32" }).y));
    const program = await session.load(encode(compile(graph, scratchOf("cpu"))));
    const some = { counts: { rows: 1 }, inputs: { "inputs/a": new Float32Array(2), "inputs/b": new Float32Array(6) } };
    await session.run(program, some);
    await expect(session.run(program, { ...some, overwrite: "sums/x" })).rejects.toThrow("but leaves bytes 0 to 48");
  });

  it("lets a program read what it has written, part by part", async () => {
    await using session = Session.create({ device: "cpu", threads: 2 });
    const program = await session.load(
      assemble({
        buffers: { "inputs/x": f32(1, 128), "sums/all": f32(2, 128), "sums/a": inside("sums/all", 0, f32(128)), "sums/b": inside("sums/all", 512, f32(128)), "outputs/y": f32(1) },
        code: [
          ...["sums/b", "sums/a"].map((part) => ["sum_rows", ["inputs/x", part, part]] as const),
          ["sum_squares", ["sums/all", "outputs/y"]],
        ],
      }),
    );
    const inputs = { "inputs/x": new Float32Array(128).fill(1) };
    await session.write("sums/all", new Float32Array(256).fill(NaN));
    for (const [overwrite, squares] of [["sums/all", 256], ["", 1024], ["sums/all", 256]] as const) expect(await session.run(program, { inputs, overwrite })).toEqual({ "outputs/y": Float32Array.of(squares) });
  });

  it("that is refused runs nothing", async () => {
    await using session = Session.create({ device: "cpu", threads: 2 });
    const program = await session.load(encode(compile(sums("one"), scratchOf("cpu"))));
    await session.write("sums/a", new Float32Array(15).fill(100));
    const run = session.run(program, { inputs: { "inputs/x": new Float32Array(12), "inputs/w": new Float32Array(20) }, overwrite: "sums/all" });
    await expect(run).rejects.toThrow(StateError);
    expect(await session.read("sums/a")).toEqual(new Float32Array(15).fill(100));
  });

  it("is refused for a part, and for what is no shared buffer of the program", async () => {
    for (const name of ["sums/a", "inputs/x", "sums"]) await expect(run(sums("both"), [name])).rejects.toThrow(`overwrite ${name}: must be a shared buffer of this program, and no part of another`);
  });
});
