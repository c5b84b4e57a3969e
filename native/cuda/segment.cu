// segment_sum: y[p] = sum of x[m] over seg[m] = p; segment_gather: y[m] = x[seg[m]], 0 for none. Each is the other's backward.
// source: lib/ops/segment.ts. Sums run in float64, in an order that M alone decides.
// tiling: a block a segment, which looks at all of seg: P M / 256 steps in all, from the level-2 cache; a thread an element to gather.
// budget: 256 bytes of shared memory. limits: none; P M beyond about 1e9 would deserve sorted segments. measured: not yet.
#include "common/grid.h"
#include "common/reduce.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) segment_sums(const float* x, const int32_t* seg, int64_t count, float* y) {
  ATTUNE_SHARED(double, warps, kWarps);
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < count; i += kThreads)
    if (seg[i] == static_cast<int64_t>(blockIdx.x)) sum += static_cast<double>(x[i]);
  sum = block_sum(sum, warps);
  if (threadIdx.x == 0) y[blockIdx.x] = static_cast<float>(sum);
}

__global__ void __launch_bounds__(kThreads)
    segment_values(const float* x, int64_t segments, const int32_t* seg, int64_t count, float* y) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  y[i] = seg[i] >= 0 && seg[i] < segments ? x[seg[i]] : 0.0f;
}

}  // namespace

void segment_sum(const SegmentSum& a, Stream& stream) {
  const int64_t count = std::min(a.x.size(), a.seg.size());
  stream.launch("segment_sum", segment_sums, grid_of(stream, "segment_sum", a.y.size()), kThreads, 0, a.x.as<float>(),
                a.seg.as<int32_t>(), count, a.y.as<float>());
}

void segment_gather(const SegmentGather& a, Stream& stream) {
  const int64_t count = a.seg.size();
  stream.launch("segment_gather", segment_values, grid_of(stream, "segment_gather", ceil_div(count, kThreads)), kThreads, 0,
                a.x.as<float>(), a.x.size(), a.seg.as<int32_t>(), count, a.y.as<float>());
}

}  // namespace attune::cuda
