// attention_decode: one query per slot over that slot's cache: slot s sees places < len[s], with a window only the last of them; a
// slot that sees nothing gives zeros. source: lib/ops/attention_decode.ts; online softmax as Milakov and Gimelshein 2018
// (arXiv:1805.02867). tiling: a block has one slot and up to 4 query heads of one kv head, so the cache comes from memory once for
// a group of 4. A place's row is read by as many neighbouring threads as it has 16-byte vectors (a power of two); the groups of
// threads take places in turn, four at a time, each with an online softmax of its own, and merge in a fixed order.
// budget: 256 threads, under 128 registers, 41 KiB of shared memory. limits: head sizes to 256, multiples of 8; long caches of few
// slots leave multiprocessors idle. measured: not yet.
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
  const int64_t slot = blockIdx.x / (a.kv_heads * chunks);
  const int kv_head = blockIdx.x / chunks % a.kv_heads, first_head = kv_head * group + blockIdx.x % chunks * kHeads;
  const int heads = min(kHeads, (kv_head + 1) * group - first_head);
  const int column = threadIdx.x % a.lanes * kWide, team = threadIdx.x / a.lanes, teams = kThreads / a.lanes;
  const bool in_row = column < a.size;
  const int64_t len = min(int64_t{a.len[slot]}, a.places), first = a.window ? max(int64_t{0}, len - a.window) : 0;
  const int64_t stride = int64_t{a.kv_heads} * a.size, at = slot * a.places * stride + kv_head * a.size + column;
  const Cache* const keys = static_cast<const Cache*>(a.k) + at;
  const Cache* const values = static_cast<const Cache*>(a.v) + at;

  float q[kHeads][kWide];
  Running running[kHeads];
#pragma unroll
  for (int h = 0; h < kHeads; ++h)
    widen_row(q[h], static_cast<const T*>(a.q) + (slot * a.heads + first_head + h) * a.size + column, in_row && h < heads);

  for (int64_t start = first; start < len; start += int64_t{teams} * kAtOnce) {
    float key[kAtOnce][kWide], value[kAtOnce][kWide], score[kHeads][kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int64_t place = start + u * teams + team;
      widen_row(key[u], keys + place * stride, in_row && place < len);
      widen_row(value[u], values + place * stride, in_row && place < len);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h)
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        float dot = 0;
#pragma unroll
        for (int i = 0; i < kWide; ++i) dot = fmaf(q[h][i], key[u][i], dot);
        dot = warp_sum(dot, a.lanes);
        score[h][u] = start + u * teams + team < len ? dot * a.scale2 : -INFINITY;
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
    const int64_t to = (slot * a.heads + first_head + h) * a.size + d;
    put(static_cast<T*>(a.y) + to, sum == 0 ? 0 : out / sum);
  }
}

}  // namespace

void attention_decode(const AttentionDecode& a, Stream& stream) {
  const int64_t slots = a.q.shape[0], heads = a.q.shape[1], size = a.q.shape[2], kv_heads = a.k.shape[2];
  if (size % 8 != 0 || size > 256)
    return stream.fail("attention_decode: the head size must be a multiple of 8 to 256, got " + std::to_string(size));
  int32_t lanes = 1;
  while (lanes * kWide < size) lanes *= 2;
  const DecodeArgs args = {a.q.data,
                           a.k.data,
                           a.v.data,
                           a.y.data,
                           a.len.as<int32_t>(),
                           a.k.shape[1],
                           static_cast<int32_t>(heads),
                           static_cast<int32_t>(kv_heads),
                           static_cast<int32_t>(size),
                           lanes,
                           static_cast<int32_t>(std::min<double>(a.window, INT32_MAX)),
                           static_cast<float>(a.scale) * kLog2E};
  const dim3 grid = grid_of(stream, "attention_decode", slots * kv_heads * ceil_div(heads / kv_heads, kHeads));
  typed(a.q, [&]<class T>(T*) {
    typed(a.k, [&]<class Cache>(Cache*) {
      stream.launch("attention_decode", decode<T, Cache>, grid, kThreads, 0, args);
    });
  });
}

}  // namespace attune::cuda
