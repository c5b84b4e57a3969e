// rms_norm: y[n,c] = w[c] x[n,c] rstd[n], rstd[n] = 1 / sqrt(mean_c x[n,c]^2 + eps); the last axis is normalised.
// source: lib/ops/rms_norm.ts; Zhang & Sennrich 2019 (arXiv:1910.07467) eq. 4. fp32 inside, one rounding at the end.
// dw is the sum of a fixed number of partials, each over rows cut by their number alone, in order.
#include "kernels.h"

#include <algorithm>
#include <cmath>

#define ATTUNE_FILE "../rms_norm.cc"
#include "common/foreach_isa.h"
#include "rows.inl"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kRows = 8;        // rows of a forward task
constexpr int64_t kPartials = 16;   // of dw
constexpr int64_t kColumns = 1024;  // of dw, in a task of the final sum

int64_t row_count(const Tensor& x) { return x.last() ? x.size() / x.last() : 0; }

template <class T, class W>
void forward(const RmsNorm& a, Context& c, const T* data, const W* w) {
  const int64_t n = row_count(a.x), width = a.x.last();
  T* out = a.y.as<T>();
  float* saved = a.rstd.as<float>();
  c.parallel((n + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t i = task * kRows, end = std::min(n, i + kRows); i < end; ++i) {
      const T* x = data + i * width;
      const float squares = total(width, [&](int64_t j, auto m, V s) {
        const V v = load(x + j, m);
        return fma(v, v, s);
      });
      const float rstd =
          static_cast<float>(1.0 / std::sqrt(static_cast<double>(squares) / static_cast<double>(width) + a.eps));
      if (saved) saved[i] = rstd;
      if (out)
        lanes(width,
              [&](int64_t j, auto m) { store(out + i * width + j, load(x + j, m) * set(rstd) * load(w + j, m), m); });
    }
  });
}

// One task per partial, its rows ascending. dx may lie over dy or onto_dx: lanes are read before they are written.
template <class T, class W>
void backward(const RmsNormBackward& a, Context& c, const T* data, const W* w) {
  const int64_t n = row_count(a.x), width = a.x.last();
  float* partials = static_cast<float*>(c.scratch());
  c.parallel(kPartials, [&](int64_t task, int) {
    float* sum = partials + task * width;
    if (a.dw) std::fill_n(sum, width, 0.0f);
    for (int64_t i = n * task / kPartials, end = n * (task + 1) / kPartials; i < end; ++i) {
      const T* x = data + i * width;
      const T* dy = a.dy.as<T>() + i * width;
      const float rstd = a.rstd.as<float>()[i];
      if (a.dw)
        lanes(width, [&](int64_t j, auto m) {
          store(sum + j, fma(load(dy + j, m) * set(rstd), load(x + j, m), load(sum + j, m)), m);
        });
      if (!a.dx) continue;
      const float dot = total(
          width, [&](int64_t j, auto m, V s) { return fma(load(dy + j, m) * load(w + j, m), load(x + j, m), s); });
      const V scale = set(rstd), shift = set(dot / static_cast<float>(width) * rstd * rstd);
      T* dx = a.dx.as<T>() + i * width;
      const T* onto = a.onto_dx ? a.onto_dx.as<T>() + i * width : nullptr;
      lanes(width, [&](int64_t j, auto m) {
        const V g = scale * fnma(load(x + j, m), shift, load(dy + j, m) * load(w + j, m));
        store(dx + j, onto ? g + load(onto + j, m) : g, m);
      });
    }
  });
  if (!a.dw) return;
  typed(a.dw, [&](auto* dw) {
    decltype(dw) onto = static_cast<decltype(dw)>(a.onto_dw.data);
    c.parallel((width + kColumns - 1) / kColumns, [&](int64_t task, int) {
      const int64_t first = task * kColumns;
      lanes(std::min(kColumns, width - first), [&](int64_t j, auto m) {
        V sum = onto ? load(onto + first + j, m) : zero();
        for (int64_t p = 0; p < kPartials; ++p) sum = sum + load(partials + p * width + first + j, m);
        store(dw + first + j, sum, m);
      });
    });
  });
}

void rms_norm(const RmsNorm& a, Context& c) {
  typed(a.x, [&](auto* x) { typed(a.w, [&](auto* w) { forward(a, c, x, w); }); });
}

void rms_norm_backward(const RmsNormBackward& a, Context& c) {
  typed(a.x, [&](auto* x) { typed(a.w, [&](auto* w) { backward(a, c, x, w); }); });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(rms_norm, RmsNorm)
ATTUNE_KERNEL(rms_norm_backward, RmsNormBackward)
#if ATTUNE_LEVEL == 0
int64_t attune::cpu::rms_norm_backward_scratch(const RmsNormBackward& a) {
  return a.dw ? baseline::kPartials * a.x.last() * static_cast<int64_t>(sizeof(float)) : 0;
}
#endif
