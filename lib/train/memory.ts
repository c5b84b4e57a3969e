// The memory that a run's programs need, to the byte, before any of it is taken; and the refusal of what does not fit.
import { OutOfMemoryError } from "../errors.ts";
import { formatBytes } from "./config_bytes.ts";
import type { Compiled } from "../engine/background.ts";
import { memoryLimit, memoryOf, type Memory } from "../engine/memory.ts";
import type { LoadedModel } from "../engine/model.ts";
import type { ScoreSizes } from "../engine/programs.ts";
import { compileScore } from "../engine/scorer.ts";

/**
 * What a run needs at its peak: its programs, and the passes that score the reference first: in the same session, or (`reference` is
 * another model) in one of their own, which is closed before training takes its memory.
 */
export async function memoryOfRun(loaded: LoadedModel, plans: readonly Compiled[], scored: readonly ScoreSizes[], reference: LoadedModel = loaded): Promise<Memory> {
  const scoring = await Promise.all(scored.map((sizes) => compileScore(reference, sizes)));
  if (reference === loaded) return memoryOf(loaded.session, [...plans, ...scoring]);
  const [training, before] = [await memoryOf(loaded.session, plans), await memoryOf(reference.session, scoring)];
  return { ...training, total_bytes: Math.max(training.total_bytes, before.total_bytes) };
}

/** What takes the most, largest first. */
function largest(memory: Memory): string {
  return Object.entries(memory)
    .filter(([k]) => k !== "total_bytes")
    .sort((a, b) => b[1] - a[1])
    .slice(0, 3)
    .map(([k, v]) => `${k.replace("_bytes", "").replaceAll("_", " ")} ${formatBytes(v)}`)
    .join(", ");
}

/** How a run's activations follow the tokens of a micro-batch: those chosen, those of the longest example, and bytes for any number. */
export interface Shrinking {
  readonly tokens: number;
  readonly longest: number;
  activations(tokens: number): Promise<number>;
}

type Device = { readonly device: string; readonly deviceMemory: number };

/** Why a run that needs more than `given` bytes (null: what the machine or its GPU has) is refused, and what would fit; null where it fits. */
export async function refusal(memory: Memory, given: number | null, on: Device, by: Shrinking): Promise<string | null> {
  const most = memoryLimit(given, on);
  if (memory.total_bytes <= most) return null;
  const what = `memory: the run must fit in ${formatBytes(most)} (${most === given ? "memory_limit" : on.deviceMemory > 0 ? `the memory of device ${on.device}` : "the machine's memory"}), got one that needs ${formatBytes(memory.total_bytes)}`;
  return `${what}: ${largest(memory)} (${await mend(most - (memory.total_bytes - memory.activations_bytes), by)})`;
}

/** Throws OutOfMemoryError where there is such a refusal. */
export async function refuseIfTooLarge(memory: Memory, given: number | null, on: Device, by: Shrinking): Promise<void> {
  const why = await refusal(memory, given, on, by);
  if (why) throw new OutOfMemoryError(why);
}

/** What would fit in `room` bytes of activations: the largest capacity, halving, then by eighths. */
async function mend(room: number, { tokens, longest, activations }: Shrinking): Promise<string> {
  const fits = async (t: number): Promise<boolean> => (await activations(t)) <= room;
  const smaller = "a smaller model or more memory is needed";
  if (room <= 0) return `all that does not depend on the rows takes more alone: ${smaller}`;
  let most = Math.floor(tokens / 2);
  while (most >= 16 && !(await fits(most))) most = Math.floor(most / 2);
  if (most < 16) return `no micro-batch of 16 tokens fits: ${smaller}`;
  for (let step = Math.floor(most / 2), n = 0; n < 3; n++, step = Math.floor(step / 2)) if (await fits(most + step)) most += step;
  return most >= longest ? `tokens_per_batch: ${most} would fit` : `examples of at most ${most} tokens would fit, the longest has ${longest}: lower max_length`;
}
