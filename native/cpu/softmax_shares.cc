// softmax_shares_backward: dlogits (M, V) = dlogp ([v = target] - shares e^(top - lse)), at the target 1 - e^logp; tops (M, V / 192) are of
// tiles of 192 columns. target < 0: 0. May lie over shares. source: lib/ops/softmax_shares.ts
#include "kernels.h"

#include <algorithm>
#include <cmath>

#include "../runtime/top_columns.h"

#define ATTUNE_FILE "../softmax_shares.cc"
#include "common/foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kRows = 4;  // of a task

template <class T> void backward(const SoftmaxSharesBackward& a, Context& c, const T* shares, T* dlogits) {
  const int64_t rows = a.targets.size(), columns = a.shares.last(), tiles = a.tops.last();
  const int32_t* targets = a.targets.as<int32_t>();
  c.parallel((rows + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t r = task * kRows, end = std::min(rows, r + kRows); r < end; ++r) {
      T* d = dlogits + r * columns;
      const int32_t t = targets[r];
      if (t < 0 || t >= columns) {
        std::memset(static_cast<void*>(d), 0, static_cast<size_t>(columns) * sizeof(T));
        continue;
      }
      const float gain = a.dlogp.as<float>()[r], lse = a.lse.as<float>()[r];
      for (int64_t i = 0; i < columns; i += kTopColumns) {
        const V factor = set(-gain * std::exp(a.tops.as<float>()[r * tiles + i / kTopColumns] - lse));
        const T* own = shares + r * columns + i;
        lanes(std::min(kTopColumns, columns - i), [&](int64_t k, auto m) { store(d + i + k, factor * load(own + k, m), m); });
      }
      put(d + t, gain * (1.0f - std::exp(a.logp.as<float>()[r])));
    }
  });
}

void softmax_shares_backward(const SoftmaxSharesBackward& a, Context& c) {
  typed(a.shares, [&]<class T>(T* shares) { backward(a, c, static_cast<const T*>(shares), a.dlogits.as<T>()); });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(softmax_shares_backward, SoftmaxSharesBackward)
