// y (C) = onto + the sum over rows of x (R,C), in fp32: how the partial sums of several blocks become one.
// tiling: a block takes 32 columns, a warp's lanes beside one another; each warp every 32nd row, kAhead of them in flight; the warps'
// sums join through shared memory in the order of the warps.
// budget: 4 KB of shared memory, at most 32 registers. Bytes: the partials, which the level-2 cache still holds.
#pragma once
#include "elements.h"
#include "grid.h"
#include "reduce.h"

namespace attune::cuda {

constexpr int kColumnThreads = kWarps * kWarp;

template <class X, class Y> __global__ void __launch_bounds__(kColumnThreads)
    column_sums(const X* x, int64_t rows, int64_t columns, const Y* onto, Y* y) {
  [[maybe_unused]] constexpr int kAhead = 8;
  ATTUNE_SHARED(float, sums, kColumnThreads);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane;
  float sum = 0;
  if (column < columns) {
#pragma unroll kAhead
    for (int64_t row = warp; row < rows; row += kWarps) sum += widen(x[row * columns + column]);
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || column >= columns) return;
  float total = onto ? widen(onto[column]) : 0.0f;
  for (int w = 0; w < kWarps; ++w) total += sums[w * kWarp + lane];
  put(y + column, total);
}

// `onto` is empty or of y's dtype.
template <class X>
void add_columns(Stream& stream, const char* name, const X* x, int64_t rows, const Tensor& onto, const Tensor& y) {
  const int64_t columns = y.size();
  typed(y, [&]<class Y>(Y* to) {
    stream.launch(name, column_sums<X, Y>, grid_of(stream, name, ceil_div(columns, kWarp)), kColumnThreads, 0, x, rows, columns,
                  onto.as<Y>(), to);
  });
}

}  // namespace attune::cuda
