// The flat program: what a device runs. Buffers by name, places in one arena, instructions in order.
import type { OpDef } from "../ir/op.ts";
import { show, type Capacity, type Type } from "../ir/types.ts";

/** Where a value lives: the arena (at `offset`), or a named buffer. */
export interface Slot {
  readonly space: "arena" | { readonly buffer: string };
  readonly offset: number;
  readonly type: Type;
}

/** A buffer of a session. One that is part of another lies in that, from `offset` bytes on, and has no memory of its own. */
export interface Buffer extends Type {
  readonly within?: { readonly buffer: string; readonly offset: number };
}

export interface Instruction {
  readonly def: OpDef;
  /** Path in the model, such as `layers.3/attention`. */
  readonly name: string;
  /** Inputs, optional inputs, outputs, in the op's order; undefined where absent. */
  readonly slots: readonly (Slot | undefined)[];
  /** number, boolean and numbers attributes, in the op's order. */
  readonly params: readonly (number | readonly number[])[];
  readonly scratch: { readonly offset: number; readonly bytes: number };
}

export interface Program {
  readonly dims: readonly Capacity[];
  /** A whole stands before its parts. */
  readonly buffers: ReadonlyMap<string, Buffer>;
  readonly instructions: readonly Instruction[];
  readonly arenaBytes: number;
  /** Largest sum of bytes alive at one instruction: what no plan can go below. */
  readonly liveBytes: number;
  /** The largest scratch of one instruction. */
  readonly scratchBytes: number;
}

/** Buffers that belong to one program: their shapes follow its capacities. Everything else is shared by name in a session. */
export const isPrivate = (name: string): boolean => name.startsWith("inputs/") || name.startsWith("outputs/");

/** One line per instruction. */
export function printProgram(p: Program): string {
  const place = ({ space, offset }: Slot): string => (space === "arena" ? `@${offset}` : space.buffer);
  const ref = (s: Slot | undefined): string => (s ? `${place(s)}:${show(s.type)}` : "-");
  return p.instructions
    .map((c, i) => {
      const scratch = c.scratch.bytes ? ` scratch=@${c.scratch.offset}+${c.scratch.bytes}` : "";
      return `${String(i).padStart(4)} ${c.name} ${c.slots.map(ref).join(" ")}${scratch}`;
    })
    .join("\n");
}
