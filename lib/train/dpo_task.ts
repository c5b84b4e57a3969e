// Direct preference optimisation: a loss per pair from policy and reference log-probabilities (arXiv:2305.18290), TRL's metrics.
import type { MicroBatch } from "../data/pack.ts";
import { trainedCount, type Tree } from "../data/types.ts";
import type { PreferenceLossType } from "../losses/preference.ts";
import type { Outputs } from "../engine/scorer.ts";
import type { Fed, HeadPlan } from "./engine.ts";
import { total, type Sums, type TaskRun } from "./task.ts";

export interface DpoTaskOptions {
  readonly beta: number;
  readonly labelSmoothing: number;
  readonly lossType: PreferenceLossType;
}

/** How far a policy that starts at the reference may be from it, relative to a branch's log-probability (fp32). */
const START = 1e-6;

/** The pairs of each group of outputs: a chunk's, or all where an example's rows may lie in several chunks. */
const groupsOf = (fed: Fed, out: Outputs): readonly { readonly exampleStart: number; readonly exampleEnd: number }[] =>
  out["outputs/loss.1"] || fed.chunks.length <= 1 ? fed.chunks : [{ exampleStart: 0, exampleEnd: fed.micro.examples.length }];

/** `treeOf` and `reference` answer for a row of the data set: its tree, and [chosen, rejected] log-probabilities of the reference. */
export function dpoTask(o: DpoTaskOptions, treeOf: (row: number) => Tree, reference: (row: number) => readonly [number, number]): TaskRun {
  const pairsOf = (fed: Fed, head: HeadPlan): MicroBatch["examples"][] =>
    head.kept !== "nothing"
      ? Array.from({ length: head.sizes.chunks }, (_, k) => {
          const c = fed.chunks[k];
          return c ? fed.micro.examples.slice(c.exampleStart, c.exampleEnd) : [];
        })
      : [fed.micro.examples];
  /** Each pair's log-probabilities. */
  function* policyOf(fed: Fed, out: Outputs): Generator<{ row: number; policy: readonly [number, number] }> {
    for (const [k, { exampleStart, exampleEnd }] of groupsOf(fed, out).entries())
      for (const [i, { row }] of fed.micro.examples.slice(exampleStart, exampleEnd).entries())
        yield { row, policy: [out[`outputs/chosen.${k}`]![i]!, out[`outputs/rejected.${k}`]![i]!] };
  }
  const length = (row: number, side: number): number => trainedCount(treeOf(row).branches[side]!);
  return {
    loss: { kind: "dpo", ...o },
    divisor: (trees) => trees.length,
    headInputs(fed, head) {
      const inputs: Record<string, Int32Array | Float32Array> = {};
      for (let k = 0; k < head.sizes.chunks; k++) {
        const c = fed.chunks[k];
        const branch = c ? fed.micro.branch.subarray(c.rowStart, c.rowEnd) : new Int32Array(0);
        const first = c && head.kept !== "nothing" ? c.exampleStart : 0;
        inputs[`inputs/chosen.${k}`] = branch.map((b) => (b % 2 === 0 ? b / 2 - first : -1));
        inputs[`inputs/rejected.${k}`] = branch.map((b) => (b % 2 === 1 ? (b - 1) / 2 - first : -1));
      }
      pairsOf(fed, head).forEach((pairs, k) => {
        inputs[`inputs/ref_chosen.${k}`] = Float32Array.from(pairs, (e) => reference(e.row)[0]);
        inputs[`inputs/ref_rejected.${k}`] = Float32Array.from(pairs, (e) => reference(e.row)[1]);
        inputs[`inputs/chosen_length.${k}`] = Float32Array.from(pairs, (e) => length(e.row, 0));
        inputs[`inputs/rejected_length.${k}`] = Float32Array.from(pairs, (e) => length(e.row, 1));
      });
      return inputs;
    },
    collect(sums, _micro, fed, out) {
      groupsOf(fed, out).forEach((_, k) => {
        sums.add("loss", total(out[`outputs/loss.${k}`]!));
        for (const name of ["hits", "entropy", "chosen_logits", "rejected_logits"]) sums.add(name, total(out[`outputs/${name}.${k}`]!));
      });
      for (const { row, policy } of policyOf(fed, out)) {
        addPair(sums, o.beta, policy, reference(row));
        sums.add("chosen_tokens", length(row, 0));
        sums.add("rejected_tokens", length(row, 1));
      }
    },
    strays: (fed, out) =>
      [...policyOf(fed, out)].flatMap(({ row, policy }) =>
        policy.flatMap((logp, side) => (Math.abs(logp - reference(row)[side]!) > START * Math.abs(logp) ? [`row ${row} ${side ? "rejected" : "chosen"}`] : [])),
      ),
    metrics: (sums, pairs) => ({ loss: sums.get("loss") / pairs, ...pairMetrics(sums, pairs) }),
  };
}

/** Add one pair's log-probabilities to the sums of the metrics. */
export function addPair(sums: Sums, beta: number, policy: readonly [number, number], reference: readonly [number, number]): void {
  const chosen = beta * (policy[0] - reference[0]);
  const rejected = beta * (policy[1] - reference[1]);
  sums.add("rewards/chosen", chosen);
  sums.add("rewards/rejected", rejected);
  sums.add("rewards/accuracies", chosen > rejected ? 1 : 0);
  sums.add("rewards/margins", chosen - rejected);
  sums.add("logps/chosen", policy[0]);
  sums.add("logps/rejected", policy[1]);
}

const MEANS = ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"];
export function pairMetrics(sums: Sums, pairs: number): Record<string, number> {
  const [chosen, rejected] = [sums.get("chosen_tokens"), sums.get("rejected_tokens")];
  const over = (name: string, count: number): number => sums.get(name) / Math.max(1, count);
  return {
    ...Object.fromEntries(MEANS.map((name) => [name, sums.get(name) / pairs])),
    "logits/chosen": over("chosen_logits", chosen),
    "logits/rejected": over("rejected_logits", rejected),
    mean_token_accuracy: over("hits", chosen),
    entropy: over("entropy", chosen + rejected),
  };
}
