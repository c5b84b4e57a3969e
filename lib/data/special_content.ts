// Messages that spell a special token: the tokenizer would make a control token of it.

import type { Json } from "./json.ts";
import type { Example, Message } from "./schema.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A pattern of all special tokens, longest first; null where there are none. */
export function specialPattern(tokenizer: Tokenizer): RegExp | null {
  const texts = [...tokenizer.specialIds.keys()].filter((t) => t !== "").sort((a, b) => b.length - a.length);
  return texts.length === 0 ? null : new RegExp(texts.map((t) => t.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"));
}

/** The first special token that a message of the example spells, or null. Plain texts may hold them: they are often rendered already. */
export function contentSpellsSpecial(example: Example, pattern: RegExp | null): string | null {
  if (!pattern) return null;
  const parts =
    example.kind === "language"
      ? [example.content]
      : example.kind === "completion"
        ? [example.prompt, example.completion]
        : [example.prompt, example.chosen, example.rejected];
  for (const part of parts) {
    if (typeof part === "string") continue;
    for (const m of part) {
      const found = inMessage(m, pattern);
      if (found !== null) return found;
    }
  }
  return null;
}

function inMessage(m: Message, pattern: RegExp): string | null {
  for (const [key, v] of m) {
    const found = key === "role" ? null : inValue(v, pattern);
    if (found !== null) return found;
  }
  return null;
}

function inValue(v: Json, pattern: RegExp): string | null {
  if (typeof v === "string") return pattern.exec(v)?.[0] ?? null;
  const parts: Iterable<Json> = Array.isArray(v) ? v : v instanceof Map ? [...v.keys(), ...v.values()] : [];
  for (const part of parts) {
    const found = inValue(part, pattern);
    if (found !== null) return found;
  }
  return null;
}
