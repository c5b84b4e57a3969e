// attention_backward: dq, dk, dv; the op chooses the family of kernels (attention.h). Here is what all of them want first, the
// statistics of each query and head: lse in base 2 and delta = dy . y. source: Dao 2023 (arXiv:2307.08691) algorithm 2, line 4.
// tiling: a block has 64 queries of one head; up to 32 neighbouring threads read one row, 16 bytes of bf16 each. Rows of the
// padding get lse = inf, so that P is 0 there. budget: 256 threads, under 40 registers, no shared memory. measured: not yet.
#include "attention.h"
#include "common/elements.h"
#include "common/reduce.h"

namespace attune::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlockRows = 64;

template <class T>
__global__ void __launch_bounds__(kThreads)
    query_stats(const T* y, const T* dy, const float* lse, QueryStats* stats, int32_t rows, int64_t head_stats, int32_t heads,
                int32_t size, int32_t lanes) {
  const int32_t head = blockIdx.x % heads, first = blockIdx.x / heads * kBlockRows;
  const int column = threadIdx.x % lanes * kWide, step = kThreads / lanes;
#pragma unroll 4
  for (int r = threadIdx.x / lanes; r < kBlockRows; r += step) {
    const int32_t row = first + r;
    float delta = 0;
    if (row < rows && column < size) {
      const int64_t at = (int64_t{row} * heads + head) * size + column;
      const auto a = load<kWide>(y + at), b = load<kWide>(dy + at);
#pragma unroll
      for (int i = 0; i < kWide; ++i) delta = fmaf(a[i], b[i], delta);
    }
    delta = warp_sum(delta, lanes);
    if (column == 0) {
      QueryStats& to = stats[head * head_stats + row / QueryStats::kQueries];
      to.lse2[row % QueryStats::kQueries] = row < rows ? lse[int64_t{head} * rows + row] * 1.44269504f : INFINITY;
      to.delta[row % QueryStats::kQueries] = delta;
    }
  }
}

void fill_stats(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream) {
  int32_t lanes = 8;  // at least 32 rows a step: no row is cut short
  while (lanes * kWide < plan.size) lanes *= 2;
  const unsigned blocks = static_cast<unsigned>(plan.padded / kBlockRows * plan.heads);
  typed(a.y, [&]<class T>(T* y) {
    stream.launch("attention_query_stats", query_stats<T>, blocks, kThreads, 0, y, a.dy.as<const T>(),
                  a.lse.as<const float>(), plan.stats, static_cast<int32_t>(plan.rows), plan.head_stats(),
                  static_cast<int32_t>(plan.heads), static_cast<int32_t>(plan.size), lanes);
  });
}

}  // namespace

int64_t attention_backward_scratch(const AttentionBackward& a) { return AttentionPlan(a, nullptr).bytes; }

void attention_backward(const AttentionBackward& a, Stream& stream) {
  const AttentionPlan plan(a, stream.scratch<uint8_t>());
  if (!takes_head_size("attention_backward", plan, stream)) return;
  fill_mask(plan, a.end, a.pos, {plan.by_query, plan.by_key, plan.by_narrow_query}, stream);
  fill_stats(a, plan, stream);
  if (takes_wgmma(plan, a.q.dtype, stream)) return attention_backward_wgmma(a, plan, stream);
  if (takes_mma(plan, a.q.dtype, stream)) return attention_backward_mma(a, plan, stream);
  attention_backward_plain(a, plan, stream);
}

}  // namespace attune::cuda
