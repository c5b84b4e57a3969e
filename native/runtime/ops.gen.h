// Generated from the op registry by `npm run generate`. Do not edit.
#pragma once
#include "tensor.h"

namespace attune {

struct Adamw {
  Tensor g, m, v, scale, lr, bias1, bias2;
  Tensor w, master;  // optional
  Tensor w2, master2, m2, v2, g2;  // out
  double beta1;
  double beta2;
  double eps;
  double decay;
};

struct Add {
  Tensor a, b;
  Tensor y;  // out
};

struct Attention {
  Tensor q, k, v, end;
  Tensor pos;  // optional
  Tensor y, lse;  // out
  double scale;
  double window;
};

struct AttentionBackward {
  Tensor q, k, v, end, y, lse, dy;
  Tensor pos;  // optional
  Tensor dq, dk, dv;  // out
  double scale;
  double window;
};

struct AttentionDecode {
  Tensor q, k, v, len;
  Tensor y;  // out
  double scale;
  double window;
};

struct Broadcast {
  Tensor x;
  Tensor y;  // out
};

struct CacheWrite {
  Tensor cache, x, slot, place;
  Tensor y;  // out
};

struct Cast {
  Tensor x;
  Tensor y;  // out
};

struct Div {
  Tensor a, b;
  Tensor y;  // out
};

struct DpoLoss {
  Tensor chosen, rejected, ref_chosen, ref_rejected;
  Tensor loss;  // out
  double beta;
  double label_smoothing;
};

struct DpoLossBackward {
  Tensor chosen, rejected, ref_chosen, ref_rejected, dloss;
  Tensor dchosen, drejected;  // out
  double beta;
  double label_smoothing;
};

struct Equal {
  Tensor a, b;
  Tensor y;  // out
};

struct Exp {
  Tensor x;
  Tensor y;  // out
};

struct Fill {
  Tensor y;  // out
  double value;
};

struct GatherRows {
  Tensor x, idx;
  Tensor y;  // out
};

struct GatherRowsBackward {
  Tensor idx, start, length, order, dy;
  Tensor onto_dx;  // optional
  Tensor dx;  // out
};

struct Gemm {
  Tensor a, b;
  Tensor bias, onto;  // optional
  Tensor y;  // out
  double ta;
  double tb;
};

struct IndexTranspose {
  Tensor idx;
  Tensor start, length, order;  // out
};

struct Iota {
  Tensor y;  // out
};

struct Less {
  Tensor a, b;
  Tensor y;  // out
};

struct LinearLogprob {
  Tensor hidden, weight, targets;
  Tensor logp, lse, entropy, hit;  // out
};

struct Log {
  Tensor x;
  Tensor y;  // out
};

struct LogSigmoid {
  Tensor x;
  Tensor y;  // out
};

struct LogSoftmaxGather {
  Tensor logits, targets;
  Tensor logp, lse, entropy, hit;  // out
};

struct LogSoftmaxGatherBackward {
  Tensor logits, targets, lse, dlogp;
  Tensor dlogits;  // out
};

struct Max {
  Tensor a, b;
  Tensor y;  // out
};

struct Mul {
  Tensor a, b;
  Tensor y;  // out
};

struct QkvRope {
  Tensor qkv, cos, sin;
  Tensor q_norm, k_norm;  // optional
  Tensor q, k, v, rstd;  // out
  double eps;
};

struct QkvRopeBackward {
  Tensor cos, sin, dq, dk, dv;
  Tensor qkv, q_norm, k_norm, rstd, onto_dq_norm, onto_dk_norm;  // optional
  Tensor dqkv, dq_norm, dk_norm;  // out
  double eps;
};

struct ReduceSum {
  Tensor x;
  Tensor y;  // out
  Doubles axes;
};

struct RmsNorm {
  Tensor x, w;
  Tensor y, rstd;  // out
  double eps;
};

struct RmsNormBackward {
  Tensor x, w, rstd, dy;
  Tensor onto_dx, onto_dw;  // optional
  Tensor dx, dw;  // out
  double eps;
};

struct RopeTable {
  Tensor pos;
  Tensor cos, sin;  // out
  Doubles freq;
};

struct Rsqrt {
  Tensor x;
  Tensor y;  // out
};

struct SegmentGather {
  Tensor x, seg;
  Tensor y;  // out
};

struct SegmentSum {
  Tensor x, seg;
  Tensor y;  // out
};

struct Select {
  Tensor m, a, b;
  Tensor y;  // out
};

struct SumRows {
  Tensor x;
  Tensor onto;  // optional
  Tensor y;  // out
};

struct SumSquares {
  Tensor x;
  Tensor onto;  // optional
  Tensor y;  // out
};

struct Swiglu {
  Tensor x;
  Tensor y;  // out
};

struct SwigluBackward {
  Tensor x, dy;
  Tensor dx;  // out
};

// X(opcode, name, Struct, slots)
#define ATTUNE_OPS(X) \
  X(0, adamw, Adamw) \
  X(1, add, Add) \
  X(2, attention, Attention) \
  X(3, attention_backward, AttentionBackward) \
  X(4, attention_decode, AttentionDecode) \
  X(5, broadcast, Broadcast) \
  X(6, cache_write, CacheWrite) \
  X(7, cast, Cast) \
  X(8, div, Div) \
  X(9, dpo_loss, DpoLoss) \
  X(10, dpo_loss_backward, DpoLossBackward) \
  X(11, equal, Equal) \
  X(12, exp, Exp) \
  X(13, fill, Fill) \
  X(14, gather_rows, GatherRows) \
  X(15, gather_rows_backward, GatherRowsBackward) \
  X(16, gemm, Gemm) \
  X(17, index_transpose, IndexTranspose) \
  X(18, iota, Iota) \
  X(19, less, Less) \
  X(20, linear_logprob, LinearLogprob) \
  X(21, log, Log) \
  X(22, log_sigmoid, LogSigmoid) \
  X(23, log_softmax_gather, LogSoftmaxGather) \
  X(24, log_softmax_gather_backward, LogSoftmaxGatherBackward) \
  X(25, max, Max) \
  X(26, mul, Mul) \
  X(27, qkv_rope, QkvRope) \
  X(28, qkv_rope_backward, QkvRopeBackward) \
  X(29, reduce_sum, ReduceSum) \
  X(30, rms_norm, RmsNorm) \
  X(31, rms_norm_backward, RmsNormBackward) \
  X(32, rope_table, RopeTable) \
  X(33, rsqrt, Rsqrt) \
  X(34, segment_gather, SegmentGather) \
  X(35, segment_sum, SegmentSum) \
  X(36, select, Select) \
  X(37, sum_rows, SumRows) \
  X(38, sum_squares, SumSquares) \
  X(39, swiglu, Swiglu) \
  X(40, swiglu_backward, SwigluBackward)

}  // namespace attune
