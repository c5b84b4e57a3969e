// The public surface of attune: re-exports and nothing else.
export { AttuneError, ConfigError, DataError, DeviceError, NumericError, OutOfMemoryError, ShapeError, StateError, WriteError } from "./errors.ts";
export { scoreRows, type Score } from "./evaluate/score.ts";
export { openGenerator, type Completion, type Generator, type Prompt, type Sampling } from "./generate/generate.ts";
export { initModel, type InitOptions } from "./io/init.ts";
export type { DpoOptions, SftOptions } from "./train/config.ts";
export { runTraining } from "./train/run.ts";
export { DPOTrainer, SFTTrainer } from "./train/trainers.ts";
export type { StepMetrics } from "./train/trainer.ts";
