// How the rows of a run meet its programs: the tokens of a micro-batch, the cut of the head, the loss. Training, evaluation and plan ask here.
import type { PackOptions } from "../data/pack.ts";
import { mostRows, type TreeTable } from "../data/tree_table.ts";
import { ConfigError } from "../errors.ts";
import type { DpoConfig, RunConfig, Task } from "./config.ts";
import type { LoadedModel } from "../engine/model.ts";
import { compileStep, grainOf, planHead, type HeadPlan, type Heads } from "./engine.ts";
import type { Shrinking } from "./memory.ts";
import type { LossSpec } from "./programs.ts";

/** Rows that an evaluation packs together. */
export const EVALUATION_GROUP = 64;

/** Some rows, and how they are packed and cut. */
export interface Layout {
  readonly trees: TreeTable;
  readonly pack: PackOptions & { readonly sharePrompt: boolean; readonly rowsPerBatch: number };
  readonly head: HeadPlan;
  /** Tokens of the longest example. */
  readonly longest: number;
}
export interface Layouts {
  readonly training: Layout;
  readonly evaluation: Layout | undefined;
}

/** The layouts of a run that trains on `trees` and evaluates on `held`, where given; `tokens`: as if no example were longer, in micro-batches of that many. */
export function layoutsOf(task: Task, config: RunConfig, { model, session, spec }: LoadedModel, trees: TreeTable, held: TreeTable | undefined, tokens?: number): Layouts {
  const sharePrompt = sharesPrompt(config);
  const grain = grainOf(session, spec.dtype);
  const layout = (of: TreeTable, together: number, key: string): Layout => {
    const examples = Math.min(together, of.length);
    const longest = longestTree(of, sharePrompt);
    const tokensPerBatch = tokens ?? tokensFor(longest, examples, grain.tokens, config.tokensPerBatch, key);
    const rowsPerBatch = tokens ?? mostRows(of, tokensPerBatch, sharePrompt);
    const head = planHead(grain, model.config.vocabSize, tokensPerBatch, rowsPerBatch, examples, Math.min(mostRows(of, 0, sharePrompt), rowsPerBatch), task);
    return { trees: of, pack: { tokensPerBatch, rowsPerBatch, sharePrompt }, head, longest: longest.tokens };
  };
  return { training: layout(trees, config.batchSize, "dataset"), evaluation: held && layout(held, EVALUATION_GROUP, "eval_dataset") };
}

export const headsOf = ({ training, evaluation }: Layouts): Heads => ({ training: training.head, evaluation: evaluation?.head });

/** The layouts that there are. */
export const setsOf = ({ training, evaluation }: Layouts): readonly Layout[] => (evaluation ? [training, evaluation] : [training]);

/** Whether the branches of an example share its prompt: `prompt_trees`, which SFT has no use for. */
const sharesPrompt = (config: RunConfig): boolean => !("promptTrees" in config) || config.promptTrees;

/** The loss that a configuration names. */
export function lossOf(task: Task, config: RunConfig): LossSpec {
  if (task === "sft") return { kind: "sft" };
  const { lossType, beta, labelSmoothing } = config as DpoConfig;
  return { kind: "dpo", lossType, beta, labelSmoothing };
}

/** How the activations of a run would shrink with its micro-batches. */
export function shrinking(task: Task, config: RunConfig, loaded: LoadedModel, now: Layouts): Shrinking {
  const loss = lossOf(task, config);
  const sets = setsOf(now);
  const activations = async (tokens: number): Promise<number> => {
    const at = layoutsOf(task, config, loaded, now.training.trees, now.evaluation?.trees, tokens);
    const { arenaBytes } = await compileStep(loaded, "microStep", at.training.head, loss);
    return at.evaluation ? Math.max(arenaBytes, (await compileStep(loaded, "evaluationStep", at.evaluation.head, loss)).arenaBytes) : arenaBytes;
  };
  const most = (of: (layout: Layout) => number): number => Math.max(...sets.map(of));
  return { tokens: most((l) => l.pack.tokensPerBatch), longest: most((l) => l.longest), activations };
}

/** The most tokens that an example takes, and its row. */
function longestTree(trees: TreeTable, shared: boolean): { readonly tokens: number; readonly row: number } {
  let longest = { tokens: 1, row: 0 };
  for (let i = 0; i < trees.length; i++) if (trees.tokens(i, shared) > longest.tokens) longest = { tokens: trees.tokens(i, shared), row: trees.row(i) };
  return longest;
}

/** The given budget, or one that holds every example and packs small ones. */
function tokensFor(longest: { readonly tokens: number; readonly row: number }, examples: number, usual: number, given: number | null, key: string): number {
  const { tokens, row } = longest;
  if (given === null) return Math.max(tokens, Math.min(usual, examples * tokens));
  if (tokens > given)
    throw new ConfigError(`tokens_per_batch: must hold every example, got ${given} and row ${row} of ${key} with ${tokens} tokens (set tokens_per_batch to ${tokens} or more, or max_length lower)`);
  return given;
}
