// sum_rows: y (C) = onto + sum over n of x (N,C), in fp32: the gradient of a bias.
// source: lib/ops/sum_rows.ts.
// tiling: parts of kRows rows or more, at most kParts of them; a thread adds one vector of columns down its part, then the parts are
// added in order. Few rows skip the first pass.
// budget: bytes: x once, and 4 C a part twice, from the level-2 cache. At most 48 registers.
// limits: none.
// measured: not yet.
#include "common/column_sums.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int64_t kRows = 64;    // of a part, at least
constexpr int64_t kParts = 512;  // at most
constexpr int kThreads = 256;

int64_t rows_of(const SumRows& a) { return a.x.rank > 1 ? a.x.rows() : 1; }
int64_t rows_of_part(int64_t rows) { return std::max(kRows, ceil_div(rows, kParts)); }
bool in_parts(const SumRows& a) { return rows_of(a) > 4 * kRows; }

// A block takes one part and a tile of its columns. parts (gridDim / tiles, C).
template <class X, int N> __global__ void __launch_bounds__(kThreads)
    sum_rows_parts(const X* x, float* parts, int64_t rows, int64_t columns, int64_t rows_of_part, unsigned tiles) {
  const int64_t part = blockIdx.x / tiles, first = part * rows_of_part;
  const int64_t last = first + rows_of_part < rows ? first + rows_of_part : rows;
  const int64_t c = (int64_t{blockIdx.x % tiles} * blockDim.x + threadIdx.x) * N;
  if (c >= columns) return;
  float sum[N] = {};
#pragma unroll 4
  for (int64_t row = first; row < last; ++row) {
    const auto v = load<N>(x + row * columns + c);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += v[j];
  }
  store(parts + part * columns + c, sum);
}

}  // namespace

int64_t sum_rows_scratch(const SumRows& a) {
  if (!in_parts(a)) return 0;
  return ceil_div(rows_of(a), rows_of_part(rows_of(a))) * a.x.last() * static_cast<int64_t>(sizeof(float));
}

void sum_rows(const SumRows& a, Stream& stream) {
  const int64_t rows = rows_of(a), columns = a.x.last();
  typed(a.x, [&]<class X>(X* x) {
    if (!in_parts(a)) return add_columns(stream, "sum_rows", x, rows, a.onto, a.y);
    const int64_t height = rows_of_part(rows), parts = ceil_div(rows, height);
    by_width(columns, [&]<int N>(Access<N>) {
      const RowTiles cut(ceil_div(columns, N), 1, kThreads);
      stream.launch("sum_rows", sum_rows_parts<X, N>, grid_of(stream, "sum_rows", parts * cut.tiles), cut.threads, 0, x,
                    stream.scratch<float>(), rows, columns, height, cut.tiles);
    });
    add_columns(stream, "sum_rows_parts", stream.scratch<float>(), parts, a.onto, a.y);
  });
}

}  // namespace attune::cuda
