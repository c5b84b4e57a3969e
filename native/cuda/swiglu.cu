// swiglu: y (N,F) = silu(g) u for x (N,2F) = [g | u], silu(g) = g s, s = 1 / (1 + e^-g); backward dg = dy u s (1 + g (1 - s)),
// du = dy g s.
// source: lib/ops/swiglu.ts; Shazeer 2020 (arXiv:2002.05202) eq. 6. fp32 inside, one rounding at the end.
// tiling: a block takes a tile of one row, kSteps vectors of each half a thread, all loaded before the first is used.
// budget: bytes: 6 F a row forward, 10 F backward in bf16; at most 40 registers forward, 64 backward; no shared memory.
// limits: none; rows of F no multiple of 8 go by single elements.
// measured: H200, 8192 x 8192 bf16: 4066 GB/s; H100, backward: 2572, 86% of a copy. bench/results.
#include "common/elements.h"
#include "common/grid.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kSteps = 2;
constexpr int kThreads = 256;

__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

template <class T, int N> __global__ void __launch_bounds__(kThreads)
    swiglu_rows(const T* x, T* y, int64_t columns, unsigned tiles) {
  const int64_t row = blockIdx.x / tiles;
  const int64_t first = (int64_t{blockIdx.x % tiles} * kSteps * blockDim.x + threadIdx.x) * N;
  const int64_t stride = int64_t{blockDim.x} * N;
  const T* gates = x + row * 2 * columns;
  const T* ups = gates + columns;
  Vector<T, N> gate[kSteps], up[kSteps];
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int64_t i = first + k * stride;
    if (i >= columns) continue;
    gate[k] = load<N>(gates + i);
    up[k] = load<N>(ups + i);
  }
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int64_t i = first + k * stride;
    if (i >= columns) continue;
    float out[N];
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = gate[k][j] * sigmoid(gate[k][j]) * up[k][j];
    store(y + row * columns + i, out);
  }
}

// dx may lie over x: a thread reads its elements before it writes them.
template <class T, int N> __global__ void __launch_bounds__(kThreads)
    swiglu_backward_rows(const T* x, const T* dy, T* dx, int64_t columns, unsigned tiles) {
  const int64_t row = blockIdx.x / tiles;
  const int64_t first = (int64_t{blockIdx.x % tiles} * kSteps * blockDim.x + threadIdx.x) * N;
  const int64_t stride = int64_t{blockDim.x} * N;
  const T* gates = x + row * 2 * columns;
  const T* ups = gates + columns;
  Vector<T, N> gate[kSteps], up[kSteps], d[kSteps];
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int64_t i = first + k * stride;
    if (i >= columns) continue;
    gate[k] = load<N>(gates + i);
    up[k] = load<N>(ups + i);
    d[k] = load<N>(dy + row * columns + i);
  }
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int64_t i = first + k * stride;
    if (i >= columns) continue;
    float dgate[N], dup[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float g = gate[k][j], s = sigmoid(g);
      dgate[j] = d[k][j] * up[k][j] * s * fmaf(g, 1.0f - s, 1.0f);
      dup[j] = d[k][j] * g * s;
    }
    store(dx + row * 2 * columns + i, dgate);
    store(dx + row * 2 * columns + columns + i, dup);
  }
}

int64_t rows_of(const Tensor& t) { return t.last() ? t.size() / t.last() : 0; }

}  // namespace

void swiglu(const Swiglu& a, Stream& stream) {
  const int64_t columns = a.y.last(), rows = rows_of(a.y);
  typed(a.x, [&]<class T>(T* x) {
    by_width(columns, [&]<int N>(Access<N>) {
      const RowTiles cut(ceil_div(columns, N), kSteps, kThreads);
      stream.launch("swiglu", swiglu_rows<T, N>, grid_of(stream, "swiglu", rows * cut.tiles), cut.threads, 0, x, a.y.as<T>(),
                    columns, cut.tiles);
    });
  });
}

void swiglu_backward(const SwigluBackward& a, Stream& stream) {
  const int64_t columns = a.dy.last(), rows = rows_of(a.dy);
  typed(a.x, [&]<class T>(T* x) {
    by_width(columns, [&]<int N>(Access<N>) {
      const RowTiles cut(ceil_div(columns, N), kSteps, kThreads);
      stream.launch("swiglu_backward", swiglu_backward_rows<T, N>, grid_of(stream, "swiglu_backward", rows * cut.tiles),
                    cut.threads, 0, x, a.dy.as<T>(), a.dx.as<T>(), columns, cut.tiles);
    });
  });
}

}  // namespace attune::cuda
