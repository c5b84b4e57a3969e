// softmax_shares_backward: dlogits (M, V) = dlogp ([v = target] - shares e^(top - lse)), at the target 1 - e^logp; rows of 0 where there
// is no target; may lie over shares. tops (M, V / 192) are of tiles of 192 columns. source: lib/ops/softmax_shares.ts.
// tiling: a block takes a tile of a row, kSteps vectors a thread.
// budget: bytes: 2 V elements a row. One exponential a vector. At most 40 registers.
// limits: none; V no multiple of 8 goes by single elements.  measured: H200, in a step, 8192 x 151936: 3742 GB/s, 88% of a copy.
#include "../runtime/top_columns.h"
#include "common/elements.h"
#include "common/grid.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kSteps = 2, kThreads = 256;

struct Rows {
  const int32_t* targets;
  const float *tops, *lse, *logp, *dlogp;
  int64_t columns;
};

template <class T, int N> __global__ void __launch_bounds__(kThreads)
    softmax_shares_backward_tiles(const T* shares, T* dlogits, Rows rows, unsigned tiles) {
  const int64_t row = blockIdx.x / tiles, columns = rows.columns;
  const int64_t first = (int64_t{blockIdx.x % tiles} * kSteps * blockDim.x + threadIdx.x) * N;
  const int64_t stride = int64_t{blockDim.x} * N, at = row * columns;
  const int64_t target = rows.targets[row];
  const bool scored = target >= 0 && target < columns;
  const float gain = scored ? rows.dlogp[row] : 0.0f, base = scored ? rows.lse[row] : 0.0f;
  const float* const tops = rows.tops + row * ((columns + kTopColumns - 1) / kTopColumns);
  Vector<T, N> v[kSteps];
#pragma unroll
  for (int k = 0; k < kSteps; ++k)
    if (scored && first + k * stride < columns) v[k] = load<N>(shares + at + first + k * stride);
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int64_t i = first + k * stride;
    if (i >= columns) continue;
    float out[N] = {};
    if (scored) {
      const float factor = -gain * expf(tops[i / kTopColumns] - base);  // a vector lies in one tile
#pragma unroll
      for (int j = 0; j < N; ++j) out[j] = i + j == target ? gain * (1.0f - expf(rows.logp[row])) : factor * v[k][j];
    }
    store(dlogits + at + i, out);
  }
}

}  // namespace

void softmax_shares_backward(const SoftmaxSharesBackward& a, Stream& stream) {
  const int64_t rows = a.targets.size(), columns = a.shares.last();
  const Rows of{a.targets.as<int32_t>(), a.tops.as<float>(), a.lse.as<float>(), a.logp.as<float>(), a.dlogp.as<float>(), columns};
  typed(a.shares, [&]<class T>(T* shares) {
    by_width(columns, [&]<int N>(Access<N>) {
      const RowTiles cut(ceil_div(columns, N), kSteps, kThreads);
      stream.launch("softmax_shares_backward", softmax_shares_backward_tiles<T, N>,
                    grid_of(stream, "softmax_shares_backward", rows * cut.tiles), cut.threads, 0, shares, a.dlogits.as<T>(), of, cut.tiles);
    });
  });
}

}  // namespace attune::cuda
