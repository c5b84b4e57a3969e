// Finds the prompt of preference rows that only have `chosen` and `rejected`. TRL takes the longest common prefix of characters, which moves the shared
// start of two answers into the prompt and cuts words; these rules do not.

import { sameJson } from "./json.ts";
import type { Json } from "./json.ts";
import type { Message } from "./schema.ts";

const ASSISTANT = "\n\nAssistant:";

/**
 * Texts. With hh-rlhf's turns the prompt ends after the last "\n\nAssistant:" of `chosen` if `rejected` agrees up to there, else after the last one that
 * both share. Without turns it is the common prefix cut back to the last white space: a blank belongs to the completion (" blue"), a line end to the prompt.
 */
export function splitTexts(chosen: string, rejected: string): { prompt: string; chosen: string; rejected: string } {
  let common = 0;
  while (common < chosen.length && common < rejected.length && chosen[common] === rejected[common]) common++;
  const turn = common < ASSISTANT.length ? -1 : chosen.lastIndexOf(ASSISTANT, common - ASSISTANT.length);
  let cut: number;
  if (turn >= 0) cut = turn + ASSISTANT.length;
  else {
    // Something must be left of both, also where one text begins the other.
    cut = Math.min(common, chosen.length - 1, rejected.length - 1);
    while (cut > 0 && !/\s/.test(chosen[cut - 1]!)) cut--;
    if (chosen[cut - 1] === " ") cut--;
    cut = Math.max(cut, 0);
  }
  return { prompt: chosen.slice(0, cut), chosen: chosen.slice(cut), rejected: rejected.slice(cut) };
}

/** Conversations: the leading messages that both share, leaving each at least its last one. */
export function splitConversations(
  chosen: readonly Message[],
  rejected: readonly Message[],
): { prompt: readonly Message[]; chosen: readonly Message[]; rejected: readonly Message[] } {
  const limit = Math.min(chosen.length, rejected.length) - 1;
  let n = 0;
  while (n < limit && sameJson(chosen[n] as Json, rejected[n] as Json)) n++;
  return { prompt: chosen.slice(0, n), chosen: chosen.slice(n), rejected: rejected.slice(n) };
}
