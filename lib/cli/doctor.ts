// `attune doctor`: what this machine offers, what this build can use of it, and what to do about the rest.

import type { Command } from "./command.ts";
import { library } from "./library.ts";
import { printable } from "./text.ts";

export const command: Command = {
  summary: "Say what attune found on this machine, and what to do about what it did not",
  examples: ["attune doctor", "attune doctor --json"],
  shape: {},
  argument: null,
  async run(_call, io) {
    const { examine } = await library.doctor();
    const found = examine();
    if (io.json) return io.value(found);
    const width = Math.max(...found.lines.map(({ what }) => what.length));
    for (const { what, is, mend } of found.lines) {
      io.text(`${what.padEnd(width)}  ${printable(is)}${mend === null ? "" : `\n${" ".repeat(width)}    -> ${printable(mend)}`}`);
    }
  },
};
