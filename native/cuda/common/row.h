// A row of a tensor in the registers of a block: thread t holds K vectors of N elements, at (k blockDim + t) N. What lies beyond
// the row's end reads as 0, so sums need no test.
//   if (!by_row(columns, [&]<int N, int K, int kThreads>() { launch a kernel with __launch_bounds__(kThreads) })) launch another one;
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

// False, and no call, where the row is too long or its length no multiple of N.
template <class F> bool by_row(int64_t columns, F&& f) {
  if (columns % kWide != 0 || columns > kWide * 1024) return false;
  if (columns <= kWide * 256)
    f.template operator()<kWide, 1, 256>();
  else
    f.template operator()<kWide, 2, 512>();
  return true;
}

template <int N, int K> unsigned row_threads(int64_t columns) { return threads_for(ceil_div(columns, N * K), 1024); }

}  // namespace attune::cuda
