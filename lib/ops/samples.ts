// Short words for the test data that ops declare with themselves.
import type { SampleInput } from "../ir/op.ts";

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
