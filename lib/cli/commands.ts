// The commands, in the order in which `--help` lists them. Each is loaded when it is named.

import type { Command } from "./command.ts";

interface Entry {
  readonly summary: string;
  load(): Promise<{ readonly command: Command }>;
}

export const COMMANDS: Readonly<Record<string, Entry>> = {
  sft: { summary: "fine-tune a model on texts, answers or conversations", load: () => import("./sft.ts") },
  dpo: { summary: "align a model with pairs of a preferred and a rejected answer", load: () => import("./dpo.ts") },
  chat: { summary: "talk to a model", load: () => import("./chat.ts") },
  generate: { summary: "let a model go on from texts, or answer questions", load: () => import("./generate.ts") },
  score: { summary: "print the log-probability of each token of each row", load: () => import("./score.ts") },
  inspect: { summary: "show the rows of a run, with the trained tokens marked", load: () => import("./inspect.ts") },
  plan: { summary: "say what memory and time a run needs, before it starts", load: () => import("./plan.ts") },
  profile: { summary: "measure every kernel of a step beside the machine's limit", load: () => import("./profile.ts") },
  init: { summary: "make a model with random weights", load: () => import("./init.ts") },
  doctor: { summary: "say what attune found on this machine, and what to do about the rest", load: () => import("./doctor.ts") },
  build: { summary: "build the native part anew, for NVIDIA GPUs too", load: () => import("./build.ts") },
};
