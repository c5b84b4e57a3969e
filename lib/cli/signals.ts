// SIGINT and SIGTERM: the first lets a run save a checkpoint and end, the second ends at once.

import { EXIT } from "./exit.ts";

export interface Stop {
  readonly signal: AbortSignal;
  /** The exit code of the signal that came; undefined before one has. */
  code(): number | undefined;
  release(): void;
}

const CODES = { SIGINT: EXIT.interrupted, SIGTERM: EXIT.terminated } as const;

/** Listens until released. Without `graceful` the first signal ends the process, too. `say` gets a line for people. */
export function watchSignals(graceful: boolean, say: (line: string) => void): Stop {
  const controller = new AbortController();
  let code: number | undefined;
  const on = (name: keyof typeof CODES) => (): void => {
    if (!graceful || code !== undefined) process.exit(CODES[name]);
    code = CODES[name];
    const again = name === "SIGINT" ? "Ctrl-C again" : "a second signal";
    say(`attune: stopping after this step, with a checkpoint; ${again} ends at once`);
    controller.abort();
  };
  const handlers = { SIGINT: on("SIGINT"), SIGTERM: on("SIGTERM") };
  process.on("SIGINT", handlers.SIGINT).on("SIGTERM", handlers.SIGTERM);
  return {
    signal: controller.signal,
    code: () => code,
    release() {
      process.removeListener("SIGINT", handlers.SIGINT).removeListener("SIGTERM", handlers.SIGTERM);
    },
  };
}
