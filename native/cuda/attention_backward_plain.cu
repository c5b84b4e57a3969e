// attention_backward, plain family. With P = exp(scale q k^T - lse), dS = P (dy v^T - dy . y): dv = P^T dy, dk = scale dS^T q,
// dq = scale dS k. source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691) algorithm 2, as two kernels so that every sum has
// one owner and one order. tiling: 32 x 32. dq: a block has 32 queries of one head and walks the keys; dk, dv: a block has 32 keys
// of one kv head and walks the query heads of its group and the queries. fp32 FMA throughout.
// budget: 256 threads, under 184 registers, 76 KiB of shared memory (142 KiB over head size 128).
// limits: head sizes to 256; over 128 the device must offer 142 KiB of shared memory to a block. measured: not yet.
#include "attention_plain.h"

namespace attune::cuda {
namespace {

using namespace plain;

constexpr int R = 2;

struct BackwardArgs {
  const void *q, *k, *v, *dy;
  void *dq, *dk, *dv;       // each may be null
  const QueryStats* stats;  // (H, head_stats)
  AttentionMask mask;
  int64_t head_stats;
  int32_t heads, kv_heads, size;
  float scale, scale2;
};

// P and dS of one pair; zero where the mask hides it.
struct Pair {
  float p, ds;
};

__device__ Pair gradients(const BackwardArgs& a, float lse2, float delta, int32_t i, int32_t j, float score, float dp) {
  if (i >= a.mask.rows || !a.mask.visible(i, j)) return {0, 0};
  const float p = exp2f(score * a.scale2 - lse2);
  return {p, p * (dp - delta)};
}

// One buffer of shared memory, as tiles.
template <int Size>
struct Room {
  using Rows = Tile<R, Size>;
  float *q, *dy, *k, *v, *p, *ds;

  __device__ explicit Room(uint8_t* shared)
      : q(reinterpret_cast<float*>(shared)),
        dy(q + Rows::kFloats),
        k(dy + Rows::kFloats),
        v(k + Rows::kFloats),
        p(v + Rows::kFloats),
        ds(p + Rows::kSquareFloats) {}
  static constexpr size_t kBytes = (4 * Rows::kFloats + 2 * Rows::kSquareFloats) * sizeof(float);
};

template <class T, int Size>
__global__ void __launch_bounds__(kThreads, 1) attention_dq_plain(BackwardArgs a) {
  using Rows = Tile<R, Size>;
  ATTUNE_DYNAMIC_SHARED(shared);
  const Room<Size> room(shared);
  const int ty = threadIdx.x / kSide, tx = threadIdx.x % kSide;
  const int32_t head = blockIdx.x % a.heads, kv_head = head / (a.heads / a.kv_heads);
  const int32_t first = blockIdx.x / a.heads * Rows::kRows, last = min(a.mask.rows, first + Rows::kRows);
  const int64_t q_stride = int64_t{a.heads} * a.size, kv_stride = int64_t{a.kv_heads} * a.size;
  const int64_t q_at = int64_t{head} * a.size, kv_at = int64_t{kv_head} * a.size;
  const QueryStats* const stats = a.stats + head * a.head_stats;
  const AttentionMask mask = a.mask;
  auto sees = [&](int32_t row) { return row < mask.rows && QueryStats::lse2_of(stats, row) != INFINITY; };
  auto seen = [&](int32_t row) { return row < mask.rows && mask.end[row] > row; };

  float dq[R][Rows::kColumns];
  clear(dq);
  float lse2[R], delta[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    lse2[r] = QueryStats::lse2_of(stats, first + ty + kSide * r);
    delta[r] = QueryStats::delta_of(stats, first + ty + kSide * r);
  }
  Rows::load(room.q, static_cast<const T*>(a.q) + q_at, q_stride, first, a.size, sees);
  Rows::load(room.dy, static_cast<const T*>(a.dy) + q_at, q_stride, first, a.size, sees);
  for (int32_t key = 0; key < last; key += Rows::kRows) {
    if (!mask.any_visible(first, key)) continue;
    Rows::load(room.k, static_cast<const T*>(a.k) + kv_at, kv_stride, key, a.size, seen);
    Rows::load(room.v, static_cast<const T*>(a.v) + kv_at, kv_stride, key, a.size, seen);
    __syncthreads();
    float score[R][R], dp[R][R];
    Rows::dot(score, room.q, room.k, a.size);
    Rows::dot(dp, room.dy, room.v, a.size);
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < R; ++c)
        dp[r][c] = gradients(a, lse2[r], delta[r], first + ty + kSide * r, key + tx + kSide * c, score[r][c], dp[r][c]).ds;
    Rows::store_square(room.ds, dp);
    __syncthreads();
    Rows::accumulate(dq, room.ds, room.k);
    __syncthreads();  // K, V and dS may be overwritten
  }
  const float factor[R] = {a.scale, a.scale};
  Rows::write(static_cast<T*>(a.dq) + q_at, q_stride, first, mask.rows, a.size, dq, factor);
}

template <class T, int Size>
__global__ void __launch_bounds__(kThreads, 1) attention_dkdv_plain(BackwardArgs a) {
  using Rows = Tile<R, Size>;
  ATTUNE_DYNAMIC_SHARED(shared);
  const Room<Size> room(shared);
  const int ty = threadIdx.x / kSide, tx = threadIdx.x % kSide;
  const int32_t group = a.heads / a.kv_heads, kv_head = blockIdx.x % a.kv_heads;
  const int32_t first = blockIdx.x / a.kv_heads * Rows::kRows;
  const int64_t q_stride = int64_t{a.heads} * a.size, kv_stride = int64_t{a.kv_heads} * a.size;
  const int64_t kv_at = int64_t{kv_head} * a.size;
  const AttentionMask mask = a.mask;
  auto seen = [&](int32_t row) { return row < mask.rows && mask.end[row] > row; };

  float dk[R][Rows::kColumns], dv[R][Rows::kColumns];
  clear(dk);
  clear(dv);
  Rows::load(room.k, static_cast<const T*>(a.k) + kv_at, kv_stride, first, a.size, seen);
  Rows::load(room.v, static_cast<const T*>(a.v) + kv_at, kv_stride, first, a.size, seen);
  const int32_t last = min(mask.rows, mask.bounds[first / kMaskBlock].end_high);
  for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const int64_t q_at = int64_t{head} * a.size;
    const QueryStats* const stats = a.stats + head * a.head_stats;
    auto sees = [&](int32_t row) { return row < mask.rows && QueryStats::lse2_of(stats, row) != INFINITY; };
    for (int32_t query = first; query < last; query += Rows::kRows) {
      if (!mask.any_visible(query, first)) continue;
      Rows::load(room.q, static_cast<const T*>(a.q) + q_at, q_stride, query, a.size, sees);
      Rows::load(room.dy, static_cast<const T*>(a.dy) + q_at, q_stride, query, a.size, sees);
      __syncthreads();
      float score[R][R], dp[R][R];  // rows are keys, columns queries
      Rows::dot(score, room.k, room.q, a.size);
      Rows::dot(dp, room.v, room.dy, a.size);
#pragma unroll
      for (int c = 0; c < R; ++c) {
        const int32_t i = query + tx + kSide * c;
        const float lse2 = QueryStats::lse2_of(stats, i), delta = QueryStats::delta_of(stats, i);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const Pair pair = gradients(a, lse2, delta, i, first + ty + kSide * r, score[r][c], dp[r][c]);
          score[r][c] = pair.p, dp[r][c] = pair.ds;
        }
      }
      Rows::store_square(room.p, score);
      Rows::store_square(room.ds, dp);
      __syncthreads();
      Rows::accumulate(dv, room.p, room.dy);
      Rows::accumulate(dk, room.ds, room.q);
      __syncthreads();  // q, dy, P and dS may be overwritten
    }
  }
  const float scales[R] = {a.scale, a.scale}, ones[R] = {1, 1};
  if (a.dk) Rows::write(static_cast<T*>(a.dk) + kv_at, kv_stride, first, mask.rows, a.size, dk, scales);
  if (a.dv) Rows::write(static_cast<T*>(a.dv) + kv_at, kv_stride, first, mask.rows, a.size, dv, ones);
}

template <class T, int Size>
void launch(const BackwardArgs& args, Stream& stream) {
  const int64_t tiles = (args.mask.rows + int64_t{kSide * R} - 1) / (kSide * R);
  if (args.dq)
    stream.launch("attention_dq_plain", attention_dq_plain<T, Size>, static_cast<unsigned>(tiles * args.heads), kThreads,
                  Room<Size>::kBytes, args);
  if (args.dk || args.dv)
    stream.launch("attention_dkdv_plain", attention_dkdv_plain<T, Size>, static_cast<unsigned>(tiles * args.kv_heads), kThreads,
                  Room<Size>::kBytes, args);
}

template <class T>
void launch(const BackwardArgs& args, Stream& stream) {
  if (args.size <= 64) return launch<T, 64>(args, stream);
  if (args.size <= 128) return launch<T, 128>(args, stream);
  launch<T, 256>(args, stream);
}

}  // namespace

void attention_backward_plain(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream) {
  const BackwardArgs args = {
      .q = a.q.data,
      .k = a.k.data,
      .v = a.v.data,
      .dy = a.dy.data,
      .dq = a.dq.data,
      .dk = a.dk.data,
      .dv = a.dv.data,
      .stats = plan.stats,
      .mask = plan.mask(),
      .head_stats = plan.head_stats(),
      .heads = static_cast<int32_t>(plan.heads),
      .kv_heads = static_cast<int32_t>(plan.kv_heads),
      .size = static_cast<int32_t>(plan.size),
      .scale = plan.scale,
      .scale2 = plan.scale2,
  };
  if (a.q.dtype == DType::bf16)
    launch<__nv_bfloat16>(args, stream);
  else
    launch<float>(args, stream);
}

}  // namespace attune::cuda
