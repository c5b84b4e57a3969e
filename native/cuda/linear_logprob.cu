// linear_logprob: log_softmax_gather(hidden (M, C) weight (V, C)^T, targets (M)) without (M, V) logits in memory. Kept where asked for: tops
// (M, V / 192), the highest logit of each tile of columns, and shares (M, V) = e^(logit - top).
// source: lib/ops/linear_logprob.ts; arXiv:2411.09009.  On capability 9.0 in bf16 the fused kernel of linear_logprob_wgmma.cu runs.
// Elsewhere: some rows at a time, their fp32 logits in scratch, by gemm and then log_softmax_gather; a block keeps a tile of a row.
// budget: logits of a chunk take at most 128 MiB (one row where a row is longer).  limits: gemm's.  measured: not yet.
#include "common/elements.h"
#include "common/grid.h"
#include "common/reduce.h"
#include "kernels.h"
#include "linear_logprob.h"

namespace attune::cuda {
namespace {

constexpr int64_t kChunkBytes = int64_t{128} << 20;

int64_t chunk_rows(const LinearLogprob& a) {
  const int64_t row = 4 * std::max<int64_t>(a.weight.shape[0], 1);
  return std::clamp<int64_t>(kChunkBytes / row, 1, std::max<int64_t>(a.hidden.shape[0], 1));
}

// Rows [first, first + rows) of a matrix or vector.
Tensor part(const Tensor& t, int64_t first, int64_t rows) {
  Tensor p = t;
  if (!t) return p;
  p.shape[0] = rows;
  p.data = t.as<uint8_t>() + first * (t.rank > 1 ? t.shape[1] : 1) * width(t.dtype);
  return p;
}

template <class T>
__global__ void __launch_bounds__(kTopColumns) linear_logprob_keep(const float* logits, T* shares, float* tops, int64_t columns, unsigned tiles) {
  ATTUNE_SHARED(float, highs, kTopColumns / kWarp);
  const int64_t row = blockIdx.x / tiles, tile = blockIdx.x % tiles, column = tile * kTopColumns + threadIdx.x;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const bool inside = column < columns;
  const float z = inside ? logits[row * columns + column] : -INFINITY, high = warp_max(z);
  if (lane == 0) highs[warp] = high;
  __syncthreads();
  const float top = warp_max(lane < kTopColumns / kWarp ? highs[lane] : -INFINITY);
  if (threadIdx.x == 0) tops[row * tiles + tile] = top;
  if (inside) put(shares + row * columns + column, expf(z - (top == -INFINITY ? 0.0f : top)));
}

void keep(const LinearLogprob& a, const Gemm& logits, int64_t first, int64_t rows, Stream& s) {
  const Tensor shares = part(a.shares, first, rows), tops = part(a.tops, first, rows);
  const auto tiles = static_cast<unsigned>(tops.last());
  typed(shares, [&]<class T>(T* to) {
    s.launch("linear_logprob_keep", linear_logprob_keep<T>, grid_of(s, "linear_logprob", rows * tiles), kTopColumns, 0, logits.y.as<float>(), to,
             tops.as<float>(), shares.last(), tiles);
  });
}

int64_t logits_bytes(const LinearLogprob& a) { return ceil_div(4 * chunk_rows(a) * a.weight.shape[0], 256) * 256; }

Gemm product(const LinearLogprob& a, int64_t first, int64_t rows, void* logits) {
  Gemm g{};
  g.a = part(a.hidden, first, rows);
  g.b = a.weight;
  g.y.data = logits;
  g.y.rank = 2;
  g.y.shape[0] = rows;
  g.y.shape[1] = a.weight.shape[0];
  g.tb = 1;
  return g;
}

}  // namespace

int64_t linear_logprob_scratch(const LinearLogprob& a) {
  return std::max(logits_bytes(a) + gemm_scratch(product(a, 0, chunk_rows(a), nullptr)), linear_logprob_wgmma_scratch(a));
}

void linear_logprob(const LinearLogprob& a, Stream& s) {
  if (linear_logprob_wgmma_takes(a, s.device())) return linear_logprob_wgmma(a, s);
  uint8_t* logits = s.scratch<uint8_t>();
  const int64_t rows = chunk_rows(a), all = a.hidden.shape[0];
  for (int64_t first = 0; first < all; first += rows) {
    const int64_t n = std::min(rows, all - first);
    const Gemm g = product(a, first, n, logits);
    s.use_scratch(logits + logits_bytes(a));
    gemm(g, s);
    const LogSoftmaxGather l = {g.y, part(a.targets, first, n), part(a.logp, first, n), part(a.lse, first, n), part(a.entropy, first, n), part(a.hit, first, n), part(a.mean, first, n)};
    log_softmax_gather(l, s);
    if (a.shares) keep(a, g, first, n, s);
  }
  s.use_scratch(logits);
}

}  // namespace attune::cuda
