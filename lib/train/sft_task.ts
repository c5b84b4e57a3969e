// Supervised fine-tuning: mean negative log-likelihood of the trained tokens of a step.
import { trainedCount } from "../data/types.ts";
import { total, type TaskRun } from "./task.ts";

export function sftTask(): TaskRun {
  return {
    loss: { kind: "sft" },
    divisor: (trees) => trees.reduce((n, t) => n + t.branches.reduce((m, b) => m + trainedCount(b), 0), 0),
    headInputs: () => ({}),
    collect(sums, _micro, fed, out) {
      fed.chunks.forEach((_, k) => {
        for (const name of ["loss", "hits", "entropy"]) sums.add(name, total(out[`outputs/${name}.${k}`]!));
      });
    },
    metrics: (sums, divisor) => ({
      loss: sums.get("loss"), // divided in the program
      mean_token_accuracy: divisor ? sums.get("hits") / divisor : 0,
      entropy: divisor ? sums.get("entropy") / divisor : 0,
    }),
  };
}
