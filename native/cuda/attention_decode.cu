// attention_decode: one query per slot over that slot's cache: slot s sees places < len[s], with a window only the last of them; a
// slot that sees nothing gives zeros. source: lib/ops/attention_decode.ts; online softmax as Milakov and Gimelshein 2018
// (arXiv:1805.02867). tiling: a block has one slot and up to 4 query heads of one kv head, so the cache comes from memory once for
// a group of 4. A place's row is read by as many neighbouring threads as it has 16-byte vectors (a power of two); the groups of
// threads take places in turn, four at a time, each with an online softmax of its own, and merge in a fixed order. Where slots and
// heads make few blocks, the places of a slot are split between blocks, and a second kernel merges what they found in order.
// budget: 256 threads, 184 registers, 40 KiB of shared memory. limits: head sizes to 256, multiples of 8. measured: not yet.
#include <algorithm>

#include "common/elements.h"
#include "common/grid.h"
#include "common/reduce.h"

namespace attune::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 4;     // query heads of a block
constexpr int kAtOnce = 4;    // places of a group of threads, in flight together
constexpr float kLog2E = 1.44269504f;

struct DecodeArgs {
  const void *q, *k, *v;
  void* y;
  const int32_t* len;
  int64_t places;  // L
  int32_t heads, kv_heads, size;
  int32_t lanes;   // threads that share a row
  int32_t window;  // 0: none
  float scale2;
  int32_t splits;   // of a slot's places; 1: none
  float* partials;  // (S, H, splits, size + 2): values, sum, highest score
};

// How the work is cut, by shape alone, so that sums are the same on every device.
struct DecodePlan {
  static constexpr int64_t kBlocks = 512, kFewestPlaces = 128;
  int64_t slots, places, heads, kv_heads, size, blocks, splits;

  explicit DecodePlan(const AttentionDecode& a)
      : slots(a.q.shape[0]),
        places(a.k.shape[1]),
        heads(a.q.shape[1]),
        kv_heads(a.k.shape[2]),
        size(a.q.shape[2]),
        blocks(slots * kv_heads * ceil_div(heads / kv_heads, kHeads)),
        splits(std::clamp<int64_t>(kBlocks / std::max<int64_t>(1, blocks), 1, std::max<int64_t>(1, places / kFewestPlaces))) {}
};

// One thread's share of the online softmax of one query head.
struct Running {
  float high = -INFINITY, sum = 0, out[kWide] = {};

  __device__ void add(const float (&score)[kAtOnce], const float (&value)[kAtOnce][kWide]) {
    float top = high;
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) top = fmaxf(top, score[u]);
    const float base = top == -INFINITY ? 0 : top, shrink = exp2f(high - base);
    sum *= shrink;
#pragma unroll
    for (int i = 0; i < kWide; ++i) out[i] *= shrink;
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      if (score[u] == -INFINITY) continue;  // no place: its value is no number to count on
      const float p = exp2f(score[u] - base);
      sum += p;
#pragma unroll
      for (int i = 0; i < kWide; ++i) out[i] = fmaf(p, value[u][i], out[i]);
    }
    high = top;
  }
};

template <class T>
__device__ void widen_row(float (&to)[kWide], const T* from, bool inside) {
  Vector<T, kWide> x = {};
  if (inside) x = load<kWide>(from);
#pragma unroll
  for (int i = 0; i < kWide; ++i) to[i] = x[i];
}

template <class T, class Cache>
__global__ void __launch_bounds__(kThreads) decode(DecodeArgs a) {
  ATTUNE_SHARED(float, outs, kHeads * kThreads * kWide);
  ATTUNE_SHARED(float, highs, kHeads * kThreads);
  ATTUNE_SHARED(float, sums, kHeads * kThreads);
  const int group = a.heads / a.kv_heads, chunks = (group + kHeads - 1) / kHeads;
  const int split = blockIdx.x % a.splits, chunk = blockIdx.x / a.splits % chunks;
  const int64_t slot = blockIdx.x / a.splits / chunks / a.kv_heads;
  const int kv_head = blockIdx.x / a.splits / chunks % a.kv_heads, first_head = kv_head * group + chunk * kHeads;
  const int heads = min(kHeads, (kv_head + 1) * group - first_head);
  const int column = threadIdx.x % a.lanes * kWide, team = threadIdx.x / a.lanes, teams = kThreads / a.lanes;
  const bool in_row = column < a.size;
  const int64_t len = max(int64_t{0}, min(int64_t{a.len[slot]}, a.places)), begin = a.window ? max(int64_t{0}, len - a.window) : 0;
  const int64_t first = begin + (len - begin) * split / a.splits, end = begin + (len - begin) * (split + 1) / a.splits;
  const int64_t stride = int64_t{a.kv_heads} * a.size, at = slot * a.places * stride + kv_head * a.size + column;
  const Cache* const keys = static_cast<const Cache*>(a.k) + at;
  const Cache* const values = static_cast<const Cache*>(a.v) + at;

  float q[kHeads][kWide];
  Running running[kHeads];
#pragma unroll
  for (int h = 0; h < kHeads; ++h)
    widen_row(q[h], static_cast<const T*>(a.q) + (slot * a.heads + first_head + h) * a.size + column, in_row && h < heads);

  for (int64_t start = first; start < end; start += int64_t{teams} * kAtOnce) {
    float key[kAtOnce][kWide], value[kAtOnce][kWide], score[kHeads][kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int64_t place = start + u * teams + team;
      widen_row(key[u], keys + place * stride, in_row && place < end);
      widen_row(value[u], values + place * stride, in_row && place < end);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h)
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        float dot = 0;
#pragma unroll
        for (int i = 0; i < kWide; ++i) dot = fmaf(q[h][i], key[u][i], dot);
        dot = warp_sum(dot, a.lanes);
        score[h][u] = start + u * teams + team < end ? dot * a.scale2 : -INFINITY;
      }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) running[h].add(score[h], value);
  }

#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    const int place = h * kThreads + threadIdx.x;
    highs[place] = running[h].high;
    sums[place] = running[h].sum;
#pragma unroll
    for (int i = 0; i < kWide; ++i) outs[place * kWide + i] = running[h].out[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < heads * a.size; i += kThreads) {
    const int h = i / a.size, d = i % a.size, lane = d / kWide;
    float high = -INFINITY, sum = 0, out = 0;
    for (int t = 0; t < teams; ++t) high = fmaxf(high, highs[h * kThreads + t * a.lanes + lane]);
    const float base = high == -INFINITY ? 0 : high;
    for (int t = 0; t < teams; ++t) {
      const int place = h * kThreads + t * a.lanes + lane;
      const float weight = exp2f(highs[place] - base);
      sum += weight * sums[place];
      out += weight * outs[place * kWide + d % kWide];
    }
    const int64_t row = slot * a.heads + first_head + h;
    if (a.splits == 1) {
      put(static_cast<T*>(a.y) + row * a.size + d, sum == 0 ? 0 : out / sum);
      continue;
    }
    float* const partial = a.partials + (row * a.splits + split) * (a.size + 2);
    partial[d] = out;
    if (d == 0) {
      partial[a.size] = sum;
      partial[a.size + 1] = high;
    }
  }
}

// A block merges the splits of one slot and query head, first to last.
template <class T>
__global__ void __launch_bounds__(kThreads) merge(const float* partials, T* y, int32_t splits, int32_t size) {
  const int64_t row = blockIdx.x;
  const int d = threadIdx.x;
  if (d >= size) return;
  const float* const parts = partials + row * splits * (size + 2);
  float high = -INFINITY, sum = 0, out = 0;
  for (int s = 0; s < splits; ++s) high = fmaxf(high, parts[s * (size + 2) + size + 1]);
  const float base = high == -INFINITY ? 0 : high;
  for (int s = 0; s < splits; ++s) {
    const float* const part = parts + s * (size + 2);
    const float weight = exp2f(part[size + 1] - base);
    sum += weight * part[size];
    out += weight * part[d];
  }
  put(y + row * size + d, sum == 0 ? 0 : out / sum);
}

}  // namespace

int64_t attention_decode_scratch(const AttentionDecode& a) {
  const DecodePlan plan(a);
  return plan.splits > 1 ? plan.slots * plan.heads * plan.splits * (plan.size + 2) * static_cast<int64_t>(sizeof(float)) : 0;
}

void attention_decode(const AttentionDecode& a, Stream& stream) {
  const DecodePlan plan(a);
  if (plan.size % 8 != 0 || plan.size > 256)
    return stream.fail("attention_decode: the head size must be a multiple of 8 to 256, got " + std::to_string(plan.size));
  int32_t lanes = 1;
  while (lanes * kWide < plan.size) lanes *= 2;
  const DecodeArgs args = {
      .q = a.q.data,
      .k = a.k.data,
      .v = a.v.data,
      .y = a.y.data,
      .len = a.len.as<int32_t>(),
      .places = plan.places,
      .heads = static_cast<int32_t>(plan.heads),
      .kv_heads = static_cast<int32_t>(plan.kv_heads),
      .size = static_cast<int32_t>(plan.size),
      .lanes = lanes,
      .window = static_cast<int32_t>(std::min<double>(a.window, INT32_MAX)),
      .scale2 = static_cast<float>(a.scale) * kLog2E,
      .splits = static_cast<int32_t>(plan.splits),
      .partials = stream.scratch<float>(),
  };
  const dim3 grid = grid_of(stream, "attention_decode", plan.blocks * plan.splits);
  typed(a.q, [&]<class T>(T*) {
    typed(a.k, [&]<class Cache>(Cache*) {
      stream.launch("attention_decode", decode<T, Cache>, grid, kThreads, 0, args);
    });
    if (plan.splits > 1)
      stream.launch("attention_decode_merge", merge<T>, grid_of(stream, "attention_decode", plan.slots * plan.heads), kThreads, 0,
                    args.partials, a.y.as<T>(), args.splits, args.size);
  });
}

}  // namespace attune::cuda
