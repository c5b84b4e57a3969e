// log_softmax_gather: of each row of logits (M, V), lse = log sum exp, logp = logits[target] - lse, the entropy of the softmax, and
// hit = 1 where the target's logit is the highest, the logits' mean; fp32 inside. target < 0: all but lse are 0. Any output may be absent.
// Backward: dlogits = dlogp ([v = target] - exp(logits - lse)), rows of 0 where target < 0; may lie over logits.
#include "kernels.h"

#include <algorithm>
#include <cmath>

#define ATTUNE_FILE "../log_softmax_gather.cc"
#include "common/foreach_isa.h"
#include "common/softmax_part.inl"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kRows = 4, kColumns = 4096;  // of a task; columns of a run of the softmax

template <class T> void forward(const LogSoftmaxGather& a, Context& c, const T* logits) {
  const int64_t rows = a.targets.size(), columns = a.logits.last();
  const int32_t* targets = a.targets.as<int32_t>();
  const RowOutputs out{a.logp.as<float>(), a.lse.as<float>(), a.entropy.as<float>(), a.hit.as<float>(), a.mean.as<float>(), columns};
  c.parallel((rows + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t r = task * kRows, end = std::min(rows, r + kRows); r < end; ++r) {
      const T* x = logits + r * columns;
      Part total;
      for (int64_t i = 0; i < columns; i += kColumns)
        join(total, part_of(x + i, std::min(kColumns, columns - i), out.entropy != nullptr, out.mean != nullptr));
      const int32_t t = targets[r];
      const bool scored = t >= 0 && t < columns;
      out.write(r, scored, scored ? get(x + t) : 0.0f, total);
    }
  });
}

void log_softmax_gather(const LogSoftmaxGather& a, Context& c) {
  typed(a.logits, [&](auto* logits) { forward(a, c, logits); });
}

template <class T, class D> void backward(const LogSoftmaxGatherBackward& a, Context& c, const T* logits, D* dlogits) {
  const int64_t rows = a.targets.size(), columns = a.logits.last();
  const int32_t* targets = a.targets.as<int32_t>();
  c.parallel((rows + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t r = task * kRows, end = std::min(rows, r + kRows); r < end; ++r) {
      const T* x = logits + r * columns;
      D* d = dlogits + r * columns;
      const int32_t t = targets[r];
      if (t < 0 || t >= columns) {
        std::memset(static_cast<void*>(d), 0, static_cast<size_t>(columns) * sizeof(D));
        continue;
      }
      const float gain = a.dlogp.as<float>()[r], lse = a.lse.as<float>()[r];
      const float at = get(x + t);
      lanes(columns, [&](int64_t i, auto m) { store(d + i, set(-gain) * exp(load(x + i, m) - set(lse)), m); });
      float p[V::W];
      store(p, exp(set(at) - set(lse)));
      put(d + t, gain * (1.0f - p[0]));
    }
  });
}

void log_softmax_gather_backward(const LogSoftmaxGatherBackward& a, Context& c) {
  typed(a.logits, [&](auto* logits) { typed(a.dlogits, [&](auto* dlogits) { backward(a, c, logits, dlogits); }); });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(log_softmax_gather, LogSoftmaxGather)
ATTUNE_KERNEL(log_softmax_gather_backward, LogSoftmaxGatherBackward)
