// gather_rows: y[m] (C) = x[idx[m]] of x (R,C), zeros where idx[m] is no row. Backward: dx[r] = onto_dx[r] + the rows of dy that the
// index's transpose lists for r, in its order: nothing scatters, so the sum is the same every time.
// source: lib/ops/gather_rows.ts.
// tiling: a block takes a tile of one row. Backward, a block for each place of `order` (M) rather than for each row of dx (R, a
// vocabulary): the block at the first place of a row's list adds the whole list, the others leave. Rows with no list stay as they are in
// place; else a first pass gives them onto_dx or zeros.
// budget: bytes: forward 2 C an element of idx; backward C for each listed row and 2 C for each row that has a list. At most 80
// registers.
// limits: none. A row that is listed thousands of times is added by one block a tile, one row after another.
// measured: not yet.
#include "common/elements.h"
#include "common/grid.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kSteps = 4, kThreads = 256;
constexpr int kAhead = 8;  // rows of dy in flight

int64_t row_size(const Tensor& t) { return t.rows() ? t.size() / t.rows() : 0; }

// Rows as units of bytes: 16 where they fill the row, else an element.
template <class Unit> __global__ void __launch_bounds__(kThreads)
    gather_rows_copy(const Unit* x, const int32_t* idx, Unit* y, int64_t rows, int64_t units, unsigned tiles) {
  const int64_t to = blockIdx.x / tiles, from = idx[to];
  const int64_t first = int64_t{blockIdx.x % tiles} * kSteps * blockDim.x + threadIdx.x;
  const bool there = from >= 0 && from < rows;
  Unit unit[kSteps];
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int64_t i = first + k * blockDim.x;
    unit[k] = {};
    if (there && i < units) unit[k] = x[from * units + i];
  }
#pragma unroll
  for (int k = 0; k < kSteps; ++k)
    if (first + k * blockDim.x < units) y[to * units + first + k * blockDim.x] = unit[k];
}

template <class Unit> void copy_rows(const GatherRows& a, Stream& stream) {
  const int64_t units = row_size(a.x) * width(a.x.dtype) / static_cast<int64_t>(sizeof(Unit));
  const RowTiles cut(units, kSteps, kThreads);
  stream.launch("gather_rows", gather_rows_copy<Unit>, grid_of(stream, "gather_rows", a.idx.size() * cut.tiles), cut.threads, 0,
                a.x.as<Unit>(), a.idx.as<int32_t>(), a.y.as<Unit>(), a.x.rows(), units, cut.tiles);
}

// Rows of dx that no list adds to.
template <class X, int N> __global__ void __launch_bounds__(kThreads)
    gather_rows_backward_rest(const int32_t* length, const X* onto, X* dx, int64_t columns, unsigned tiles) {
  const int64_t row = blockIdx.x / tiles;
  const int64_t c = (int64_t{blockIdx.x % tiles} * blockDim.x + threadIdx.x) * N;
  if (c >= columns || length[row] != 0) return;
  float out[N] = {};
  if (onto) {
    const auto base = load<N>(onto + row * columns + c);
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = base[j];
  }
  store(dx + row * columns + c, out);
}

template <class D, class X, int N> __global__ void __launch_bounds__(kThreads, 3)
    gather_rows_backward_lists(const int32_t* idx, const int32_t* length, const int32_t* order, const D* dy, const X* onto, X* dx,
                               int64_t columns, unsigned tiles) {
  const int64_t place = blockIdx.x / tiles;
  const int64_t c = (int64_t{blockIdx.x % tiles} * blockDim.x + threadIdx.x) * N;
  order += place;
  const int64_t own = order[0], before = place > 0 ? order[-1] : -1;
  if (own < 0 || c >= columns) return;
  const int64_t row = idx[own];
  if (before >= 0 && idx[before] == row) return;
  dy += c;
  const int count = length[row];
  Vector<X, N> base = {};
  if (onto) base = load<N>(onto + row * columns + c);
  const auto first = load<N>(dy + own * columns);
  float sum[N];
#pragma unroll
  for (int j = 0; j < N; ++j) sum[j] = base[j] + first[j];
  int i = 1;
  for (; i + kAhead <= count; i += kAhead) {
    Vector<D, N> v[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) v[k] = load<N>(dy + order[i + k] * columns);
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] += v[k][j];
  }
  for (; i < count; ++i) {
    const auto v = load<N>(dy + order[i] * columns);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += v[j];
  }
  store(dx + row * columns + c, sum);
}

}  // namespace

void gather_rows(const GatherRows& a, Stream& stream) {
  if (row_size(a.x) * width(a.x.dtype) % 16 == 0)
    copy_rows<uint4>(a, stream);
  else if (width(a.x.dtype) == 4)
    copy_rows<unsigned>(a, stream);
  else
    copy_rows<unsigned short>(a, stream);
}

void gather_rows_backward(const GatherRowsBackward& a, Stream& stream) {
  const int64_t columns = row_size(a.dx);
  typed(a.dy, [&]<class D>(D* dy) {
    typed(a.dx, [&]<class X>(X* dx) {
      by_width(columns, [&]<int N>(Access<N>) {
        const RowTiles cut(ceil_div(columns, N), 1, kThreads);
        const X* onto = a.onto_dx.as<X>();
        if (onto != dx)
          stream.launch("gather_rows_backward_rest", gather_rows_backward_rest<X, N>,
                        grid_of(stream, "gather_rows_backward", a.dx.rows() * cut.tiles), cut.threads, 0, a.length.as<int32_t>(),
                        onto, dx, columns, cut.tiles);
        stream.launch("gather_rows_backward", gather_rows_backward_lists<D, X, N>,
                      grid_of(stream, "gather_rows_backward", a.idx.size() * cut.tiles), cut.threads, 0, a.idx.as<int32_t>(),
                      a.length.as<int32_t>(), a.order.as<int32_t>(), dy, onto, dx, columns, cut.tiles);
      });
    });
  });
}

}  // namespace attune::cuda
