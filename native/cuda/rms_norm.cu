// rms_norm: y[n,c] = w[c] x[n,c] r[n], r[n] = 1 / sqrt(mean_c x[n,c]^2 + eps). Backward, g = dy w: dx = r (g - x r^2 mean_c(g x)) + onto_dx,
// dw[c] = onto_dw[c] + sum_n dy[n,c] r[n] x[n,c].
// source: lib/ops/rms_norm.ts; Zhang & Sennrich 2019 (arXiv:1910.07467) eq. 4. fp32 inside, one rounding at the end.
// tiling: a block holds one row in registers (common/row.h). Backward, a block takes every parts-th row, loads the next while it
// sums this one, and keeps its part of dw in registers; the parts are added in order. Their number follows the shape alone.
// budget: bytes a row in bf16: 4 C forward, 6 C backward (8 C onto a gradient). Registers: 48 forward, 128 backward.
// limits: none; rows longer than 8192, or of no multiple of 8, are read twice from memory or the level-2 cache.
// measured: H200, 16384 x 4096 bf16: 3805 GB/s, backward 3702; backward 32768 x 896 in a step: 3564. bench/results.
#include "common/column_sums.h"
#include "common/reduce.h"
#include "common/row.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

// `inverse` is 1 / C throughout.

// Parts of dw: as many blocks as an H200's 132 multiprocessors hold at once, which is 8192 columns each in whole warps, whatever the device.
int64_t parts_for(int64_t columns) {
  const int64_t of_warp = kWarp * kWide * (columns <= kWide * 256 ? 1 : 2);  // common/row.h
  return 132 * std::clamp<int64_t>(8192 / (std::max<int64_t>(ceil_div(columns, of_warp), 1) * of_warp), 1, 16);
}

constexpr int kLongThreads = 512;

int64_t rows_of(const Tensor& x) { return x.last() ? x.size() / x.last() : 0; }
int64_t parts_of(const RmsNormBackward& a) { return std::min(rows_of(a.x), parts_for(a.x.last())); }

template <class T, class W, int N, int K, int kThreads> __global__ void __launch_bounds__(kThreads)
    rms_norm_rows(const T* x, const W* w, T* y, float* rstd, int64_t columns, float inverse, float eps) {
  ATTUNE_SHARED(float, sums, kWarps);
  const int64_t row = blockIdx.x;
  const auto xs = load_row<N, K>(x + row * columns, columns);
  const auto ws = load_row<N, K>(w, columns);
  float squares = 0;
#pragma unroll
  for (int k = 0; k < K; ++k)
#pragma unroll
    for (int j = 0; j < N; ++j) squares = fmaf(xs.part[k][j], xs.part[k][j], squares);
  const float r = rsqrtf(block_sum(squares, sums) * inverse + eps);
  if (rstd && threadIdx.x == 0) rstd[row] = r;
  if (!y) return;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int64_t c = column_of<N>(k);
    if (c >= columns) continue;
    float out[N];
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = xs.part[k][j] * r * ws.part[k][j];
    store(y + row * columns + c, out);
  }
}

// dx may lie over dy or onto: a thread has read its elements of a row before it writes them. partials (gridDim, C), or null.
template <class T, class W, int N, int K, int kThreads> __global__ void __launch_bounds__(kThreads)
    rms_norm_backward_rows(const T* x, const W* w, const float* rstd, const T* dy, const T* onto, T* dx, float* partials,
                           int64_t rows, int64_t columns, float inverse) {
  ATTUNE_SHARED(float, sums, 2 * kWarps);
  const auto ws = load_row<N, K>(w, columns);
  float dw[K][N] = {};
  auto next_x = load_row<N, K>(x + int64_t{blockIdx.x} * columns, columns);
  auto next_dy = load_row<N, K>(dy + int64_t{blockIdx.x} * columns, columns);
  float next_r = rstd[blockIdx.x];
  int turn = 0;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const auto xs = next_x, dys = next_dy;
    const float r = next_r;
    if (const int64_t next = row + gridDim.x; next < rows) {
      next_x = load_row<N, K>(x + next * columns, columns);
      next_dy = load_row<N, K>(dy + next * columns, columns);
      next_r = rstd[next];
    }
    float dot = 0;
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int j = 0; j < N; ++j) {
        dw[k][j] = fmaf(dys.part[k][j] * r, xs.part[k][j], dw[k][j]);
        dot = fmaf(dys.part[k][j] * ws.part[k][j], xs.part[k][j], dot);
      }
    if (!dx) continue;
    Row<T, N, K> base = {};
    if (onto) base = load_row<N, K>(onto + row * columns, columns);
    // Two places in turn: a warp may be a row ahead of one that still reads.
    const float shift = block_sum(dot, sums + turn * kWarps) * inverse * r * r;
    turn ^= 1;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int64_t c = column_of<N>(k);
      if (c >= columns) continue;
      float out[N];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float g = r * fmaf(-xs.part[k][j], shift, dys.part[k][j] * ws.part[k][j]);
        out[j] = g + base.part[k][j];
      }
      store(dx + row * columns + c, out);
    }
  }
  if (!partials) return;
#pragma unroll
  for (int k = 0; k < K; ++k)
    if (column_of<N>(k) < columns) store(partials + int64_t{blockIdx.x} * columns + column_of<N>(k), dw[k]);
}

// The same for rows that no block's registers hold: each is read twice, and dw in a launch of its own.
template <class T, class W, int N> __global__ void __launch_bounds__(kLongThreads)
    rms_norm_long_rows(const T* x, const W* w, T* y, float* rstd, int64_t columns, float inverse, float eps) {
  ATTUNE_SHARED(float, sums, kWarps);
  const int64_t row = blockIdx.x;
  x += row * columns;
  float squares = 0;
  for (int64_t c = threadIdx.x * N; c < columns; c += kLongThreads * N) {
    const auto xs = load<N>(x + c);
#pragma unroll
    for (int j = 0; j < N; ++j) squares = fmaf(xs[j], xs[j], squares);
  }
  const float r = rsqrtf(block_sum(squares, sums) * inverse + eps);
  if (rstd && threadIdx.x == 0) rstd[row] = r;
  if (!y) return;
  for (int64_t c = threadIdx.x * N; c < columns; c += kLongThreads * N) {
    const auto xs = load<N>(x + c);
    const auto ws = load<N>(w + c);
    float out[N];
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = xs[j] * r * ws[j];
    store(y + row * columns + c, out);
  }
}

template <class T, class W, int N> __global__ void __launch_bounds__(kLongThreads)
    rms_norm_backward_long_rows(const T* x, const W* w, const float* rstd, const T* dy, const T* onto, T* dx, int64_t columns,
                                float inverse) {
  ATTUNE_SHARED(float, sums, kWarps);
  const int64_t row = blockIdx.x;
  const float r = rstd[row];
  float dot = 0;
  for (int64_t c = threadIdx.x * N; c < columns; c += kLongThreads * N) {
    const auto xs = load<N>(x + row * columns + c), dys = load<N>(dy + row * columns + c);
    const auto ws = load<N>(w + c);
#pragma unroll
    for (int j = 0; j < N; ++j) dot = fmaf(dys[j] * ws[j], xs[j], dot);
  }
  const float shift = block_sum(dot, sums) * inverse * r * r;
  for (int64_t c = threadIdx.x * N; c < columns; c += kLongThreads * N) {
    const auto xs = load<N>(x + row * columns + c), dys = load<N>(dy + row * columns + c);
    const auto ws = load<N>(w + c);
    Vector<T, N> base = {};
    if (onto) base = load<N>(onto + row * columns + c);
    float out[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float g = r * fmaf(-xs[j], shift, dys[j] * ws[j]);
      out[j] = g + base[j];
    }
    store(dx + row * columns + c, out);
  }
}

// partials (gridDim.y, C): a block adds every gridDim.y-th row of its columns. Runs before dx is written, which may lie over dy.
template <class T, int N> __global__ void __launch_bounds__(kLongThreads)
    rms_norm_dw_long_rows(const T* x, const float* rstd, const T* dy, float* partials, int64_t rows, int64_t columns) {
  const int64_t c = (int64_t{blockIdx.x} * kLongThreads + threadIdx.x) * N;
  if (c >= columns) return;
  float sum[N] = {};
#pragma unroll 2
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const auto xs = load<N>(x + row * columns + c), dys = load<N>(dy + row * columns + c);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = fmaf(dys[j] * rstd[row], xs[j], sum[j]);
  }
  store(partials + blockIdx.y * columns + c, sum);
}

template <class T, class W> void run(const RmsNorm& a, Stream& stream, const T* x, const W* w) {
  const int64_t columns = a.x.last();
  const dim3 grid = grid_of(stream, "rms_norm", rows_of(a.x));
  T* y = a.y.as<T>();
  float* rstd = a.rstd.as<float>();
  const float inverse = 1.0f / static_cast<float>(columns), eps = static_cast<float>(a.eps);
  if (by_row(columns, [&]<int N, int K, int kThreads>() {
        stream.launch("rms_norm", rms_norm_rows<T, W, N, K, kThreads>, grid, row_threads<N, K>(columns), 0, x, w, y, rstd, columns,
                      inverse, eps);
      }))
    return;
  by_width(columns, [&]<int N>(Access<N>) {
    stream.launch("rms_norm", rms_norm_long_rows<T, W, N>, grid, kLongThreads, 0, x, w, y, rstd, columns, inverse, eps);
  });
}

template <class T, class W> void run(const RmsNormBackward& a, Stream& stream, const T* x, const W* w) {
  constexpr const char* name = "rms_norm_backward";
  const int64_t columns = a.x.last(), rows = rows_of(a.x), parts = parts_of(a);
  const float* rstd = a.rstd.as<float>();
  const T *dy = a.dy.as<T>(), *onto = a.onto_dx.as<T>();
  T* dx = a.dx.as<T>();
  float* partials = a.dw ? stream.scratch<float>() : nullptr;
  const float inverse = 1.0f / static_cast<float>(columns);
  if (by_row(columns, [&]<int N, int K, int kThreads>() {
        stream.launch(name, rms_norm_backward_rows<T, W, N, K, kThreads>, grid_of(stream, name, parts), row_threads<N, K>(columns),
                      0, x, w, rstd, dy, onto, dx, partials, rows, columns, inverse);
      }))
    return;
  by_width(columns, [&]<int N>(Access<N>) {
    const dim3 tiles(static_cast<unsigned>(ceil_div(columns, kLongThreads * N)), static_cast<unsigned>(parts));
    if (partials) stream.launch(name, rms_norm_dw_long_rows<T, N>, tiles, kLongThreads, 0, x, rstd, dy, partials, rows, columns);
    if (dx)
      stream.launch(name, rms_norm_backward_long_rows<T, W, N>, grid_of(stream, name, rows), kLongThreads, 0, x, w, rstd, dy, onto,
                    dx, columns, inverse);
  });
}

}  // namespace

int64_t rms_norm_backward_scratch(const RmsNormBackward& a) {
  return a.dw ? parts_of(a) * a.x.last() * static_cast<int64_t>(sizeof(float)) : 0;
}

void rms_norm(const RmsNorm& a, Stream& stream) {
  typed(a.x, [&]<class T>(T* x) { typed(a.w, [&]<class W>(W* w) { run(a, stream, x, w); }); });
}

void rms_norm_backward(const RmsNormBackward& a, Stream& stream) {
  typed(a.x, [&]<class T>(T* x) { typed(a.w, [&]<class W>(W* w) { run(a, stream, x, w); }); });
  if (a.dw) add_columns(stream, "rms_norm_backward_sum", stream.scratch<float>(), parts_of(a), a.onto_dw, a.dw);
}

}  // namespace attune::cuda
