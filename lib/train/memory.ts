// The memory that programs of one session need, to the byte, before any of it is allocated; and the refusal of what does not fit.
import { totalmem } from "node:os";
import { OutOfMemoryError } from "../errors.ts";
import { bytes } from "../ir/types.ts";
import type { Plan } from "../passes/plan.ts";
import { bufferBytes, isPrivate } from "../program/program.ts";
import { formatBytes } from "./config_bytes.ts";

/** Bytes by kind: shared buffers by class, private inputs and outputs, the one arena, and their sum. Packed weights come on top. */
export function memoryOf(plans: readonly Plan[]): Record<string, number> & { readonly total_bytes: number } {
  const all = plans.flatMap((p) => [...p.buffers]);
  const shared = new Map(all.filter(([name]) => !isPrivate(name)));
  const own = all.reduce((n, [name, t]) => n + (isPrivate(name) ? bytes(t) : 0), 0);
  const classes = Object.fromEntries([...bufferBytes(shared)].map(([k, v]) => [`${k}_bytes`, v]));
  const arena = Math.max(...plans.map((p) => p.arenaBytes));
  return {
    ...classes,
    inputs_outputs_bytes: own,
    arena_bytes: arena,
    arena_live_bytes: Math.max(...plans.map((p) => p.liveBytes)),
    total_bytes: Object.values(classes).reduce((a, b) => a + b, own + arena),
  };
}

/** Throws OutOfMemoryError where the programs need more than `limit` bytes (null: what the machine has). */
export function refuseIfTooLarge(plans: readonly Plan[], limit: number | null): void {
  const most = limit ?? totalmem();
  const memory = memoryOf(plans);
  if (memory.total_bytes <= most) return;
  const parts = Object.entries(memory)
    .filter(([k]) => k !== "total_bytes" && k !== "arena_live_bytes")
    .sort((a, b) => b[1] - a[1])
    .slice(0, 3)
    .map(([k, v]) => `${k.replace("_bytes", "").replaceAll("_", " ")} ${formatBytes(v)}`);
  const limitName = limit === null ? "the machine's memory" : "memory_limit";
  throw new OutOfMemoryError(
    `memory: the run must fit in ${formatBytes(most)} (${limitName}), it needs ${formatBytes(memory.total_bytes)}: ${parts.join(", ")} (a smaller tokens_per_batch or max_length shrinks the arena)`,
  );
}
