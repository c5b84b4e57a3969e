// Compiling the programs of a run, off the caller's thread.
import { programsOf } from "../engine/background.ts";

export const { compile, flops } = programsOf<typeof import("./programs.ts")>(new URL("./programs.js", import.meta.url));
