// qkv_rope: splits rows of a fused projection into q, k, v heads, normalises q and k heads where norms are given (QK-norm),
// and rotates q and k by rope, half-split as Hugging Face's Llama: y = [a cos - b sin, b cos + a sin] with x = [a, b].
// source: lib/ops/qkv_rope.ts; RoFormer (arXiv:2104.09864) eq. 34; Qwen3's q_norm and k_norm. fp32 inside, one rounding at the end.
#include <algorithm>
#include <cmath>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"
#include "elements.h"

namespace attune::cpu {

namespace {

constexpr int64_t kRows = 8;       // rows of a forward task
constexpr int64_t kPartials = 16;  // of the norms' gradients
constexpr int64_t kMaxD = 256;

float weight(const Tensor& w, int64_t i) { return w.dtype == DType::bf16 ? to_f32(w.as<bf16>()[i]) : w.as<float>()[i]; }

template <class T> void forward(const QkvRope& a, Context& c) {
  const int64_t n = a.q.shape[0], H = a.q.shape[1], K = a.k.shape[1], D = a.q.shape[2], half = D / 2, all = H + 2 * K;
  c.parallel((n + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t i = task * kRows, end = std::min(n, i + kRows); i < end; ++i) {
      const float* cosines = a.cos.as<float>() + i * half;
      const float* sines = a.sin.as<float>() + i * half;
      for (int64_t h = 0; h < all; ++h) {
        const T* x = a.qkv.as<T>() + (i * all + h) * D;
        if (h >= H + K) {
          std::copy_n(x, D, a.v.as<T>() + (i * K + h - H - K) * D);
          continue;
        }
        const Tensor& norm = h < H ? a.q_norm : a.k_norm;
        float s[kMaxD];
        for (int64_t d = 0; d < D; ++d) s[d] = to_f32(x[d]);
        if (norm) {
          double squares = 0;
          for (int64_t d = 0; d < D; ++d) squares += double(s[d]) * double(s[d]);
          const float rstd = float(1.0 / std::sqrt(squares / double(D) + a.eps));
          if (a.rstd) a.rstd.as<float>()[i * (H + K) + h] = rstd;
          for (int64_t d = 0; d < D; ++d) s[d] *= rstd * weight(norm, d);
        }
        T* y = h < H ? a.q.as<T>() + (i * H + h) * D : a.k.as<T>() + (i * K + h - H) * D;
        for (int64_t d = 0; d < half; ++d) {
          y[d] = from_f32<T>(s[d] * cosines[d] - s[half + d] * sines[d]);
          y[half + d] = from_f32<T>(s[half + d] * cosines[d] + s[d] * sines[d]);
        }
      }
    }
  });
}

template <class T> void backward(const QkvRopeBackward& a, Context& c) {
  const int64_t n = a.dq.shape[0], H = a.dq.shape[1], K = a.dk.shape[1], D = a.dq.shape[2], half = D / 2, all = H + 2 * K;
  const bool sums = a.dq_norm || a.dk_norm;
  float* partials = static_cast<float*>(c.scratch());  // per partial: D of q, D of k
  c.parallel(kPartials, [&](int64_t task, int) {
    float* sum = partials + task * 2 * D;
    if (sums) std::fill_n(sum, 2 * D, 0.0f);
    for (int64_t i = n * task / kPartials, end = n * (task + 1) / kPartials; i < end; ++i) {
      const float* cosines = a.cos.as<float>() + i * half;
      const float* sines = a.sin.as<float>() + i * half;
      for (int64_t h = 0; h < all; ++h) {
        T* dx = a.dqkv.as<T>() + (i * all + h) * D;
        if (h >= H + K) {
          if (a.dqkv) std::copy_n(a.dv.as<T>() + (i * K + h - H - K) * D, D, dx);
          continue;
        }
        const T* dy = h < H ? a.dq.as<T>() + (i * H + h) * D : a.dk.as<T>() + (i * K + h - H) * D;
        float g[kMaxD];
        for (int64_t d = 0; d < half; ++d) {
          const float p = to_f32(dy[d]), q = to_f32(dy[half + d]);
          g[d] = p * cosines[d] + q * sines[d];
          g[half + d] = q * cosines[d] - p * sines[d];
        }
        const Tensor& norm = h < H ? a.q_norm : a.k_norm;
        if (norm) {
          const T* x = a.qkv.as<T>() + (i * all + h) * D;
          const float rstd = a.rstd.as<float>()[i * (H + K) + h];
          float* to = sum + (h < H ? 0 : D);
          double dot = 0;
          for (int64_t d = 0; d < D; ++d) {
            if (sums) to[d] += g[d] * to_f32(x[d]) * rstd;
            g[d] *= weight(norm, d);
            dot += double(g[d]) * double(to_f32(x[d]));
          }
          const float shift = float(dot / double(D)) * rstd * rstd;
          for (int64_t d = 0; d < D; ++d) g[d] = rstd * (g[d] - to_f32(x[d]) * shift);
        }
        if (a.dqkv)
          for (int64_t d = 0; d < D; ++d) dx[d] = from_f32<T>(g[d]);
      }
    }
  });
  auto finish = [&](const Tensor& dw, const Tensor& onto, int64_t at) {
    if (!dw) return;
    with_float(dw.dtype, [&](auto e) {
      using G = decltype(e);
      for (int64_t d = 0; d < D; ++d) {
        float sum = onto ? to_f32(onto.as<G>()[d]) : 0.0f;
        for (int64_t p = 0; p < kPartials; ++p) sum += partials[p * 2 * D + at + d];
        dw.as<G>()[d] = from_f32<G>(sum);
      }
    });
  };
  finish(a.dq_norm, a.onto_dq_norm, 0);
  finish(a.dk_norm, a.onto_dk_norm, D);
}

}  // namespace

void qkv_rope(const QkvRope& a, Context& c) {
  with_float(a.qkv.dtype, [&](auto e) { forward<decltype(e)>(a, c); });
}

int64_t qkv_rope_backward_scratch(const QkvRopeBackward& a) { return kPartials * 2 * a.dq.shape[2] * int64_t(sizeof(float)); }

void qkv_rope_backward(const QkvRopeBackward& a, Context& c) {
  with_float(a.dq.dtype, [&](auto e) { backward<decltype(e)>(a, c); });
}

}  // namespace attune::cpu
