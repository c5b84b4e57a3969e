// What a session needs for its programs, to the byte, before any of it is taken; and what the machine allows.
import { totalmem } from "node:os";
import { Session } from "../runtime/session.ts";
import type { Compiled } from "./background.ts";

/** Bytes by kind, and their sum: all that a session takes. Node itself and the rows, about 100 MB, come on top. */
export interface Memory {
  readonly weights_bytes: number;
  /** Copies of weights in the layout that the matrix products read. */
  readonly packed_weights_bytes: number;
  readonly gradients_bytes: number;
  /** Moments, and fp32 master weights in bf16. */
  readonly optimizer_bytes: number;
  /** The one arena, which all programs share. */
  readonly activations_bytes: number;
  readonly inputs_outputs_bytes: number;
  readonly thread_scratch_bytes: number;
  readonly total_bytes: number;
}

/** What one session needs for these programs. They are loaded into a dry session, which counts as a real one does. */
export async function memoryOf(on: { readonly device: string; readonly threads: number }, plans: readonly Compiled[]): Promise<Memory> {
  await using dry = Session.create({ device: on.device as "cpu", threads: on.threads, dry: true });
  for (const p of plans) await dry.load(p.bytes);
  const of = (cls: string): number => dry.buffers().reduce((n, b) => n + (b.name.startsWith(cls) && !b.part ? b.bytes : 0), 0);
  const named = { weights_bytes: of("weights/"), gradients_bytes: of("grads/"), optimizer_bytes: of("optimizer/") };
  return {
    weights_bytes: named.weights_bytes,
    packed_weights_bytes: dry.derivedBytes,
    gradients_bytes: named.gradients_bytes,
    optimizer_bytes: named.optimizer_bytes,
    activations_bytes: dry.arenaBytes,
    inputs_outputs_bytes: dry.bufferBytes - Object.values(named).reduce((a, b) => a + b, 0),
    thread_scratch_bytes: dry.threadBytes,
    total_bytes: dry.bufferBytes + dry.derivedBytes + dry.arenaBytes + dry.threadBytes,
  };
}

/** Bytes that a run may take: the given limit, else what a GPU has, or what this process may have of the machine. */
export function memoryLimit(given: number | null, on: { readonly deviceMemory: number }): number {
  if (on.deviceMemory > 0) return Math.min(given ?? Infinity, on.deviceMemory);
  const allowed = process.constrainedMemory();
  return given ?? (allowed > 0 ? Math.min(allowed, totalmem()) : totalmem());
}
