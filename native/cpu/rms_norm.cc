// rms_norm: y[n,c] = w[c] x[n,c] rstd[n], rstd[n] = 1 / sqrt(mean_c x[n,c]^2 + eps); the last axis is normalised.
// source: lib/ops/rms_norm.ts; Zhang & Sennrich 2019 (arXiv:1910.07467) eq. 4. fp32 inside, one rounding at the end.
// dw sums a fixed number of partials, cut by the number of rows alone, in order.
#include <algorithm>
#include <cmath>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"
#include "elements.h"

namespace attune::cpu {

namespace {

constexpr int64_t kRows = 8;       // rows of a forward task
constexpr int64_t kPartials = 16;  // of dw

int64_t row_count(const Tensor& x) { return x.last() ? x.size() / x.last() : 0; }

template <class T, class W> void forward(const RmsNorm& a, Context& c) {
  const int64_t n = row_count(a.x), width = a.x.last();
  const W* w = a.w.as<W>();
  float* saved = a.rstd.as<float>();
  c.parallel((n + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t i = task * kRows, end = std::min(n, i + kRows); i < end; ++i) {
      const T* x = a.x.as<T>() + i * width;
      T* y = a.y.as<T>() + i * width;
      double squares = 0;
      for (int64_t j = 0; j < width; ++j) squares += double(to_f32(x[j])) * double(to_f32(x[j]));
      const float rstd = float(1.0 / std::sqrt(squares / double(width) + a.eps));
      if (saved) saved[i] = rstd;
      if (a.y)
        for (int64_t j = 0; j < width; ++j) y[j] = from_f32<T>(to_f32(x[j]) * rstd * to_f32(w[j]));
    }
  });
}

// One task per partial: its rows ascending. dx may lie over dy or onto_dx: a row is read before it is written.
template <class T, class W> void backward(const RmsNormBackward& a, Context& c) {
  const int64_t n = row_count(a.x), width = a.x.last();
  const W* w = a.w.as<W>();
  float* partials = static_cast<float*>(c.scratch());
  c.parallel(kPartials, [&](int64_t task, int) {
    float* sum = partials + task * width;
    if (a.dw) std::fill_n(sum, width, 0.0f);
    for (int64_t i = n * task / kPartials, end = n * (task + 1) / kPartials; i < end; ++i) {
      const T* x = a.x.as<T>() + i * width;
      const T* dy = a.dy.as<T>() + i * width;
      const float rstd = a.rstd.as<float>()[i];
      double dot = 0;
      for (int64_t j = 0; j < width; ++j) dot += double(to_f32(dy[j]) * to_f32(w[j])) * double(to_f32(x[j]));
      const float shift = float(dot / double(width)) * rstd * rstd;
      if (a.dw)
        for (int64_t j = 0; j < width; ++j) sum[j] += to_f32(dy[j]) * to_f32(x[j]) * rstd;
      if (a.dx) {
        T* dx = a.dx.as<T>() + i * width;
        const T* onto = a.onto_dx ? a.onto_dx.as<T>() + i * width : nullptr;
        for (int64_t j = 0; j < width; ++j) {
          const float g = rstd * (to_f32(dy[j]) * to_f32(w[j]) - to_f32(x[j]) * shift);
          dx[j] = from_f32<T>(onto ? g + to_f32(onto[j]) : g);
        }
      }
    }
  });
  if (!a.dw) return;
  with_float(a.dw.dtype, [&](auto e) {
    using G = decltype(e);
    G* dw = a.dw.as<G>();
    const G* onto = a.onto_dw.as<G>();
    for (int64_t j = 0; j < width; ++j) {
      float sum = onto ? to_f32(onto[j]) : 0.0f;
      for (int64_t p = 0; p < kPartials; ++p) sum += partials[p * width + j];
      dw[j] = from_f32<G>(sum);
    }
  });
}

}  // namespace

void rms_norm(const RmsNorm& a, Context& c) {
  with_float(a.x.dtype, [&](auto x) { with_float(a.w.dtype, [&](auto w) { forward<decltype(x), decltype(w)>(a, c); }); });
}

int64_t rms_norm_backward_scratch(const RmsNormBackward& a) { return kPartials * a.x.last() * int64_t(sizeof(float)); }

void rms_norm_backward(const RmsNormBackward& a, Context& c) {
  with_float(a.x.dtype, [&](auto x) { with_float(a.w.dtype, [&](auto w) { backward<decltype(x), decltype(w)>(a, c); }); });
}

}  // namespace attune::cpu
