// Evaluation in a run: the loss and metrics of held-out rows by the step's own kernels, without gradients. It reads the weights and
// writes nothing, so training is the same with and without it.
import { packStep } from "../data/pack.ts";
import { cutHead, type Micro } from "./engine.ts";
import { EVALUATION_GROUP, type Layout } from "./layout.ts";
import { Sums, type TaskRun } from "./task.ts";

export interface EvaluationHooks {
  readonly signal: AbortSignal;
  onStage(stage: { name: string; done: number; total: number; unit: string }): void;
}

/**
 * Metrics under TRL's names with `eval_` before them, over all rows of `at`: sums divided once, where TRL takes the mean of its batches'
 * means. Undefined where the signal came before the end.
 */
export async function evaluate(micro: Micro, at: Layout, run: TaskRun, hooks: EvaluationHooks): Promise<Record<string, number> | undefined> {
  const start = performance.now();
  const { trees } = at;
  const sums = new Sums();
  let divisor = 0;
  for (let i = 0; i < trees.length; i++) {
    divisor += run.divisor([trees.at(i)]);
    if (i % 1000 === 999) await new Promise((turn) => setImmediate(turn)); // the event loop's
  }
  divisor = Math.max(1, divisor);
  let micros = 0;
  for (let from = 0; from < trees.length; from += EVALUATION_GROUP) {
    const part = Array.from({ length: Math.min(EVALUATION_GROUP, trees.length - from) }, (_, i) => trees.at(from + i));
    for (const batch of packStep(part, at.pack)) {
      if (hooks.signal.aborted) return undefined;
      const fed = cutHead(batch, at.head);
      run.collect(sums, batch, fed, await micro.run(fed, 1 / divisor, run.headInputs(fed, at.head)));
      micros++;
    }
    hooks.onStage({ name: "evaluating", done: from + part.length, total: trees.length, unit: "rows" });
  }
  const seconds = (performance.now() - start) / 1000;
  const metrics = {
    ...run.metrics(sums, divisor),
    runtime: seconds,
    samples_per_second: trees.length / seconds,
    steps_per_second: micros / seconds,
  };
  return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`eval_${name}`, value]));
}
