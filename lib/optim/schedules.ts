// Learning-rate schedules, as transformers' get_scheduler has them: the factor on `learning_rate` at optimiser step `step` (from 0).

export type Schedule = "constant" | "constant_with_warmup" | "linear" | "cosine";

export interface ScheduleOptions {
  readonly warmupSteps: number;
  /** Optimiser steps of the whole run. */
  readonly totalSteps: number;
}

export function learningRateFactor(schedule: Schedule, step: number, { warmupSteps, totalSteps }: ScheduleOptions): number {
  if (schedule === "constant") return 1; // ignores warm-up, as there
  if (step < warmupSteps) return step / Math.max(1, warmupSteps);
  const progress = (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  switch (schedule) {
    case "constant_with_warmup":
      return 1;
    case "linear":
      return Math.max(0, 1 - progress);
    case "cosine":
      return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
  }
}
