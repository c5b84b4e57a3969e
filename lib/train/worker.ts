// The background thread's work: the programs that attune runs, by name, traced, planned and encoded from plain data; and what else of a
// run computes for a while.
import { decodeProgram, prefillProgram } from "../generate/programs.ts";
import { buffer, store, trace, type Graph } from "../ir/graph.ts";
import { resolve, type, type Counts, type DType } from "../ir/types.ts";
import { openModel } from "../io/model_folder.ts";
import { linear } from "../ops/gemm.ts";
import "../ops/index.ts";
import { normProgram, updateProgram } from "../optim/adamw.ts";
import { compile } from "../passes/compile.ts";
import { costOf, encode } from "../program/encode.ts";
import { scratchOf } from "../runtime/host.ts";
import { Moved, serve } from "../thread.ts";
import { evaluationStep, microStep, scoreProgram } from "./programs.ts";

/** outputs/y = inputs/x (n, n) times weights/w (n, n): what a machine's rate is measured with. */
const squareProduct = (n: number, dtype: DType): Graph =>
  trace(() => store("outputs/y", linear(buffer("inputs/x", type([n, n], dtype)), buffer("weights/w", type([n, n], dtype)))));

const programs = { microStep, evaluationStep, normProgram, updateProgram, scoreProgram, prefillProgram, decodeProgram, squareProduct };
export type Programs = typeof programs;

/** A program as a session takes it, and what is said of it before it runs. */
export interface Compiled {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly arenaBytes: number;
  /** Largest sum of bytes alive at once in the arena: no placing can go below it. */
  readonly liveBytes: number;
}

const graphOf = (name: keyof Programs, args: readonly unknown[]): Graph => (programs[name] as (...args: readonly unknown[]) => Graph)(...args);

const functions = {
  openModel,
  compile(device: string, name: keyof Programs, args: readonly unknown[]): Moved<Compiled> {
    const plan = compile(graphOf(name, args), scratchOf(device));
    const bytes = encode(plan);
    return new Moved({ bytes, arenaBytes: plan.arenaBytes, liveBytes: plan.liveBytes }, [bytes.buffer]);
  },
  /** Floating-point operations of a program for each of `counts`; a dim that they leave out is not in use. */
  flops(name: keyof Programs, args: readonly unknown[], counts: readonly Counts[]): number[] {
    const p = compile(graphOf(name, args));
    const none = Object.fromEntries(p.dims.map((d) => [d.name, 0]));
    return counts.map((c) => {
      const used = p.instructions.map((i) => ({ ...i, slots: i.slots.map((s) => s && { ...s, type: resolve(s.type, { ...none, ...c }) }) }));
      return used.reduce((n, i) => n + costOf(i).flops, 0);
    });
  },
};
export type BackgroundFunctions = typeof functions;
serve(functions);
