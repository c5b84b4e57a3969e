// Short words for the test data that ops declare with themselves.
import type { BenchSizes, SampleInput } from "../ir/op.ts";

/** Standard normal floats in the dtype under test. */
export const normal = (...shape: number[]): SampleInput => ({ shape, dtype: "flex", values: "normal" });
/** Floats in [0.5, 2) in the dtype under test. */
export const positive = (...shape: number[]): SampleInput => ({ shape, dtype: "flex", values: "positive" });
/** Standard normal floats, float32 whatever the dtype under test: statistics, log-probs, masters. */
export const normal32 = (...shape: number[]): SampleInput => ({ shape, dtype: "float32", values: "normal" });
export const positive32 = (...shape: number[]): SampleInput => ({ shape, dtype: "float32", values: "positive" });
/** Given float32 values. */
export const floats = (shape: number[], values: readonly number[]): SampleInput => ({ shape, dtype: "float32", values });
/** Given integers, one axis. */
export const ints = (values: readonly number[]): SampleInput => ({ shape: [values.length], dtype: "int32", values });

/** `n` integers in [0, below), far from one another: tokens and rows of a bench. */
export const scattered = (n: number, below: number): SampleInput => ints(Array.from({ length: n }, (_, i) => (i * 7919) % below));
/** Weights of a bench. */
export const weight = (...shape: number[]): SampleInput => ({ ...normal(...shape), weight: true });

/**
 * Visible ranges of a bench: `end` and `pos` (N), the window, and the share of the N^2 / 2 pairs that is visible. packed: documents of
 * an eighth; tree: examples of a quarter, half of each the prompt and a quarter each answer; window: one document.
 */
export function masked(d: BenchSizes): { end: SampleInput; pos: SampleInput; window: number; share: number } {
  const n = d.tokens;
  const whole = Math.max(1, Math.ceil(d.mask === "packed" ? n / 8 : d.mask === "tree" ? n / 4 : n));
  const [trunk, branch] = d.mask === "tree" ? [whole >> 1, Math.ceil(whole / 4)] : [whole, whole];
  const end: number[] = [];
  const pos: number[] = [];
  for (let i = 0; i < n; i++) {
    const [start, at] = [i - (i % whole), i % whole];
    const first = at < trunk ? 0 : trunk + branch * Math.floor((at - trunk) / branch);
    end[i] = Math.min(n, start + (at < trunk ? whole : Math.min(whole, first + branch)));
    pos[i] = at < trunk ? at : trunk + at - first;
  }
  const wide = d.window; // read whatever the mask is: a bench learns from it that it may be asked for
  const window = d.mask === "window" ? wide : 0;
  let pairs = 0;
  for (let j = 0; j < n; j++) pairs += window ? Math.min(window, end[j]! - j) : end[j]! - j;
  const counted = window && window < n ? n * window - (window * window) / 2 : (n * n) / 2;
  return { end: ints(end), pos: ints(pos), window, share: pairs / counted };
}
