// sum_squares: y = sum of x^2, in double over pieces of 64 Ki elements, the pieces added in order.
#include "kernels.h"

#include <algorithm>

#define ATTUNE_FILE "../sum_squares.cc"
#include "common/foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kPiece = 1 << 16;

int64_t pieces(const SumSquares& a) { return (a.x.size() + kPiece - 1) / kPiece; }

template <class T> double piece(const T* x, int64_t n) {
  constexpr int kLanes = 32;
  double sum[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; ++j) {
      const double v = get(x + i + j);
      sum[j] += v * v;
    }
  for (int j = 0; i + j < n; ++j) {
    const double v = get(x + i + j);
    sum[j] += v * v;
  }
  for (int w = kLanes / 2; w > 0; w /= 2)
    for (int j = 0; j < w; ++j) sum[j] += sum[j + w];
  return sum[0];
}

void sum_squares(const SumSquares& a, Context& c) {
  const int64_t n = a.x.size(), count = pieces(a);
  double* partial = static_cast<double*>(c.scratch());
  typed(a.x, [&](auto* x) {
    c.parallel(count, [&](int64_t i, int) { partial[i] = piece(x + i * kPiece, std::min(kPiece, n - i * kPiece)); });
  });
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += partial[i];
  *a.y.as<float>() = static_cast<float>(total);
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(sum_squares, SumSquares)
#if ATTUNE_LEVEL == 0
int64_t attune::cpu::sum_squares_scratch(const SumSquares& a) {
  return baseline::pieces(a) * static_cast<int64_t>(sizeof(double));
}
#endif
