// linear_logprob: log_softmax_gather of hidden (M, C) times weight (V, C) transposed; the logits never exist at (M, V).
#include "kernels.h"

#include <algorithm>
#include <cmath>

#define ATTUNE_FILE "../linear_logprob.cc"
#include "common/foreach_isa.h"
#include "common/softmax_part.inl"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kColumns = 1024;

void linear_logprob(const LinearLogprob& a, Context& c) {
  const int64_t rows = a.targets.size(), width = a.hidden.last(), columns = a.weight.rows();
  const RowOutputs out{a.logp.as<float>(), a.lse.as<float>(), a.entropy.as<float>(), a.hit.as<float>()};
  typed(a.hidden, [&](auto* hidden) {
    decltype(hidden) weight = static_cast<decltype(hidden)>(a.weight.data);
    c.parallel(rows, [&](int64_t r, int thread) {
      float* x = static_cast<float*>(c.thread_scratch(thread));
      const int32_t t = a.targets.as<int32_t>()[r];
      const bool scored = t >= 0 && t < columns;
      float logit = 0;
      Part total;
      for (int64_t i = 0; i < columns; i += kColumns) {
        const int64_t n = std::min(kColumns, columns - i);
        for (int64_t j = 0; j < n; ++j) {
          float sum = 0;
          for (int64_t k = 0; k < width; ++k) sum += get(hidden + r * width + k) * get(weight + (i + j) * width + k);
          x[j] = sum;
        }
        if (scored && t >= i && t < i + n) logit = x[t - i];
        join(total, part_of(x, n, out.entropy != nullptr));
      }
      out.write(r, scored, logit, total);
    });
  });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(linear_logprob, LinearLogprob)
#if ATTUNE_LEVEL == 0
int64_t attune::cpu::linear_logprob_scratch(const LinearLogprob&) { return 0; }
#endif
