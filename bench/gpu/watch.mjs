// Clock, power and temperature of the GPU while something runs, from nvidia-smi. Where there is none, nothing.
import { spawn } from "node:child_process";

const ASKED = "clocks.sm,power.draw,temperature.gpu";

/** Begins to watch. `stop()` resolves to the medians {clock_mhz, power_w, celsius} of what was seen, or to {} without nvidia-smi. */
export function watch() {
  const child = spawn("nvidia-smi", ["-i", "0", `--query-gpu=${ASKED}`, "--format=csv,noheader,nounits", "-lms", "50"], { stdio: ["ignore", "pipe", "ignore"] });
  const seen = [];
  let rest = "";
  child.stdout.on("data", (d) => {
    const lines = (rest + d).split("\n");
    rest = lines.pop();
    for (const l of lines) seen.push(l.split(",").map(Number));
  });
  const ended = new Promise((done) => child.on("error", done).on("close", done));
  return {
    async stop() {
      child.kill();
      await ended;
      const good = seen.filter((r) => r.length === 3 && r.every(Number.isFinite));
      if (!good.length) return {};
      const middle = (k) => good.map((r) => r[k]).sort((a, b) => a - b)[good.length >> 1];
      return { clock_mhz: middle(0), power_w: middle(1), celsius: middle(2) };
    },
  };
}
