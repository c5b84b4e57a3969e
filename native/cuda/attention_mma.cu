// attention, mma.sync family: y = softmax(scale q k^T) v per head over the visible keys, lse its log-sum-exp.
// source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691) algorithm 1. tiling: a block has 64 queries of one head, 16 a warp, and
// walks tiles of 64 keys (32 for head sizes over 128), last first; V comes while the scores are multiplied, the next K while V is.
// budget: 128 threads, no spills, 51 KiB of shared memory at size 128, 66 KiB at 256.
// limits: bf16, capability 8.0 and later, head sizes to 256 (padded to 32, 64, 96, 128, 192 or 256), scale > 0; keys that nobody sees
// must be finite. measured: not yet.
#include "attention_mma.h"

namespace attune::cuda {
namespace {

using namespace mma;

struct ForwardArgs {
  const __nv_bfloat16 *q, *k, *v;
  __nv_bfloat16* y;
  float* lse;  // (H, N), or null
  AttentionMask mask;
  int32_t heads, group, size;
  float scale2;
};

// The tile of keys before `key` that holds something visible to the block's queries, or a negative number.
template <int Keys>
__device__ __forceinline__ int32_t next_tile(const AttentionMask& mask, int32_t query, int32_t key) {
  do key -= Keys;
  while (key >= 0 && !mask.any_visible(query, key));
  return key;
}

template <int Size>
__global__ void __launch_bounds__(kThreads, 1) attention_forward_mma(ForwardArgs a) {
  constexpr int Inner = kKeys<Size>;
  using Queries = Tile<kBlockRows, Size>;
  using Keys = Tile<Inner, Size>;
  ATTUNE_DYNAMIC_SHARED(shared);
  const Queries q = {reinterpret_cast<__nv_bfloat16*>(shared)};
  const Keys k = {reinterpret_cast<__nv_bfloat16*>(shared + Queries::kBytes)};
  const Keys v = {reinterpret_cast<__nv_bfloat16*>(shared + Queries::kBytes + Keys::kBytes)};
  const int32_t rows = a.mask.rows, tiles = (rows + kBlockRows - 1) / kBlockRows;
  const int32_t head = blockIdx.x % a.heads, first = (tiles - 1 - static_cast<int32_t>(blockIdx.x / a.heads)) * kBlockRows;
  const int64_t q_stride = int64_t{a.heads} * a.size, kv_stride = int64_t{a.heads / a.group} * a.size;
  const int64_t q_at = int64_t{head} * a.size, kv_at = int64_t{head / a.group} * a.size;
  const Place place;

  Softmax<Inner> softmax;
  float out[Size / 2];
  clear(out);
  int32_t key = next_tile<Inner>(a.mask, first, (min(rows, first + kBlockRows) + Inner - 1) / Inner * Inner);
  if (key >= 0) {
    q.load(a.q + q_at, q_stride, first, rows, a.size);
    k.load(a.k + kv_at, kv_stride, key, rows, a.size);
  }
  ptx::cp_async_commit();
  while (key >= 0) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // K is here, and everyone is done with V
    v.load(a.v + kv_at, kv_stride, key, rows, a.size);
    ptx::cp_async_commit();
    float score[Inner / 2], shrink[2];
    multiply_transposed<Inner>(score, q, k);
    ptx::cp_async_wait<0>();
    __syncthreads();  // V is here, and everyone is done with K
    const int32_t next = next_tile<Inner>(a.mask, first, key);
    if (next >= 0) k.load(a.k + kv_at, kv_stride, next, rows, a.size);
    ptx::cp_async_commit();
    if (!a.mask.all_visible(first, key, Inner))
      hide<Inner>(score, -INFINITY, a.mask, ValuesOfRows<int32_t>{a.mask.end + key}, place.column, first + place.row,
                  key + place.column);
    softmax.step(score, a.scale2, shrink);
#pragma unroll
    for (int x = 0; x < Size / 2; ++x) out[x] *= shrink[x / 2 % 2];
    Fragments<Inner> p;
    p.pack(score);
    accumulate(out, p, v);
    key = next;
  }

  float factor[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float total = softmax.total(i);
    factor[i] = total == 0 ? 0 : 1 / total;
    const int32_t row = first + place.row + 8 * i;
    if (a.lse && place.column == 0 && row < rows) a.lse[int64_t{head} * rows + row] = softmax.lse(i, total, a.scale2);
  }
  write<Size>(a.y + q_at, q_stride, first, rows, a.size, place, out, factor);
}

}  // namespace

void attention_mma(const Attention& a, const AttentionPlan& plan, Stream& stream) {
  const ForwardArgs args = {
      .q = a.q.as<__nv_bfloat16>(),
      .k = a.k.as<__nv_bfloat16>(),
      .v = a.v.as<__nv_bfloat16>(),
      .y = a.y.as<__nv_bfloat16>(),
      .lse = a.lse.as<float>(),
      .mask = plan.mask(),
      .heads = static_cast<int32_t>(plan.heads),
      .group = static_cast<int32_t>(plan.group()),
      .size = static_cast<int32_t>(plan.size),
      .scale2 = plan.scale2,
  };
  const int64_t tiles = (plan.rows + kBlockRows - 1) / kBlockRows;
  by_head_size(plan.size, [&]<int Size>(std::integral_constant<int, Size>) {
    stream.launch("attention_forward_mma", attention_forward_mma<Size>, static_cast<unsigned>(tiles * plan.heads), kThreads,
                  Tile<kBlockRows, Size>::kBytes + 2 * Tile<kKeys<Size>, Size>::kBytes, args);
  });
}

}  // namespace attune::cuda
