// sum_squares: y = sum of x^2, in float64 over pieces of kPiece elements, whatever the device.
// source: lib/ops/adamw.ts.
// tiling: a block takes a piece; a second launch of one block adds the pieces' sums in a fixed order.
// budget: bytes: x once. One conversion and one float64 multiply-add an element: 16 and 64 a clock and multiprocessor of an H200,
// which is 1.7 times what the memory gives in bf16. 256 bytes of shared memory.
// limits: none.
// measured: H200, in a step, 2.36G fp32: 4.4 TB/s.
#include "common/elements.h"
#include "common/grid.h"
#include "common/reduce.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int64_t kPiece = 1 << 16;
constexpr int kThreads = 256, kTotalThreads = 1024;

int64_t pieces(const SumSquares& a) { return ceil_div(a.x.size(), kPiece); }

template <class T> __global__ void __launch_bounds__(kThreads) sum_squares_pieces(const T* x, int64_t n, double* sums) {
  ATTUNE_SHARED(double, warps, kWarps);
  const int64_t first = blockIdx.x * kPiece;
  const int64_t count = n - first < kPiece ? n - first : kPiece, whole = count / kWide * kWide;
  x += first;
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x * kWide; i < whole; i += kThreads * kWide) {
    const auto v = load<kWide>(x + i);
#pragma unroll
    for (int j = 0; j < kWide; ++j) sum = fma(static_cast<double>(v[j]), static_cast<double>(v[j]), sum);
  }
  if (whole + threadIdx.x < count) {
    const double v = widen(x[whole + threadIdx.x]);
    sum = fma(v, v, sum);
  }
  sum = block_sum(sum, warps);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kTotalThreads) sum_squares_total(const double* sums, int64_t count, float* y) {
  ATTUNE_SHARED(double, warps, kWarps);
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
  sum = block_sum(sum, warps);
  if (threadIdx.x == 0) *y = static_cast<float>(sum);
}

}  // namespace

int64_t sum_squares_scratch(const SumSquares& a) { return pieces(a) * static_cast<int64_t>(sizeof(double)); }

void sum_squares(const SumSquares& a, Stream& stream) {
  double* sums = stream.scratch<double>();
  typed(a.x, [&]<class T>(T* x) {
    stream.launch("sum_squares", sum_squares_pieces<T>, grid_of(stream, "sum_squares", pieces(a)), kThreads, 0, x, a.x.size(),
                  sums);
  });
  stream.launch("sum_squares_total", sum_squares_total, 1, threads_for(pieces(a), kTotalThreads), 0, sums, pieces(a),
                a.y.as<float>());
}

}  // namespace attune::cuda
