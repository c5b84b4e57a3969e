// The background thread's work: programs, by module and name, traced, planned and encoded from plain data; and models opened.
import type { Graph } from "../ir/graph.ts";
import { cap, resolve, size, type Counts, type DType } from "../ir/types.ts";
import { openModel } from "../io/model_folder.ts";
import "../ops/index.ts";
import { compile } from "../passes/compile.ts";
import { costOf, encode, paramsOf } from "../program/encode.ts";
import type { Instruction } from "../program/program.ts";
import { scratchOf } from "../runtime/host.ts";
import { Moved, serve } from "../thread.ts";

/** What an instruction does with every capacity in use. */
export interface InstructionCost {
  /** Its operands, `x (512, 64), weight (64)`, and flags. */
  readonly shape: string;
  readonly dtype: DType;
  /** Null for attention: what it computes depends on its mask, which is data. */
  readonly flops: number | null;
  readonly bytes: number;
}

/** A program as a session takes it, and what is said of it before it runs. */
export interface Compiled {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly arenaBytes: number;
  /** Largest sum of bytes alive at once in the arena: no placing can go below it. */
  readonly liveBytes: number;
  /** One for each instruction. */
  readonly costs: readonly InstructionCost[];
}

/** An instruction's cost, and its operands in words: the floating-point ones, whose sizes make its time. */
function described(c: Instruction): InstructionCost {
  const operands = [...c.def.inputs, ...c.def.optional].flatMap((k, i) => {
    const t = c.slots[i]?.type;
    return t && t.dtype !== "int32" && size(t) > 1 ? [`${k} (${t.shape.map(cap).join(", ")})`] : [];
  });
  const flags = paramsOf(c.def).flatMap(([k, kind], i) => (kind === "boolean" && c.params[i] ? [k] : []));
  const main = c.slots.find((s) => s && s.type.dtype !== "int32");
  return { shape: [...operands, ...flags].join(", "), dtype: main?.type.dtype ?? "int32", ...costOf(c), ...(c.def.inputs.includes("end") && { flops: null }) };
}

async function graphOf(module: string, name: string, args: readonly unknown[]): Promise<Graph> {
  const programs = (await import(module)) as Record<string, (...args: readonly unknown[]) => Graph>;
  return programs[name]!(...args);
}

const functions = {
  openModel,
  async compile(device: string, module: string, name: string, args: readonly unknown[]): Promise<Moved<Compiled>> {
    const plan = compile(await graphOf(module, name, args), scratchOf(device));
    const bytes = encode(plan);
    const costs = plan.instructions.map(described);
    return new Moved({ bytes, arenaBytes: plan.arenaBytes, liveBytes: plan.liveBytes, costs }, [bytes.buffer]);
  },
  /** Floating-point operations of a program for each of `counts`; a dim that they leave out is not in use. */
  async flops(module: string, name: string, args: readonly unknown[], counts: readonly Counts[]): Promise<number[]> {
    const p = compile(await graphOf(module, name, args));
    const none = Object.fromEntries(p.dims.map((d) => [d.name, 0]));
    return counts.map((c) => {
      const used = p.instructions.map((i) => ({ ...i, slots: i.slots.map((s) => s && { ...s, type: resolve(s.type, { ...none, ...c }) }) }));
      return used.reduce((n, i) => n + costOf(i).flops, 0);
    });
  },
};
export type BackgroundFunctions = typeof functions;
serve(functions);
