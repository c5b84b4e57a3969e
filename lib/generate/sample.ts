// The next token from logits: arg-max at temperature 0, else a draw from the tempered, cut distribution.
import { NumericError } from "../errors.ts";
import { philox } from "../data/order.ts";

export interface SampleOptions {
  /** 0: the likeliest token. */
  readonly temperature: number;
  /** Only the k likeliest; 0: all. */
  readonly topK: number;
  /** Only the likeliest that together have this probability. */
  readonly topP: number;
  readonly seed: number;
}

/** The token drawn for place `place` of sequence `sequence`: a function of the seed and those two alone. Ties go to the lower id. */
export function sampleToken(logits: Float32Array, o: SampleOptions, sequence: number, place: number): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  if (!Number.isFinite(logits[best])) throw new NumericError(`sequence ${sequence}: logits must be finite, got ${logits[best]} (its hidden states overflow: try another dtype)`);
  if (o.temperature === 0) return best;
  const top = logits[best]!;
  let order: number[] = Array.from(logits.keys());
  if (o.topK > 0 || o.topP < 1) {
    order.sort((a, b) => logits[b]! - logits[a]! || a - b);
    if (o.topK > 0) order = order.slice(0, o.topK);
  }
  const weights = order.map((i) => Math.exp((logits[i]! - top) / o.temperature));
  let total = weights.reduce((a, b) => a + b, 0);
  if (o.topP < 1) {
    let kept = 0;
    let mass = 0;
    while (kept < weights.length && mass < o.topP * total) mass += weights[kept++]!;
    order.length = kept;
    total = mass;
  }
  const [a, b] = philox([sequence >>> 0, place >>> 0, 0, 0x73616d70], [o.seed >>> 0, 0]);
  let left = (((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992) * total;
  for (const [i, id] of order.entries()) if ((left -= weights[i]!) < 0) return id;
  return order.at(-1)!;
}
