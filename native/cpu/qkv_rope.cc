// qkv_rope: splits rows of a fused projection into q, k, v heads, normalises q and k heads where norms are given
// (QK-norm), and rotates q and k by rope, half-split as Hugging Face's Llama: y = [a cos - b sin, b cos + a sin] with x
// = [a, b]. source: lib/ops/qkv_rope.ts; RoFormer (arXiv:2104.09864) eq. 34; Qwen3's q_norm and k_norm. fp32 inside,
// one rounding at the end.
#include "kernels.h"

#include <algorithm>
#include <cmath>

#define ATTUNE_FILE "../qkv_rope.cc"
#include "common/foreach_isa.h"
#include "rows.inl"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kRows = 8;       // rows of a forward task
constexpr int64_t kPartials = 16;  // of the norms' gradients, each over rows cut by their number alone
constexpr int64_t kMaxD = 256;

// A norm's weight as fp32, or null.
const float* widened(const Tensor& w, float* to) {
  if (!w) return nullptr;
  typed(w, [&](auto* from) { lanes(w.size(), [&](int64_t d, auto m) { store(to + d, load(from + d, m), m); }); });
  return to;
}

template <class T>
void forward(const QkvRope& a, Context& c, const T* qkv) {
  const int64_t n = a.q.shape[0], H = a.q.shape[1], K = a.k.shape[1], D = a.q.shape[2], half = D / 2, all = H + 2 * K;
  c.parallel((n + kRows - 1) / kRows, [&](int64_t task, int) {
    float q_space[kMaxD], k_space[kMaxD], z[kMaxD];
    const float *q_norm = widened(a.q_norm, q_space), *k_norm = widened(a.k_norm, k_space);
    for (int64_t i = task * kRows, end = std::min(n, i + kRows); i < end; ++i) {
      const float* cosines = a.cos.as<float>() + i * half;
      const float* sines = a.sin.as<float>() + i * half;
      auto rotate = [&](const auto* x, T* y) {
        lanes(half, [&](int64_t d, auto m) {
          const V p = load(x + d, m), q = load(x + half + d, m), co = load(cosines + d, m), si = load(sines + d, m);
          store(y + d, fnma(q, si, p * co), m);
          store(y + half + d, fma(p, si, q * co), m);
        });
      };
      for (int64_t h = 0; h < H + K; ++h) {
        const T* x = qkv + (i * all + h) * D;
        T* y = h < H ? a.q.as<T>() + (i * H + h) * D : a.k.as<T>() + (i * K + h - H) * D;
        const float* w = h < H ? q_norm : k_norm;
        if (!w) {
          rotate(x, y);
          continue;
        }
        const float squares = total(D, [&](int64_t d, auto m, V s) { return fma(load(x + d, m), load(x + d, m), s); });
        const float rstd =
            static_cast<float>(1.0 / std::sqrt(static_cast<double>(squares) / static_cast<double>(D) + a.eps));
        if (a.rstd) a.rstd.as<float>()[i * (H + K) + h] = rstd;
        lanes(D, [&](int64_t d, auto m) { store(z + d, load(x + d, m) * set(rstd) * load(w + d, m), m); });
        rotate(z, y);
      }
      std::copy_n(qkv + (i * all + H + K) * D, K * D, a.v.as<T>() + i * K * D);
    }
  });
}

template <class T>
void backward(const QkvRopeBackward& a, Context& c, const T* dq) {
  const int64_t n = a.dq.shape[0], H = a.dq.shape[1], K = a.dk.shape[1], D = a.dq.shape[2], half = D / 2,
                all = H + 2 * K;
  const bool sums = a.dq_norm || a.dk_norm;
  float* partials = static_cast<float*>(c.scratch());  // per partial: D of q, D of k
  c.parallel(kPartials, [&](int64_t task, int) {
    float q_space[kMaxD], k_space[kMaxD], g[kMaxD];
    const float *q_norm = widened(a.q_norm, q_space), *k_norm = widened(a.k_norm, k_space);
    float* sum = partials + task * 2 * D;
    if (sums) std::fill_n(sum, 2 * D, 0.0f);
    for (int64_t i = n * task / kPartials, end = n * (task + 1) / kPartials; i < end; ++i) {
      const float* cosines = a.cos.as<float>() + i * half;
      const float* sines = a.sin.as<float>() + i * half;
      auto turn_back = [&](const T* dy, auto* to) {
        lanes(half, [&](int64_t d, auto m) {
          const V p = load(dy + d, m), q = load(dy + half + d, m), co = load(cosines + d, m), si = load(sines + d, m);
          store(to + d, fma(q, si, p * co), m);
          store(to + half + d, fnma(p, si, q * co), m);
        });
      };
      for (int64_t h = 0; h < H + K; ++h) {
        const T* dy = h < H ? dq + (i * H + h) * D : a.dk.as<T>() + (i * K + h - H) * D;
        T* dx = a.dqkv ? a.dqkv.as<T>() + (i * all + h) * D : nullptr;
        const float* w = h < H ? q_norm : k_norm;
        if (!w) {
          if (dx) turn_back(dy, dx);
          continue;
        }
        turn_back(dy, g);
        const T* x = a.qkv.as<T>() + (i * all + h) * D;
        const float rstd = a.rstd.as<float>()[i * (H + K) + h];
        float* to = sum + (h < H ? 0 : D);
        if (sums)
          lanes(D, [&](int64_t d, auto m) {
            store(to + d, fma(load(g + d, m) * set(rstd), load(x + d, m), load(to + d, m)), m);
          });
        if (!dx) continue;
        const float dot =
            total(D, [&](int64_t d, auto m, V s) { return fma(load(g + d, m) * load(w + d, m), load(x + d, m), s); });
        const V scale = set(rstd), shift = set(dot / static_cast<float>(D) * rstd * rstd);
        lanes(D, [&](int64_t d, auto m) {
          store(dx + d, scale * fnma(load(x + d, m), shift, load(g + d, m) * load(w + d, m)), m);
        });
      }
      if (a.dqkv) std::copy_n(a.dv.as<T>() + i * K * D, K * D, a.dqkv.as<T>() + (i * all + H + K) * D);
    }
  });
  auto finish = [&](const Tensor& dw, const Tensor& onto, int64_t at) {
    if (!dw) return;
    typed(dw, [&](auto* to) {
      decltype(to) from = static_cast<decltype(to)>(onto.data);
      lanes(D, [&](int64_t d, auto m) {
        V s = from ? load(from + d, m) : zero();
        for (int64_t p = 0; p < kPartials; ++p) s = s + load(partials + p * 2 * D + at + d, m);
        store(to + d, s, m);
      });
    });
  };
  finish(a.dq_norm, a.onto_dq_norm, 0);
  finish(a.dk_norm, a.onto_dk_norm, D);
}

void qkv_rope(const QkvRope& a, Context& c) {
  typed(a.qkv, [&](auto* x) { forward(a, c, x); });
}

void qkv_rope_backward(const QkvRopeBackward& a, Context& c) {
  typed(a.dq, [&](auto* x) { backward(a, c, x); });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(qkv_rope, QkvRope)
ATTUNE_KERNEL(qkv_rope_backward, QkvRopeBackward)
#if ATTUNE_LEVEL == 0
int64_t attune::cpu::qkv_rope_backward_scratch(const QkvRopeBackward& a) {
  return a.dq_norm || a.dk_norm ? baseline::kPartials * 2 * a.dq.shape[2] * static_cast<int64_t>(sizeof(float)) : 0;
}
#endif
