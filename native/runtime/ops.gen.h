// Generated from the op registry by `npm run generate`. Do not edit.
#pragma once
#include <cstdint>

#include "tensor.h"

#define ATTUNE_OP_INFO

namespace attune {

struct Adamw {
  Tensor g, m, v, scale, lr, bias1, bias2, w;
  Tensor master;  // optional
  Tensor w2, master2, m2, v2;  // out
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
  Tensor q, k, v, end;
  Tensor pos, y, lse, dy;  // optional
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
  Tensor chosen, rejected, ref_chosen, ref_rejected;
  Tensor dloss;  // optional
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
  Tensor idx;
  Tensor start, length, order, dy, onto_dx;  // optional
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
  Tensor logp, lse, entropy, hit, mean, shares, tops;  // out
  double keep;
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
  Tensor logp, lse, entropy, hit, mean;  // out
};

struct LogSoftmaxGatherBackward {
  Tensor logits, targets;
  Tensor lse, dlogp;  // optional
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
  double heads;
  double kv_heads;
  double eps;
};

struct QkvRopeBackward {
  Tensor cos, sin;
  Tensor q_norm, k_norm, qkv, rstd, dq, dk, dv, onto_dq_norm, onto_dk_norm;  // optional
  Tensor dqkv, dq_norm, dk_norm;  // out
  double heads;
  double kv_heads;
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
  Tensor x, w;
  Tensor rstd, dy, onto_dx, onto_dw;  // optional
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

struct SoftmaxSharesBackward {
  Tensor shares, tops, targets, lse, logp, dlogp;
  Tensor dlogits;  // out
};

struct SumRows {
  Tensor x;
  Tensor onto;  // optional
  Tensor y;  // out
};

struct SumSquares {
  Tensor x;
  Tensor y;  // out
};

struct Swiglu {
  Tensor x;
  Tensor y;  // out
};

struct SwigluBackward {
  Tensor x;
  Tensor dy;  // optional
  Tensor dx;  // out
};

// X(opcode, name, Struct)
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
  X(37, softmax_shares_backward, SoftmaxSharesBackward) \
  X(38, sum_rows, SumRows) \
  X(39, sum_squares, SumSquares) \
  X(40, swiglu, Swiglu) \
  X(41, swiglu_backward, SwigluBackward)

// A program made for another table is refused.
constexpr uint32_t kTableHash = 3326821799u;

struct OpInfo {
  const char* name;
  int inputs, optionals, outputs;
  const char* params;  // one letter each: 'd' double, 'l' list
  uint32_t onto;       // a bit for each slot that an output is added onto, if it is there
};

constexpr OpInfo kOps[] = {
    {"adamw", 8, 1, 4, "dddd", 0},
    {"add", 2, 0, 1, "", 0},
    {"attention", 4, 1, 2, "dd", 0},
    {"attention_backward", 4, 4, 3, "dd", 0},
    {"attention_decode", 4, 0, 1, "dd", 0},
    {"broadcast", 1, 0, 1, "", 0},
    {"cache_write", 4, 0, 1, "", 0},
    {"cast", 1, 0, 1, "", 0},
    {"div", 2, 0, 1, "", 0},
    {"dpo_loss", 4, 0, 1, "dd", 0},
    {"dpo_loss_backward", 4, 1, 2, "dd", 0},
    {"equal", 2, 0, 1, "", 0},
    {"exp", 1, 0, 1, "", 0},
    {"fill", 0, 0, 1, "d", 0},
    {"gather_rows", 2, 0, 1, "", 0},
    {"gather_rows_backward", 1, 5, 1, "", 32},
    {"gemm", 2, 2, 1, "dd", 8},
    {"index_transpose", 1, 0, 3, "", 0},
    {"iota", 0, 0, 1, "", 0},
    {"less", 2, 0, 1, "", 0},
    {"linear_logprob", 3, 0, 7, "d", 0},
    {"log", 1, 0, 1, "", 0},
    {"log_sigmoid", 1, 0, 1, "", 0},
    {"log_softmax_gather", 2, 0, 5, "", 0},
    {"log_softmax_gather_backward", 2, 2, 1, "", 0},
    {"max", 2, 0, 1, "", 0},
    {"mul", 2, 0, 1, "", 0},
    {"qkv_rope", 3, 2, 4, "ddd", 0},
    {"qkv_rope_backward", 2, 9, 3, "ddd", 1536},
    {"reduce_sum", 1, 0, 1, "l", 0},
    {"rms_norm", 2, 0, 2, "d", 0},
    {"rms_norm_backward", 2, 4, 2, "d", 48},
    {"rope_table", 1, 0, 2, "l", 0},
    {"rsqrt", 1, 0, 1, "", 0},
    {"segment_gather", 2, 0, 1, "", 0},
    {"segment_sum", 2, 0, 1, "", 0},
    {"select", 3, 0, 1, "", 0},
    {"softmax_shares_backward", 6, 0, 1, "", 0},
    {"sum_rows", 1, 1, 1, "", 2},
    {"sum_squares", 1, 0, 1, "", 0},
    {"swiglu", 1, 0, 1, "", 0},
    {"swiglu_backward", 1, 1, 1, "", 0},
};

}  // namespace attune
