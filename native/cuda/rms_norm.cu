// rms_norm: y[n,c] = w[c] x[n,c] r[n], r[n] = 1 / sqrt(mean_c x[n,c]^2 + eps). Backward, g = dy w: dx = r (g - x r^2 mean_c(g x)) + onto_dx,
// dw[c] = onto_dw[c] + sum_n dy[n,c] r[n] x[n,c].
// source: lib/ops/rms_norm.ts; Zhang & Sennrich 2019 (arXiv:1910.07467) eq. 4. fp32 inside, one rounding at the end.
// tiling: a block holds one row in registers (common/row.h). Backward, a block takes every parts-th row, loads the next while it
// sums this one, and keeps its part of dw in registers; the parts are added in order. Their number follows the shape alone.
// budget: bytes a row in bf16: 4 C forward, 6 C backward (8 C onto a gradient). Registers: 48 forward, 128 backward (64 beyond C = 8192).
// limits: C <= 16384, or 8192 where C is no multiple of 8.
// measured: not yet.
#include "common/column_sums.h"
#include "common/reduce.h"
#include "common/row.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

// Parts of dw: 8192 columns of work for each of an H200's 132 multiprocessors, whatever the device.
int64_t parts_for(int64_t columns) { return 132 * std::clamp<int64_t>(8192 / columns, 1, 16); }

int64_t rows_of(const Tensor& x) { return x.last() ? x.size() / x.last() : 0; }
int64_t partials_of(const RmsNormBackward& a) { return std::min(rows_of(a.x), parts_for(a.x.last())); }

template <class T, class W, int N, int K, int kThreads>
__global__ void __launch_bounds__(kThreads) forward(const T* x, const W* w, T* y, float* rstd, int64_t columns, float eps) {
  ATTUNE_SHARED(float, sums, kWarps);
  const int64_t row = blockIdx.x;
  const auto xs = load_row<N, K>(x + row * columns, columns);
  const auto ws = load_row<N, K>(w, columns);
  float squares = 0;
#pragma unroll
  for (int k = 0; k < K; ++k)
#pragma unroll
    for (int j = 0; j < N; ++j) squares = fmaf(xs.part[k][j], xs.part[k][j], squares);
  const float r = 1.0f / sqrtf(block_sum(squares, sums) / static_cast<float>(columns) + eps);
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
template <class T, class W, int N, int K, int kThreads>
__global__ void __launch_bounds__(kThreads) backward(const T* x, const W* w, const float* rstd, const T* dy, const T* onto, T* dx,
                                                     float* partials, int64_t rows, int64_t columns) {
  ATTUNE_SHARED(float, sums, 2 * kWarps);
  constexpr bool kEarly = kThreads <= 512;  // else two rows do not fit the registers
  const auto ws = load_row<N, K>(w, columns);
  float dw[K][N] = {};
  auto next_x = load_row<N, K>(x + int64_t{blockIdx.x} * columns, columns);
  auto next_dy = load_row<N, K>(dy + int64_t{blockIdx.x} * columns, columns);
  int turn = 0;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const auto xs = next_x, dys = next_dy;
    const int64_t next = row + gridDim.x;
    auto fetch = [&] {
      if (next >= rows) return;
      next_x = load_row<N, K>(x + next * columns, columns);
      next_dy = load_row<N, K>(dy + next * columns, columns);
    };
    if (kEarly) fetch();
    const float r = rstd[row];
    float dot = 0;
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int j = 0; j < N; ++j) {
        dw[k][j] = fmaf(dys.part[k][j] * r, xs.part[k][j], dw[k][j]);
        dot = fmaf(dys.part[k][j] * ws.part[k][j], xs.part[k][j], dot);
      }
    if (!dx) {
      if (!kEarly) fetch();
      continue;
    }
    Row<T, N, K> base = {};
    if (onto) base = load_row<N, K>(onto + row * columns, columns);
    // Two places in turn: a warp may be a row ahead of one that still reads.
    const float shift = block_sum(dot, sums + turn * kWarps) / static_cast<float>(columns) * r * r;
    turn ^= 1;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int64_t c = column_of<N>(k);
      if (c >= columns) continue;
      float out[N];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float g = r * fmaf(-xs.part[k][j], shift, dys.part[k][j] * ws.part[k][j]);
        out[j] = onto ? g + base.part[k][j] : g;
      }
      store(dx + row * columns + c, out);
    }
    if (!kEarly) fetch();
  }
  if (!partials) return;
#pragma unroll
  for (int k = 0; k < K; ++k)
    if (column_of<N>(k) < columns) store(partials + int64_t{blockIdx.x} * columns + column_of<N>(k), dw[k]);
}

}  // namespace

int64_t rms_norm_backward_scratch(const RmsNormBackward& a) {
  return a.dw ? partials_of(a) * a.x.last() * static_cast<int64_t>(sizeof(float)) : 0;
}

void rms_norm(const RmsNorm& a, Stream& stream) {
  const int64_t columns = a.x.last(), rows = rows_of(a.x);
  typed(a.x, [&]<class T>(T* x) {
    typed(a.w, [&]<class W>(W* w) {
      by_row(stream, "rms_norm", columns, [&]<int N, int K, int kThreads>() {
        stream.launch("rms_norm", forward<T, W, N, K, kThreads>, grid_of(stream, "rms_norm", rows), row_threads<N, K>(columns), 0, x, w,
                      a.y.as<T>(), a.rstd.as<float>(), columns, static_cast<float>(a.eps));
      });
    });
  });
}

void rms_norm_backward(const RmsNormBackward& a, Stream& stream) {
  const int64_t columns = a.x.last(), rows = rows_of(a.x);
  float* partials = a.dw ? stream.scratch<float>() : nullptr;
  typed(a.x, [&]<class T>(T* x) {
    typed(a.w, [&]<class W>(W* w) {
      by_row(stream, "rms_norm_backward", columns, [&]<int N, int K, int kThreads>() {
        stream.launch("rms_norm_backward", backward<T, W, N, K, kThreads>, grid_of(stream, "rms_norm_backward", partials_of(a)),
                      row_threads<N, K>(columns), 0, x, w, a.rstd.as<float>(), a.dy.as<T>(), a.onto_dx.as<T>(), a.dx.as<T>(), partials, rows,
                      columns);
      });
    });
  });
  if (a.dw) add_columns(stream, "rms_norm_backward_sum", partials, partials_of(a), a.onto_dw, a.dw);
}

}  // namespace attune::cuda
