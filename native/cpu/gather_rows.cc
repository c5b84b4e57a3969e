// gather_rows: y[j] = x[idx[j]], rows of zeros where idx[j] < 0. Its backward adds, for each row r of x, the rows of dy that the
// index's transpose lists for r, in its order: nothing scatters, so nothing depends on threads. source: lib/ops/gather_rows.ts
#include "kernels.h"

#include <algorithm>

#define ATTUNE_FILE "../gather_rows.cc"
#include "common/foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kRows = 64, kColumns = 1024;  // of a task
constexpr int kRun = 4;                         // vectors summed at a time

int64_t row_size(const Tensor& t) {
  int64_t n = 1;
  for (int32_t i = 1; i < t.rank; ++i) n *= t.shape[i];
  return n;
}

void gather_rows(const GatherRows& a, Context& c) {
  const int64_t m = a.idx.size(), r = a.x.rows(), bytes = row_size(a.x) * width(a.x.dtype);
  const int32_t* idx = a.idx.as<int32_t>();
  const char* x = a.x.as<char>();
  char* y = a.y.as<char>();
  c.parallel((m + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t j = task * kRows, end = std::min(m, j + kRows); j < end; ++j)
      if (idx[j] >= 0 && idx[j] < r)
        std::memcpy(y + j * bytes, x + idx[j] * bytes, static_cast<size_t>(bytes));
      else
        std::memset(y + j * bytes, 0, static_cast<size_t>(bytes));
  });
}

template <class T, class D, class O>
void backward(const GatherRowsBackward& a, Context& c, const T* dy, D* dx, const O* onto) {
  const int64_t rows = a.dx.rows(), columns = row_size(a.dx), across = (columns + kColumns - 1) / kColumns;
  const int32_t *start = a.start.as<int32_t>(), *length = a.length.as<int32_t>(), *order = a.order.as<int32_t>();
  const bool in_place = static_cast<const void*>(onto) == static_cast<const void*>(dx);
  c.parallel((rows + kRows - 1) / kRows * across, [&](int64_t task, int) {
    const int64_t first = task / across * kRows, last = std::min(rows, first + kRows);
    const int64_t left = task % across * kColumns, right = std::min(columns, left + kColumns);
    for (int64_t r = first; r < last; ++r) {
      if (length[r] == 0 && in_place) continue;
      const int32_t* list = order + start[r];
      int64_t i = left;
      for (; i + kRun * V::W <= right; i += kRun * V::W) {
        V sum[kRun];
        for (int v = 0; v < kRun; ++v) sum[v] = onto ? load(onto + r * columns + i + v * V::W) : zero();
        for (int32_t j = 0; j < length[r]; ++j)
          for (int v = 0; v < kRun; ++v) sum[v] = sum[v] + load(dy + list[j] * columns + i + v * V::W);
        for (int v = 0; v < kRun; ++v) store(dx + r * columns + i + v * V::W, sum[v]);
      }
      lanes(right - i, [&](int64_t k, auto m) {
        V sum = onto ? load(onto + r * columns + i + k, m) : zero();
        for (int32_t j = 0; j < length[r]; ++j) sum = sum + load(dy + list[j] * columns + i + k, m);
        store(dx + r * columns + i + k, sum, m);
      });
    }
  });
}

void gather_rows_backward(const GatherRowsBackward& a, Context& c) {
  typed(a.dy, [&](auto* dy) {
    typed(a.dx, [&](auto* dx) { typed(a.onto_dx, [&](auto* onto) { backward(a, c, dy, dx, onto); }); });
  });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(gather_rows, GatherRows)
ATTUNE_KERNEL(gather_rows_backward, GatherRowsBackward)
