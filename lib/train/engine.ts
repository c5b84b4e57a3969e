// The training programs of a run: compiled for the run's capacities, one call per native step. It knows graphs and buffers; what a step
// means is said in sft_task.ts and dpo_task.ts.
import { chunkRows, type MicroBatch, type RowChunk } from "../data/pack.ts";
import type { Compiled, InstructionCost } from "../engine/background.ts";
import type { LoadedModel } from "../engine/model.ts";
import { tokenInputs, type Outputs } from "../engine/scorer.ts";
import { clipFactor, type AdamwOptions } from "../optim/adamw.ts";
import type { DType } from "../ir/types.ts";
import type { LoadedProgram, RunOptions, Session } from "../runtime/session.ts";
import { compile } from "./compile.ts";
import type { Kept, LossSpec, Sizes } from "./programs.ts";

/** How a micro-batch's head is cut: bounded logits, aligned to examples where an example's loss needs all its rows at once. */
export interface HeadPlan {
  readonly sizes: Sizes;
  readonly kept: Kept;
  readonly align: boolean;
}

/** How work is cut for a device: pieces that fit a CPU's caches, or that fill a GPU. */
export interface Grain {
  /** Micro-batches of about this many tokens cost no speed and keep activations small. */
  readonly tokens: number;
  /** What a chunk of the head keeps. */
  readonly chunkBytes: number;
  /** What is kept of one example rather than computed twice. */
  readonly keptBytes: number;
  /** What the head keeps, and the bytes of it a logit. */
  readonly kept: Exclude<Kept, "nothing">;
  readonly logitBytes: number;
}
const MIB = 2 ** 20;
/**
 * A GPU's follows its memory: 16,384 tokens and 2.5 GiB of logits on one of 80 GiB, 4,096 and 0.75 GiB on one of 24. More logits at once gain
 * nothing and may lose: 4 GiB, 6,560 rows of a 0.5B model, brought an H200's product down from 750 to 582 TFLOP/s (bench/results).
 */
export function grainOf({ device, deviceMemory, fusesHead }: Pick<Session, "device" | "deviceMemory" | "fusesHead">, dtype: DType): Grain {
  // A fused head leaves exponentials in bf16 where logits would be fp32, written by the product and read twice more.
  const head = fusesHead && dtype === "bfloat16" ? ({ kept: "shares", logitBytes: 2 } as const) : ({ kept: "logits", logitBytes: 4 } as const);
  if (device !== "cuda") return { tokens: 640, chunkBytes: 32 * MIB, keptBytes: 96 * MIB, ...head };
  const chunkBytes = Math.min(2560 * MIB, Math.max(256 * MIB, deviceMemory / 32));
  return { tokens: 2 ** Math.floor(Math.log2(Math.max(2048, deviceMemory / (4 * MIB)))), chunkBytes, keptBytes: 2 * chunkBytes, ...head };
}

/** With a large vocabulary fewer rows than this pay too much for adding up the head's gradient once a chunk. */
const LEAST_ROWS = 128;

/** `rows` and `examples` are the most that any micro-batch can have; `longest` the most rows of one example. */
export function planHead(grain: Grain, vocab: number, tokens: number, rows: number, examples: number, longest: number, loss: LossSpec["kind"]): HeadPlan {
  const row = grain.logitBytes * vocab;
  const byBytes = Math.max(LEAST_ROWS, Math.floor(grain.chunkBytes / row / 16) * 16);
  const together = loss === "dpo"; // an example's loss needs all its rows
  const kept = !together || longest * row <= grain.keptBytes ? grain.kept : "nothing";
  const align = together && kept !== "nothing";
  const most = Math.max(1, Math.min(rows, align ? Math.max(byBytes, longest) : byBytes));
  // An aligned chunk is full when the next example does not fit: with more than most - longest rows, and two neighbours with more than most.
  const least = align ? Math.max(most - longest + 1, most / 2) : most;
  const chunks = rows <= most ? 1 : align ? Math.floor((rows - 1) / least) + 1 : Math.ceil(rows / most);
  // No larger than so many chunks need: a GPU computes all of a chunk, whatever is in use.
  const even = align ? Math.floor((rows - 1) / chunks) + longest : Math.ceil(rows / chunks);
  return { sizes: { tokens, rows: Math.min(most, Math.ceil(even / 16) * 16), examples, chunks }, kept, align };
}

/** One micro-batch cut for its program. */
export interface Fed {
  readonly micro: MicroBatch;
  readonly chunks: readonly RowChunk[];
}

export function cutHead(micro: MicroBatch, head: HeadPlan): Fed {
  const { rows, examples } = head.sizes;
  return { micro, chunks: chunkRows(micro, { maxRows: rows, maxExamples: examples, align: head.align }) };
}

export interface TrainingPlans {
  readonly micro: Compiled;
  readonly norm: Compiled;
  readonly update: Compiled;
  readonly evaluation?: Compiled;
}
export interface Heads {
  readonly training: HeadPlan;
  readonly evaluation: HeadPlan | undefined;
}

/** Compile a run's forward and loss, with its backward (`microStep`) or alone. */
export const compileStep = ({ session, spec }: LoadedModel, step: "microStep" | "evaluationStep", head: HeadPlan, loss: LossSpec): Promise<Compiled> =>
  compile(session.device, step, spec, head.sizes, loss, head.kept);

/** Compile the programs of a run; nothing is allocated. */
export async function compileTraining(loaded: LoadedModel, heads: Heads, loss: LossSpec, adam: AdamwOptions): Promise<TrainingPlans> {
  const { session, spec } = loaded;
  return {
    micro: await compileStep(loaded, "microStep", heads.training, loss),
    norm: await compile(session.device, "normProgram", spec.parameters),
    update: await compile(session.device, "updateProgram", spec.parameters, spec.dtype, adam),
    ...(heads.evaluation && { evaluation: await compileStep(loaded, "evaluationStep", heads.evaluation, loss) }),
  };
}

/** A program over micro-batches, and how the head is cut for it. */
export class Micro {
  readonly head: HeadPlan;
  readonly program: LoadedProgram;
  /** Runs that were profiled. */
  profiled = 0;

  constructor(program: LoadedProgram, head: HeadPlan) {
    this.program = program;
    this.head = head;
  }

  /** Run one micro-batch; `inputs` beside the tokens. Returns the program's outputs. */
  async run(fed: Fed, scale: number, extra: Record<string, Int32Array | Float32Array>, options: Pick<RunOptions, "profile" | "signal" | "overwrite"> = {}): Promise<Outputs> {
    if (options.profile) this.profiled++;
    const counts: Record<string, number> = { tokens: fed.micro.tokens };
    const inputs: Record<string, Int32Array | Float32Array> = { ...tokenInputs(fed.micro), "inputs/scale": Float32Array.of(scale), ...extra };
    const none = new Int32Array(0);
    for (let k = 0; k < this.head.sizes.chunks; k++) {
      const c = fed.chunks[k];
      counts[`rows.${k}`] = c ? c.rowEnd - c.rowStart : 0;
      inputs[`inputs/rows.${k}`] = c ? fed.micro.rows.subarray(c.rowStart, c.rowEnd) : none;
      inputs[`inputs/targets.${k}`] = c ? fed.micro.targets.subarray(c.rowStart, c.rowEnd) : none;
    }
    for (const d of this.program.dims)
      if (d.name.startsWith("pairs.")) counts[d.name] = extra[`inputs/ref_chosen.${d.name.slice(6)}`]!.length;
    return (await this.program.session.run(this.program, { counts, inputs, ...options })) as Outputs;
  }
}

/** What an instruction took, over all `runs` of its program. */
export interface Timing extends InstructionCost {
  readonly op: string;
  readonly nanoseconds: number;
  readonly runs: number;
}

/** The training programs of a run. */
export class Engine {
  readonly loaded: LoadedModel;
  /** Forward, loss and backward of a micro-batch. */
  readonly training: Micro;
  /** Forward and loss alone, where the run evaluates. */
  readonly evaluation: Micro | undefined;
  /** Time every instruction, as RunOptions says; `timings` reads the sums. */
  profile: NonNullable<RunOptions["profile"]> = false;
  readonly #norm: LoadedProgram;
  readonly #update: LoadedProgram;
  readonly #adam: AdamwOptions;
  readonly #costs: Record<"micro" | "norm" | "update", readonly InstructionCost[]>;
  #profiled = 0;

  private constructor(loaded: LoadedModel, training: Micro, evaluation: Micro | undefined, norm: LoadedProgram, update: LoadedProgram, adam: AdamwOptions, { micro, norm: ofNorm, update: ofUpdate }: TrainingPlans) {
    this.loaded = loaded;
    this.training = training;
    this.evaluation = evaluation;
    this.#norm = norm;
    this.#update = update;
    this.#adam = adam;
    this.#costs = { micro: micro.costs, norm: ofNorm.costs, update: ofUpdate.costs };
  }

  /** Allocates what `plans` need in the session. */
  static async create(loaded: LoadedModel, heads: Heads, plans: TrainingPlans, adam: AdamwOptions): Promise<Engine> {
    const { session } = loaded;
    const training = new Micro(await session.load(plans.micro.bytes), heads.training);
    const [norm, update] = [await session.load(plans.norm.bytes), await session.load(plans.update.bytes)];
    const evaluation = plans.evaluation && new Micro(await session.load(plans.evaluation.bytes), heads.evaluation!);
    return new Engine(loaded, training, evaluation, norm, update, adam, plans);
  }

  /** The norm of the accumulated gradient. */
  async gradNorm(): Promise<number> {
    if (this.profile) this.#profiled++;
    const out = await this.loaded.session.run(this.#norm, { profile: this.profile });
    return Math.sqrt((out["outputs/sum_squares"] as Float32Array)[0]!);
  }

  /** One AdamW update (`t` counts from 1) from the accumulated gradient. */
  async update(t: number, lr: number, norm: number, maxGradNorm: number): Promise<void> {
    const { beta1, beta2 } = this.#adam;
    await this.loaded.session.run(this.#update, {
      profile: this.profile,
      inputs: {
        "inputs/scale": Float32Array.of(clipFactor(norm, maxGradNorm)),
        "inputs/lr": Float32Array.of(lr),
        "inputs/bias1": Float32Array.of(1 - beta1 ** t),
        "inputs/bias2": Float32Array.of(1 - beta2 ** t),
      },
    });
  }

  /** Nanoseconds of each instruction of a step's three programs while `profile` was set, and what it does each time with every capacity in use. */
  async timings(): Promise<Timing[]> {
    const rows: Timing[] = [];
    for (const [name, program, runs] of [["micro", this.training.program, this.training.profiled], ["norm", this.#norm, this.#profiled], ["update", this.#update, this.#profiled]] as const) {
      const times = await this.loaded.session.profile(program);
      rows.push(...program.instructions.map((c, i) => ({ ...this.#costs[name][i]!, op: c.op, nanoseconds: times[i]!, runs })));
    }
    return rows;
  }
}
