// attention, plain family: y = softmax(scale q k^T) v per head over the visible keys, lse its log-sum-exp.
// source: lib/ops/attention.ts; online softmax as Dao 2023 (arXiv:2307.08691) algorithm 1. tiling: a block has B queries of one
// head (B = 64; 32 for head sizes over 128) and walks tiles of B keys; K and V take turns in one buffer. fp32 FMA throughout.
// budget: 256 threads, under 128 registers, 84 KiB of shared memory (70 KiB over head size 128).
// limits: head sizes to 256. The fp32 kernel; in bf16, what the tensor-core families do not take. measured: not yet.
#include "attention_plain.h"

namespace attune::cuda {
namespace {

using namespace plain;

// Over the 16 threads that share a row.
__device__ float highest_of_row(float x) {
#pragma unroll
  for (int step = kSide / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
__device__ float sum_of_row(float x) {
#pragma unroll
  for (int step = kSide / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

struct ForwardArgs {
  const void *q, *k, *v;
  void* y;
  float* lse;  // (H, N), or null
  AttentionMask mask;
  int32_t heads, kv_heads, size;
  float scale2;
};

template <class T, int R, int Size>
__global__ void __launch_bounds__(kThreads) attention_forward_plain(ForwardArgs a) {
  using Rows = Tile<R, Size>;
  ATTUNE_DYNAMIC_SHARED(shared);
  float* const q = reinterpret_cast<float*>(shared);
  float* const kv = q + Rows::kFloats;
  float* const p = kv + Rows::kFloats;
  const int ty = threadIdx.x / kSide, tx = threadIdx.x % kSide;
  const int32_t head = blockIdx.x % a.heads, kv_head = head / (a.heads / a.kv_heads);
  const int32_t first = blockIdx.x / a.heads * Rows::kRows, last = min(a.mask.rows, first + Rows::kRows);
  const int64_t q_stride = int64_t{a.heads} * a.size, kv_stride = int64_t{a.kv_heads} * a.size;
  const T* const keys = static_cast<const T*>(a.k) + int64_t{kv_head} * a.size;
  const T* const values = static_cast<const T*>(a.v) + int64_t{kv_head} * a.size;
  const AttentionMask mask = a.mask;
  auto inside = [&](int32_t row) { return row < mask.rows; };
  auto seen = [&](int32_t row) { return row < mask.rows && mask.end[row] > row; };

  float out[R][Rows::kColumns], high[R], sum[R];
  clear(out);
#pragma unroll
  for (int r = 0; r < R; ++r) high[r] = -INFINITY, sum[r] = 0;
  Rows::load(q, static_cast<const T*>(a.q) + int64_t{head} * a.size, q_stride, first, a.size, inside);

  for (int32_t key = 0; key < last; key += Rows::kRows) {
    if (!mask.any_visible(first, key)) continue;
    Rows::load(kv, keys, kv_stride, key, a.size, seen);
    __syncthreads();
    float score[R][R];
    Rows::dot(score, q, kv, a.size);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      float top = high[r];
#pragma unroll
      for (int c = 0; c < R; ++c) {
        const int32_t i = first + ty + kSide * r, j = key + tx + kSide * c;
        score[r][c] = inside(i) && mask.visible(i, j) ? score[r][c] * a.scale2 : -INFINITY;
        top = fmaxf(top, score[r][c]);  // NaN leaves it as it is
      }
      top = highest_of_row(top);
      const float base = top == -INFINITY ? 0 : top, shrink = exp2f(high[r] - base);
      float part = 0;
#pragma unroll
      for (int c = 0; c < R; ++c) {
        score[r][c] = exp2f(score[r][c] - base);
        part += score[r][c];
      }
      sum[r] = sum[r] * shrink + part;
      high[r] = top;
#pragma unroll
      for (int c = 0; c < Rows::kColumns; ++c) out[r][c] *= shrink;
    }
    Rows::store_square(p, score);
    __syncthreads();  // everyone has read K
    Rows::load(kv, values, kv_stride, key, a.size, seen);
    __syncthreads();
    Rows::accumulate(out, p, kv);
    __syncthreads();  // V and P may be overwritten
  }

  float factor[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const float total = sum_of_row(sum[r]);
    const bool none = total == 0;
    factor[r] = none ? 0 : 1 / total;
    const int32_t row = first + ty + kSide * r;
    if (a.lse && tx == 0 && row < mask.rows)
      a.lse[int64_t{head} * mask.rows + row] = none ? INFINITY : (high[r] == -INFINITY ? 0 : high[r]) * 0.69314718f + logf(total);
  }
  Rows::write(static_cast<T*>(a.y) + int64_t{head} * a.size, q_stride, first, mask.rows, a.size, out, factor);
}

template <class T, int R, int Size>
void launch(const ForwardArgs& args, Stream& stream) {
  using Rows = Tile<R, Size>;
  const int64_t tiles = (args.mask.rows + int64_t{Rows::kRows} - 1) / Rows::kRows;
  const size_t shared = (2 * Rows::kFloats + Rows::kSquareFloats) * sizeof(float);
  stream.launch("attention_forward_plain", attention_forward_plain<T, R, Size>, static_cast<unsigned>(tiles * args.heads),
                kThreads, shared, args);
}

template <class T>
void launch(const ForwardArgs& args, Stream& stream) {
  if (args.size <= 64) return launch<T, 4, 64>(args, stream);
  if (args.size <= 128) return launch<T, 4, 128>(args, stream);
  launch<T, 2, 256>(args, stream);
}

}  // namespace

void attention_plain(const Attention& a, const AttentionPlan& plan, Stream& stream) {
  const ForwardArgs args = {
      .q = a.q.data,
      .k = a.k.data,
      .v = a.v.data,
      .y = a.y.data,
      .lse = a.lse.as<float>(),
      .mask = plan.mask(),
      .heads = static_cast<int32_t>(plan.heads),
      .kv_heads = static_cast<int32_t>(plan.kv_heads),
      .size = static_cast<int32_t>(plan.size),
      .scale2 = plan.scale2,
  };
  if (a.q.dtype == DType::bf16)
    launch<__nv_bfloat16>(args, stream);
  else
    launch<float>(args, stream);
}

}  // namespace attune::cuda
