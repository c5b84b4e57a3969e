// adamw: one AdamW update of flat parameters in one pass over memory, in torch.optim.AdamW's order (Loshchilov & Hutter 2019,
// arXiv:1711.05101, algorithm 2): d = g scale; m = b1 m + (1 - b1) d; v = b2 v + (1 - b2) d^2;
// p = p (1 - lr decay) - (lr / bias1) m / (sqrt(v) / sqrt(bias2) + eps).
// The parameter is `master` (fp32) where there is one, `w` being its rounded copy; else `w` itself.
#include "kernels.h"

#include <algorithm>
#include <cmath>

#define ATTUNE_FILE "../adamw.cc"
#include "common/foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kPiece = 1 << 14;  // elements of a task

template <class G, class P, class W>
void run(const Adamw& a, Context& c, const G* g, const P* p, W* w2) {
  const double rate = *a.lr.as<float>();
  const V scale = set(*a.scale.as<float>()), keep = set(static_cast<float>(1 - rate * a.decay));
  const V beta1 = set(static_cast<float>(a.beta1)), gain1 = set(static_cast<float>(1 - a.beta1));
  const V beta2 = set(static_cast<float>(a.beta2)), gain2 = set(static_cast<float>(1 - a.beta2));
  const V step = set(static_cast<float>(rate / *a.bias1.as<float>())), eps = set(static_cast<float>(a.eps));
  const V root = set(static_cast<float>(1 / std::sqrt(static_cast<double>(*a.bias2.as<float>()))));
  const float *m = a.m.as<float>(), *v = a.v.as<float>();
  float *m2 = a.m2.as<float>(), *v2 = a.v2.as<float>(), *master2 = a.master2.as<float>();
  const int64_t n = a.g.size();
  c.parallel((n + kPiece - 1) / kPiece, [&](int64_t task, int) {
    const int64_t base = task * kPiece;
    lanes(std::min(kPiece, n - base), [&](int64_t at, auto mask) {
      const int64_t i = base + at;
      const V d = load(g + i, mask) * scale;
      const V mean = fma(beta1, load(m + i, mask), gain1 * d);
      const V square = fma(beta2, load(v + i, mask), gain2 * d * d);
      const V next = fnma(step, mean / fma(sqrt(square), root, eps), load(p + i, mask) * keep);
      store(m2 + i, mean, mask);
      store(v2 + i, square, mask);
      if (master2) store(master2 + i, next, mask);
      if (w2) store(w2 + i, next, mask);
    });
  });
}

void adamw(const Adamw& a, Context& c) {
  typed(a.g, [&](auto* g) {
    typed(a.w2, [&](auto* w2) {
      if (a.master)
        run(a, c, g, a.master.as<float>(), w2);
      else
        typed(a.w, [&](auto* w) { run(a, c, g, w, w2); });
    });
  });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(adamw, Adamw)
