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

let shares = new Float64Array(0); // of each token in the draw; kept from one to the next, for garbage would be collected beside whoever waits

/** The token drawn for place `place` of sequence `sequence`: a function of the seed and those two alone. Ties go to the lower id. */
export function sampleToken(logits: Float32Array, o: SampleOptions, sequence: number, place: number): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]! || Number.isNaN(logits[i])) best = i; // a NaN stays
  if (!Number.isFinite(logits[best])) throw new NumericError(`sequence ${sequence}: logits must be finite, got ${logits[best]} (its hidden states overflow: try another dtype)`);
  if (o.temperature === 0) return best;
  const top = logits[best]!;
  const { least, equals } = o.topK > 0 || o.topP < 1 ? cut(logits, top, o) : { least: -Infinity, equals: 0 };
  if (shares.length < logits.length) shares = new Float64Array(logits.length);
  let total = 0;
  for (let i = 0, spare = equals; i < logits.length; i++) {
    const x = logits[i]!;
    const kept = x > least || (x === least && spare-- > 0);
    shares[i] = kept ? Math.exp((x - top) / o.temperature) : 0;
    total += shares[i]!;
  }
  const [a, b] = philox([sequence >>> 0, place >>> 0, 0, 0x73616d70], [o.seed >>> 0, 0]);
  let left = (((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992) * total;
  for (let i = 0; i < logits.length; i++) if ((left -= shares[i]!) < 0) return i;
  return best; // rounding left something over
}

/** What top-k and then top-p keep: all logits above `least`, and the first `equals` of those that equal it. */
function cut(logits: Float32Array, top: number, o: SampleOptions): { least: number; equals: number } {
  const sorted = logits.slice().sort().reverse(); // by number, without a comparator: no garbage but this copy
  let count = o.topK > 0 ? Math.min(o.topK, sorted.length) : sorted.length;
  if (o.topP < 1) {
    const weight = (x: number): number => Math.exp((x - top) / o.temperature);
    let total = 0;
    for (let i = 0; i < count; i++) total += weight(sorted[i]!);
    let mass = 0;
    let enough = 0;
    while (enough < count && mass < o.topP * total) mass += weight(sorted[enough++]!);
    count = enough;
  }
  const least = sorted[count - 1]!;
  return { least, equals: count - sorted.indexOf(least) };
}
