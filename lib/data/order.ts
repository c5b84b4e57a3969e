// The order of examples: a permutation for each epoch that depends on seed and epoch alone, so that a run can begin anywhere.
// Fisher-Yates over Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), a counter-based generator.

import { setImmediate } from "node:timers/promises";

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** High 32 bits of the product of two unsigned 32-bit numbers. */
function mulHigh(a: number, b: number): number {
  const [aLow, aHigh, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const cross = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(cross / 65536)) >>> 0;
}

/** Philox4x32 with ten rounds: four 32-bit numbers of a counter (4 words) and a key (2 words). */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(M0, c0);
    const low0 = Math.imul(M0, c0) >>> 0;
    const high1 = mulHigh(M1, c2);
    const low1 = Math.imul(M1, c2) >>> 0;
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Draws between two turns of the event loop. */
const TURN = 1024;

/** The order in which epoch `epoch` takes `n` examples; with `shuffle: false` their own order. Uniform up to a bias below n / 2^53. */
export async function epochOrder(
  n: number,
  options: { readonly seed: number; readonly epoch: number; readonly shuffle: boolean },
): Promise<Int32Array> {
  const order = new Int32Array(n);
  for (let i = 0; i < n; i++) order[i] = i;
  if (!options.shuffle) return order;
  const key = [options.seed >>> 0, Math.floor(options.seed / 2 ** 32) >>> 0] as const;
  for (let i = n - 1; i > 0; i--) {
    const [a, b] = philox([i, options.epoch >>> 0, 0, 0x6f726472], key);
    const unit = ((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992;
    const j = Math.floor(unit * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
    if (i % TURN === 0) await setImmediate();
  }
  return order;
}

/** Optimiser steps of an epoch: the last may be short. */
export function stepsPerEpoch(n: number, batchSize: number): number {
  return Math.ceil(n / batchSize);
}

/** Examples of optimiser step `step` (0-based) of an epoch: exactly `batchSize` in the epoch's order, fewer in its last step. */
export function stepExamples(order: Int32Array, step: number, batchSize: number): Int32Array {
  return order.subarray(step * batchSize, Math.min((step + 1) * batchSize, order.length));
}
