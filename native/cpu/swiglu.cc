// swiglu: y = silu(gate) * up with x = [gate | up] along the last axis.
// source: lib/ops/swiglu.ts; Shazeer 2020 (arXiv:2002.05202) eq. 6. fp32 inside, one rounding at the end.
#include <algorithm>
#include <cmath>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"
#include "elements.h"

namespace attune::cpu {

namespace {

constexpr int64_t kRows = 8;

template <class T> void forward(const Swiglu& a, Context& c) {
  const int64_t n = a.y.last() ? a.y.size() / a.y.last() : 0, f = a.y.last();
  c.parallel((n + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t i = task * kRows, end = std::min(n, i + kRows); i < end; ++i) {
      const T* x = a.x.as<T>() + i * 2 * f;
      T* y = a.y.as<T>() + i * f;
      for (int64_t j = 0; j < f; ++j) {
        const float gate = to_f32(x[j]);
        y[j] = from_f32<T>(gate / (1.0f + std::exp(-gate)) * to_f32(x[f + j]));
      }
    }
  });
}

template <class T> void backward(const SwigluBackward& a, Context& c) {
  const int64_t n = a.dy.last() ? a.dy.size() / a.dy.last() : 0, f = a.dy.last();
  c.parallel((n + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t i = task * kRows, end = std::min(n, i + kRows); i < end; ++i) {
      const T* x = a.x.as<T>() + i * 2 * f;
      const T* dy = a.dy.as<T>() + i * f;
      T* dx = a.dx.as<T>() + i * 2 * f;
      for (int64_t j = 0; j < f; ++j) {
        const float gate = to_f32(x[j]), up = to_f32(x[f + j]), d = to_f32(dy[j]);
        const float s = 1.0f / (1.0f + std::exp(-gate));
        dx[j] = from_f32<T>(d * up * s * (1.0f + gate * (1.0f - s)));
        dx[f + j] = from_f32<T>(d * gate * s);
      }
    }
  });
}

}  // namespace

void swiglu(const Swiglu& a, Context& c) {
  with_float(a.x.dtype, [&](auto e) { forward<decltype(e)>(a, c); });
}

void swiglu_backward(const SwigluBackward& a, Context& c) {
  with_float(a.x.dtype, [&](auto e) { backward<decltype(e)>(a, c); });
}

}  // namespace attune::cpu
