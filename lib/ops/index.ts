// The registry's table of contents: importing this file defines every op.
export * from "./adamw.ts";
export * from "./attention.ts";
export * from "./attention_decode.ts";
export * from "./dpo_loss.ts";
export * from "./gather_rows.ts";
export * from "./gemm.ts";
export * from "./linear_logprob.ts";
export * from "./log_softmax_gather.ts";
export * from "./primitives/elementwise.ts";
export * from "./primitives/reduce.ts";
export * from "./primitives/shape.ts";
export * from "./rms_norm.ts";
export * from "./rope.ts";
export * from "./segment.ts";
export * from "./softmax_shares.ts";
export * from "./sum_rows.ts";
export * from "./swiglu.ts";
