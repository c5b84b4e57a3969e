// A row of a tensor in the registers of a block: thread t holds K vectors of N elements, at (k blockDim + t) N. What lies beyond
// the row's end reads as 0, so sums need no test.
//   by_row(stream, "op", columns, [&]<int N, int K, int kThreads>() { launch a kernel with __launch_bounds__(kThreads) });
#pragma once
#include "elements.h"
#include "grid.h"

namespace attune::cuda {

template <class T, int N, int K> struct Row {
  Vector<T, N> part[K];
};

template <int N> __device__ inline int64_t column_of(int k) { return (int64_t{blockDim.x} * k + threadIdx.x) * N; }

template <int N, int K, class T> __device__ inline Row<T, N, K> load_row(const T* row, int64_t columns) {
  Row<T, N, K> r;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    r.part[k] = {};
    if (column_of<N>(k) < columns) r.part[k] = load<N>(row + column_of<N>(k));
  }
  return r;
}

// The smallest block that holds a row; few threads with several loads in flight rather than many with one.
template <class F> void by_row(Stream& stream, const char* name, int64_t columns, F&& f) {
  if (columns % kWide == 0 && columns <= kWide * 256) return f.template operator()<kWide, 1, 256>();
  if (columns % kWide == 0 && columns <= kWide * 1024) return f.template operator()<kWide, 2, 512>();
  if (columns % kWide == 0 && columns <= kWide * 2048) return f.template operator()<kWide, 2, 1024>();
  if (columns <= 8 * 1024) return f.template operator()<1, 8, 1024>();
  stream.fail(std::string(name) + ": a row must have at most " + std::to_string(columns % kWide ? 8 * 1024 : kWide * 2048) +
              " elements, got " + std::to_string(columns));
}

template <int N, int K> unsigned row_threads(int64_t columns) { return threads_for(ceil_div(columns, N * K), 1024); }

}  // namespace attune::cuda
