// The scoring pass: log-probabilities of head rows, nothing kept.
import type { MicroBatch } from "../data/pack.ts";
import type { Counts } from "../ir/types.ts";
import type { LoadedProgram, Session } from "../runtime/session.ts";
import { programsOf, type Compiled } from "./background.ts";
import type { LoadedModel } from "./model.ts";
import type { ScoreSizes } from "./programs.ts";

export type Outputs = Record<string, Float32Array>;

export const tokenInputs = (m: MicroBatch): Record<string, Int32Array> => ({ "inputs/ids": m.ids, "inputs/pos": m.pos, "inputs/end": m.end });

const { compile, flops } = programsOf<typeof import("./programs.ts")>(new URL("./programs.js", import.meta.url));

/** Compile the scoring pass; nothing is allocated. */
export const compileScore = ({ session, spec }: LoadedModel, sizes: ScoreSizes): Promise<Compiled> => compile(session.device, "scoreProgram", spec, sizes);

/** Floating-point operations of a scoring pass for each of `counts`. */
export const scoreFlops = ({ spec }: LoadedModel, sizes: ScoreSizes, counts: readonly Counts[]): Promise<number[]> => flops(counts, "scoreProgram", spec, sizes);

/** Log-probabilities of head rows, nothing kept: scoring, evaluation, the reference. */
export class Scorer {
  readonly #session: Session;
  readonly #program: LoadedProgram;

  private constructor(session: Session, program: LoadedProgram) {
    this.#session = session;
    this.#program = program;
  }

  static async create(loaded: LoadedModel, sizes: ScoreSizes): Promise<Scorer> {
    const { bytes } = await compileScore(loaded, sizes);
    return new Scorer(loaded.session, await loaded.session.load(bytes));
  }

  /** Free the program; the weights stay. */
  close(): Promise<void> {
    return this.#session.unload(this.#program);
  }

  /** logp, hit and entropy of every head row of `micro`, in the order of its examples and branches. */
  async score(micro: MicroBatch, signal?: AbortSignal): Promise<{ logp: Float32Array; hit: Float32Array; entropy: Float32Array }> {
    const out = (await this.#session.run(this.#program, {
      counts: { tokens: micro.tokens, rows: micro.rows.length },
      inputs: { ...tokenInputs(micro), "inputs/rows": micro.rows, "inputs/targets": micro.targets },
      ...(signal && { signal }),
    })) as Outputs;
    return { logp: out["outputs/logp"]!, hit: out["outputs/hit"]!, entropy: out["outputs/entropy"]! };
  }
}
