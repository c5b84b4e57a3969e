// cache_write: y = cache (S,L,K,D) with y[slot[m], place[m]] = x[m] (K,D); a negative or out-of-range slot or place writes nothing;
// the last m wins where several name one place. source: lib/ops/attention_decode.ts. In place over the cache only the M rows are
// touched. tiling: a block copies one row, and first looks whether a later row takes its place. budget: 256 threads, under 40
// registers, 128 bytes of shared memory. limits: the look costs M / 256 reads a thread. measured: not yet.
#include "common/elements.h"
#include "common/grid.h"
#include "common/reduce.h"

namespace attune::cuda {
namespace {

constexpr int kThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) copy_cache(const T* from, T* to, int64_t count) {
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (i >= count) return;
  const Vector<T, N> in = load<N>(from + i);
  float out[N];
#pragma unroll
  for (int k = 0; k < N; ++k) out[k] = in[k];
  store(to + i, out);
}

template <class X, class Y, int N>
__global__ void __launch_bounds__(kThreads)
    write_rows(const X* x, const int32_t* slot, const int32_t* place, Y* y, int64_t rows, int64_t slots, int64_t places, int64_t row) {
  ATTUNE_SHARED(int, sums, kWarps);
  const int64_t m = blockIdx.x;
  const int32_t s = slot[m], p = place[m];
  if (s < 0 || s >= slots || p < 0 || p >= places) return;
  int later = 0;
  for (int64_t i = m + 1 + threadIdx.x; i < rows; i += kThreads) later |= slot[i] == s && place[i] == p;
  if (block_sum(later, sums) > 0) return;
  const X* const from = x + m * row;
  Y* const to = y + (s * places + p) * row;
  for (int64_t i = int64_t{threadIdx.x} * N; i < row; i += kThreads * N) {
    const Vector<X, N> in = load<N>(from + i);
    float out[N];
#pragma unroll
    for (int k = 0; k < N; ++k) out[k] = in[k];
    store(to + i, out);
  }
}

}  // namespace

void cache_write(const CacheWrite& a, Stream& stream) {
  const int64_t slots = a.cache.shape[0], places = a.cache.shape[1], row = a.cache.shape[2] * a.cache.shape[3];
  const dim3 rows = grid_of(stream, "cache_write", a.x.rows());
  by_width(row, [&]<int N>(Access<N>) {
    typed(a.y, [&]<class Y>(Y* y) {
      if (a.y.data != a.cache.data)
        stream.launch("cache_write_copy", copy_cache<Y, N>,
                      grid_of(stream, "cache_write", ceil_div(a.cache.size(), int64_t{kThreads} * N)), kThreads, 0,
                      a.cache.as<const Y>(), y, a.cache.size());
      typed(a.x, [&]<class X>(X* x) {
        stream.launch("cache_write", write_rows<X, Y, N>, rows, kThreads, 0, x, a.slot.as<const int32_t>(),
                      a.place.as<const int32_t>(), y, a.x.rows(), slots, places, row);
      });
    });
  });
}

}  // namespace attune::cuda
