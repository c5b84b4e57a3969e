// What is computed off the caller's thread, by one for all: models opened, programs compiled (asked for by module and name, they come back as bytes).
import { SharedThread } from "../thread.ts";
import type { OpenedModel } from "../io/model_folder.ts";
import type { Graph } from "../ir/graph.ts";
import type { Counts } from "../ir/types.ts";
import type { BackgroundFunctions, Compiled } from "./worker.ts";

export type { Compiled, InstructionCost } from "./worker.ts";

/** The functions of module M that trace a program. */
export type ProgramName<M> = { [K in keyof M]: M[K] extends (...args: never[]) => Graph ? K : never }[keyof M] & string;
export type ProgramArgs<M, K extends keyof M> = M[K] extends (...args: infer A) => Graph ? A : never;

const background = new SharedThread<BackgroundFunctions>(new URL("./worker.js", import.meta.url), "background");

/** The programs that a module traces. */
export interface Programs<M> {
  /** Trace, plan and encode the program `name` for `device`. Throws ShapeError, DeviceError. */
  compile<K extends ProgramName<M>>(device: string, name: K, ...args: ProgramArgs<M, K>): Promise<Compiled>;
  /** Floating-point operations of program `name` for each of `counts`; a dim that they leave out is not in use. */
  flops<K extends ProgramName<M>>(counts: readonly Counts[], name: K, ...args: ProgramArgs<M, K>): Promise<number[]>;
}

/** `module` is a file of attune's own, whose exported functions take plain data and trace a program each. */
export const programsOf = <M>({ href }: URL): Programs<M> => ({
  compile: (device, name, ...args) => background.call("compile", [device, href, name, args]),
  flops: (counts, name, ...args) => background.call("flops", [href, name, args, counts]),
});

/** Opens and checks a model folder. Throws DataError. */
export const openModel = (dir: string): Promise<OpenedModel> => background.call("openModel", [dir]);
