// sum_rows: y[c] = (onto[c]) + sum over rows of x[n, c], in fp32: the gradient of a bias. Runs of 128 rows are summed first, then
// added to the total, so that the error stays small over many tokens.
#include "kernels.h"

#include <algorithm>

#define ATTUNE_FILE "../sum_rows.cc"
#include "common/foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

constexpr int kWide = 4;           // vectors of a task
constexpr int64_t kBlock = 128;    // rows of a run

template <int N, class T, class Mask> ATTUNE_INLINE void columns(const T* x, int64_t n, int64_t stride, V* total, Mask m) {
  for (int v = 0; v < N; ++v) total[v] = zero();
  for (int64_t i = 0; i < n; i += kBlock) {
    V sum[N];
    for (int v = 0; v < N; ++v) sum[v] = zero();
    for (int64_t k = i, end = std::min(n, i + kBlock); k < end; ++k)
      for (int v = 0; v < N; ++v) sum[v] = sum[v] + load(x + k * stride + v * V::W, m);
    for (int v = 0; v < N; ++v) total[v] = total[v] + sum[v];
  }
}

template <class T, class O, class Y> void run(const SumRows& a, Context& c, const T* x, const O* onto, Y* y) {
  const int64_t width = a.x.last(), n = a.x.rank > 1 ? a.x.rows() : 1;
  constexpr int64_t kStep = kWide * V::W;
  c.parallel((width + kStep - 1) / kStep, [&](int64_t task, int) {
    const int64_t left = task * kStep, right = std::min(width, left + kStep);
    auto finish = [&](int64_t i, V sum, auto m) { store(y + i, onto ? sum + load(onto + i, m) : sum, m); };
    V total[kWide];
    if (right - left == kStep) {
      columns<kWide>(x + left, n, width, total, All{});
      for (int v = 0; v < kWide; ++v) finish(left + v * V::W, total[v], All{});
      return;
    }
    lanes(right - left, [&](int64_t i, auto m) {
      columns<1>(x + left + i, n, width, total, m);
      finish(left + i, total[0], m);
    });
  });
}

void sum_rows(const SumRows& a, Context& c) {
  typed(a.x, [&](auto* x) { typed(a.onto, [&](auto* onto) { typed(a.y, [&](auto* y) { run(a, c, x, onto, y); }); }); });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(sum_rows, SumRows)
