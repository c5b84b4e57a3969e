// Drawing the next token: what each setting allows, how often each token comes, and that a draw depends on its own place alone.
import { expect, test } from "vitest";
import { NumericError } from "#lib/errors.js";
import { sampleToken, type SampleOptions } from "#lib/generate/sample.js";

const plain: SampleOptions = { temperature: 1, topK: 0, topP: 1, seed: 7 };
/** Shares 0.4, 0.3, 0.2, 0.1, out of order. */
const logits = Float32Array.from([0.2, 0.4, 0.1, 0.3], Math.log);
const DRAWS = 20_000;

/** How often each token comes, over many places of one sequence. */
function shares(options: Partial<SampleOptions>): number[] {
  const counts = [0, 0, 0, 0];
  for (let place = 0; place < DRAWS; place++) counts[sampleToken(logits, { ...plain, ...options }, 0, place)]!++;
  return counts.map((n) => n / DRAWS);
}
const near = (got: number[], want: number[]): void => got.forEach((share, i) => expect(Math.abs(share - want[i]!)).toBeLessThan(0.015));

test("temperature 0 takes the likeliest; of equals the lower id", () => {
  expect(sampleToken(logits, { ...plain, temperature: 0 }, 0, 0)).toBe(1);
  expect(sampleToken(Float32Array.of(1, 3, 3), { ...plain, temperature: 0 }, 0, 0)).toBe(1);
});
test("temperature 1 draws from the model's own distribution", () => near(shares({}), [0.2, 0.4, 0.1, 0.3]));
test("temperature 2 flattens it", () => {
  const roots = [0.2, 0.4, 0.1, 0.3].map(Math.sqrt);
  const total = roots.reduce((a, b) => a + b);
  near(shares({ temperature: 2 }), roots.map((r) => r / total));
});
test("top_k keeps the k likeliest", () => near(shares({ topK: 2 }), [0, 4 / 7, 0, 3 / 7]));
test("top_p keeps the fewest that reach it", () => {
  near(shares({ topP: 0.65 }), [0, 4 / 7, 0, 3 / 7]);
  near(shares({ topP: 0.75 }), [2 / 9, 4 / 9, 0, 3 / 9]);
});
test("of equals at the cut the lower ids are kept", () => {
  const equals = Float32Array.of(1, 2, 1, 1);
  const drawn = (o: Partial<SampleOptions>): Set<number> => new Set(Array.from({ length: 200 }, (_, place) => sampleToken(equals, { ...plain, ...o }, 0, place)));
  expect(drawn({ topK: 3 })).toEqual(new Set([0, 1, 2]));
  expect(drawn({ topP: 0.6 })).toEqual(new Set([0, 1])); // shares e / (e + 3) = 0.475, 0.175 each
  expect(drawn({ topK: 2, topP: 0.3 })).toEqual(new Set([1]));
});
test("a draw depends on seed, sequence and place, and on nothing else", () => {
  const draws = (seed: number, sequence: number): string => Array.from({ length: 40 }, (_, place) => sampleToken(logits, { ...plain, seed }, sequence, place)).join("");
  expect(draws(7, 0)).toBe(draws(7, 0));
  expect(new Set([draws(7, 0), draws(8, 0), draws(7, 1)]).size).toBe(3);
});
test("logits that are not finite are an error", () => {
  expect(() => sampleToken(Float32Array.of(NaN, 1), { ...plain, temperature: 0 }, 3, 0)).toThrow(NumericError);
  for (const o of [{}, { temperature: 0 }, { topK: 2 }, { topP: 0.5 }]) expect(() => sampleToken(Float32Array.of(1, NaN, 2), { ...plain, ...o }, 3, 0)).toThrow(/got NaN/);
  expect(() => sampleToken(Float32Array.of(1, Infinity), plain, 3, 0)).toThrow(/sequence 3: logits must be finite, got Infinity/);
});
