// attention_backward, mma.sync family. With P = exp(scale q k^T - lse), dS = P (dy v^T - dy . y): dv = P^T dy, dk = scale dS^T q,
// dq = scale dS k. source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691) algorithm 2, as two kernels so that every sum has one
// owner and one order. tiling: dq: a block has 64 queries of one head and walks tiles of 64 keys (32 for head sizes over 128). dk,
// dv: a block has 64 keys of one kv head and walks tiles of 64 queries (32 for head sizes over 64) for each query head of the group;
// it computes S^T and dP^T, so that P^T and dS^T are A operands as they stand. Over head size 128 dk and dv are two launches:
// registers hold one of them.
// budget: 128 threads, no spills, 68 KiB of shared memory at size 128, 100 KiB at 256.
// limits: bf16, capability 8.0 and later, head sizes to 256 (padded to 32, 64, 96, 128, 192 or 256); rows that nobody sees must be
// finite. measured: not yet.
#include "attention_mma.h"

namespace attune::cuda {
namespace {

using namespace mma;

struct BackwardArgs {
  const __nv_bfloat16 *q, *k, *v, *dy;
  __nv_bfloat16 *dq, *dk, *dv;  // each may be null
  const QueryStats* stats;      // (H, head_stats)
  AttentionMask mask;
  int64_t head_stats;
  int32_t heads, group, size;
  float scale, scale2;
};

// Queries of a tile that dk and dv walk.
template <int Size>
inline constexpr int kQueries = Size > 64 ? 32 : 64;

// Two tiles that stay and two, of InnerRows rows, that change.
template <int Size, int InnerRows>
struct Room {
  using Outer = Tile<kBlockRows, Size>;
  using Inner = Tile<InnerRows, Size>;
  static constexpr int kBytes = 2 * Outer::kBytes + 2 * Inner::kBytes;
  Outer outer[2];
  Inner inner[2];

  __device__ explicit Room(uint8_t* shared) {
    for (int i = 0; i < 2; ++i) {
      outer[i].data = reinterpret_cast<__nv_bfloat16*>(shared + i * Outer::kBytes);
      inner[i].data = reinterpret_cast<__nv_bfloat16*>(shared + 2 * Outer::kBytes + i * Inner::kBytes);
    }
  }
};

__device__ __forceinline__ void wait_for_tiles() {
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  __syncthreads();
}

template <int Size>
__global__ void __launch_bounds__(kThreads, 1) attention_dq_mma(BackwardArgs a) {
  constexpr int Inner = kKeys<Size>;
  ATTUNE_DYNAMIC_SHARED(shared);
  const Room<Size, Inner> room(shared);
  const auto q = room.outer[0], dy = room.outer[1];
  const auto k = room.inner[0], v = room.inner[1];
  const int32_t rows = a.mask.rows, tiles = (rows + kBlockRows - 1) / kBlockRows;
  const int32_t head = blockIdx.x % a.heads, first = (tiles - 1 - static_cast<int32_t>(blockIdx.x / a.heads)) * kBlockRows;
  const int64_t q_stride = int64_t{a.heads} * a.size, kv_stride = int64_t{a.heads / a.group} * a.size;
  const int64_t q_at = int64_t{head} * a.size, kv_at = int64_t{head / a.group} * a.size;
  const Place place;
  const OwnQueries queries(a.stats + head * a.head_stats, first + place.row);

  float dq[Size / 2];
  clear(dq);
  q.load(a.q + q_at, q_stride, first, rows, a.size);
  dy.load(a.dy + q_at, q_stride, first, rows, a.size);
  for (int32_t key = 0; key < min(rows, first + kBlockRows); key += Inner) {
    if (!a.mask.any_visible(first, key)) continue;
    k.load(a.k + kv_at, kv_stride, key, rows, a.size);
    v.load(a.v + kv_at, kv_stride, key, rows, a.size);
    wait_for_tiles();
    float p[Inner / 2], dp[Inner / 2];
    multiply_transposed<Inner>(p, q, k);
    queries.probabilities(p, a.scale2);
    if (!a.mask.all_visible(first, key, Inner))
      hide<Inner>(p, 0, a.mask, ValuesOfRows<int32_t>{a.mask.end + key}, place.column, queries.row, key + place.column);
    multiply_transposed<Inner>(dp, dy, v);
    queries.differences(p, dp);
    Fragments<Inner> ds;
    ds.pack(p);
    accumulate(dq, ds, k);
    __syncthreads();  // K and V may be overwritten
  }
  ptx::cp_async_wait<0>();
  const float scales[2] = {a.scale, a.scale};
  write<Size>(a.dq + q_at, q_stride, first, rows, a.size, place, dq, scales);
}

template <int Size, bool WantDk, bool WantDv>
__global__ void __launch_bounds__(kThreads, 1) attention_dkdv_mma(BackwardArgs a) {
  constexpr int Inner = kQueries<Size>;
  ATTUNE_DYNAMIC_SHARED(shared);
  const Room<Size, Inner> room(shared);
  const auto k = room.outer[0], v = room.outer[1];
  const auto q = room.inner[0], dy = room.inner[1];
  const int32_t rows = a.mask.rows, kv_heads = a.heads / a.group;
  const int32_t kv_head = blockIdx.x % kv_heads, first = blockIdx.x / kv_heads * kBlockRows;
  const int64_t q_stride = int64_t{a.heads} * a.size, kv_stride = int64_t{kv_heads} * a.size, kv_at = int64_t{kv_head} * a.size;
  const Place place;
  const OwnKeys keys(a.mask, first + place.row);

  float dk[WantDk ? Size / 2 : 1], dv[WantDv ? Size / 2 : 1];
  clear(dk);
  clear(dv);
  k.load(a.k + kv_at, kv_stride, first, rows, a.size);
  v.load(a.v + kv_at, kv_stride, first, rows, a.size);
  const int32_t last = min(rows, a.mask.bounds[first / kMaskBlock].end_high);
  for (int32_t head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head)
    for (int32_t query = first; query < last; query += Inner) {
      if (!a.mask.any_visible(query, first)) continue;
      const int64_t q_at = int64_t{head} * a.size;
      const ValuesOfRows<float> stats = {a.stats[head * a.head_stats + query / QueryStats::kQueries].lse2};
      q.load(a.q + q_at, q_stride, query, rows, a.size);
      dy.load(a.dy + q_at, q_stride, query, rows, a.size);
      wait_for_tiles();
      float p[Inner / 2];
      multiply_transposed<Inner>(p, k, q);
      keys.probabilities(p, a.scale2, stats, place.column);
      if (!a.mask.all_visible(query, first, kBlockRows)) keys.hide(p, a.mask, query + place.column);
      Fragments<Inner> fragments;
      if constexpr (WantDv) {
        fragments.pack(p);
        accumulate(dv, fragments, dy);
      }
      if constexpr (WantDk) {
        float dp[Inner / 2];
        multiply_transposed<Inner>(dp, v, dy);
        keys.differences(p, dp, stats, place.column);
        fragments.pack(p);
        accumulate(dk, fragments, q);
      }
      __syncthreads();  // q and dy may be overwritten
    }
  ptx::cp_async_wait<0>();
  const float scales[2] = {a.scale, a.scale}, ones[2] = {1, 1};
  if constexpr (WantDk)
    if (a.dk) write<Size>(a.dk + kv_at, kv_stride, first, rows, a.size, place, dk, scales);
  if constexpr (WantDv)
    if (a.dv) write<Size>(a.dv + kv_at, kv_stride, first, rows, a.size, place, dv, ones);
}

template <int Size>
void launch(const BackwardArgs& args, Stream& stream) {
  const int64_t tiles = (args.mask.rows + kBlockRows - 1) / kBlockRows;
  const unsigned query_blocks = static_cast<unsigned>(tiles * args.heads);
  const unsigned key_blocks = static_cast<unsigned>(tiles * args.heads / args.group);
  auto key_side = [&](auto kernel) {
    stream.launch("attention_dkdv_mma", kernel, key_blocks, kThreads, Room<Size, kQueries<Size>>::kBytes, args);
  };
  if (args.dq)
    stream.launch("attention_dq_mma", attention_dq_mma<Size>, query_blocks, kThreads, Room<Size, kKeys<Size>>::kBytes, args);
  if constexpr (Size <= 128) {
    if (args.dk || args.dv) key_side(attention_dkdv_mma<Size, true, true>);
  } else {
    if (args.dk) key_side(attention_dkdv_mma<Size, true, false>);
    if (args.dv) key_side(attention_dkdv_mma<Size, false, true>);
  }
}

}  // namespace

void attention_backward_mma(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream) {
  const BackwardArgs args = {
      .q = a.q.as<__nv_bfloat16>(),
      .k = a.k.as<__nv_bfloat16>(),
      .v = a.v.as<__nv_bfloat16>(),
      .dy = a.dy.as<__nv_bfloat16>(),
      .dq = a.dq.as<__nv_bfloat16>(),
      .dk = a.dk.as<__nv_bfloat16>(),
      .dv = a.dv.as<__nv_bfloat16>(),
      .stats = plan.stats,
      .mask = plan.mask(),
      .head_stats = plan.head_stats(),
      .heads = static_cast<int32_t>(plan.heads),
      .group = static_cast<int32_t>(plan.group()),
      .size = static_cast<int32_t>(plan.size),
      .scale = plan.scale,
      .scale2 = plan.scale2,
  };
  by_head_size(plan.size, [&]<int Size>(std::integral_constant<int, Size>) { launch<Size>(args, stream); });
}

}  // namespace attune::cuda
