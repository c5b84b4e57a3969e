// gemm: y = op(a) op(b) (+ bias) (+ onto)
#include "kernels.h"

#include <algorithm>

#define ATTUNE_FILE "../gemm.cc"
#include "common/foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

void gemm(const Gemm& a, Context& c) {
  const bool ta = a.ta != 0, tb = a.tb != 0;
  const int64_t m = a.y.shape[0], n = a.y.shape[1], k = ta ? a.a.shape[0] : a.a.shape[1];
  typed(a.a, [&](auto* x) {
    typed(a.y, [&](auto* y) {
      decltype(x) w = static_cast<decltype(x)>(a.b.data);
      c.parallel(m, [&](int64_t i, int) {
        for (int64_t j = 0; j < n; ++j) {
          float sum = 0;
          for (int64_t t = 0; t < k; ++t) sum += get(x + (ta ? t * m + i : i * k + t)) * get(w + (tb ? j * k + t : t * n + j));
          if (a.bias) typed(a.bias, [&](auto* bias) { sum += get(bias + j); });
          if (a.onto) typed(a.onto, [&](auto* onto) { sum += get(onto + i * n + j); });
          put(y + i * n + j, sum);
        }
      });
    });
  });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(gemm, Gemm)
#if ATTUNE_LEVEL == 0
int64_t attune::cpu::gemm_scratch(const Gemm&) { return 0; }
#endif
