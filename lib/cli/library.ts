// The one table of what the commands call in the other rooms: loaded when a command runs, so that `--help` is fast.

export const library = {
  run: () => import("../train/run.ts"),
  plan: () => import("../train/plan_run.ts"),
  profile: () => import("../train/profile_run.ts"),
  inspect: () => import("../train/inspect_run.ts"),
  generate: () => import("../generate/generate.ts"),
  doctor: () => import("../engine/doctor.ts"),
  score: () => import("../evaluate/score.ts"),
};
