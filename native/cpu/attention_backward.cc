// attention_backward: dq, dk, dv of attention from what it saved. With P = exp(s - lse), dS = P (dy v^T - dy . y):
// dv = P^T dy, dq = scale dS k, dk = scale dS^T q. source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691) algorithm 2.
// Every sum has one owner and one order: no atomics, bits do not depend on the threads.
#include <algorithm>
#include <cmath>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"
#include "elements.h"

namespace attune::cpu {

namespace {

constexpr int64_t kMaxD = 256;

template <class A> bool visible(const A& a, int64_t i, int64_t j) {
  if (j > i || i >= a.end.template as<int32_t>()[j]) return false;
  if (a.window <= 0) return true;
  const int32_t* pos = a.pos.template as<int32_t>();
  return double(pos[i]) - double(pos[j]) < a.window;
}

template <class T> float dot(const T* a, const T* b, int64_t n) {
  float s = 0;
  for (int64_t d = 0; d < n; ++d) s += to_f32(a[d]) * to_f32(b[d]);
  return s;
}

template <class T> void backward(const AttentionBackward& a, Context& c) {
  const int64_t n = a.q.shape[0], H = a.q.shape[1], D = a.q.shape[2], K = a.k.shape[1], G = H / K;
  const float scale = float(a.scale);
  const float* lse = a.lse.as<float>();
  auto row = [&](const Tensor& t, int64_t i, int64_t h) { return t.as<T>() + (i * t.shape[1] + h) * D; };
  if (a.dq)
    c.parallel(n, [&](int64_t i, int) {
      for (int64_t h = 0; h < H; ++h) {
        const T *q = row(a.q, i, h), *dy = row(a.dy, i, h);
        const float delta = dot(dy, row(a.y, i, h), D);
        float acc[kMaxD] = {};
        for (int64_t j = 0; j <= i; ++j) {
          if (!visible(a, i, j)) continue;
          const T *k = row(a.k, j, h / G), *v = row(a.v, j, h / G);
          const float p = std::exp(scale * dot(q, k, D) - lse[h * n + i]), ds = p * (dot(dy, v, D) - delta) * scale;
          for (int64_t d = 0; d < D; ++d) acc[d] += ds * to_f32(k[d]);
        }
        for (int64_t d = 0; d < D; ++d) row(a.dq, i, h)[d] = from_f32<T>(acc[d]);
      }
    });
  if (a.dk || a.dv)
    c.parallel(n, [&](int64_t j, int) {
      for (int64_t kv = 0; kv < K; ++kv) {
        const T *k = row(a.k, j, kv), *v = row(a.v, j, kv);
        float dk[kMaxD] = {}, dv[kMaxD] = {};
        for (int64_t i = j; i < n; ++i) {
          if (!visible(a, i, j)) continue;
          for (int64_t h = kv * G; h < (kv + 1) * G; ++h) {
            const T *q = row(a.q, i, h), *dy = row(a.dy, i, h);
            const float p = std::exp(scale * dot(q, k, D) - lse[h * n + i]);
            const float ds = p * (dot(dy, v, D) - dot(dy, row(a.y, i, h), D)) * scale;
            for (int64_t d = 0; d < D; ++d) {
              dv[d] += p * to_f32(dy[d]);
              dk[d] += ds * to_f32(q[d]);
            }
          }
        }
        for (int64_t d = 0; d < D; ++d) {
          if (a.dk) row(a.dk, j, kv)[d] = from_f32<T>(dk[d]);
          if (a.dv) row(a.dv, j, kv)[d] = from_f32<T>(dv[d]);
        }
      }
    });
}

}  // namespace

int64_t attention_backward_scratch(const AttentionBackward&) { return 0; }

void attention_backward(const AttentionBackward& a, Context& c) {
  with_float(a.q.dtype, [&](auto e) { backward<decltype(e)>(a, c); });
}

}  // namespace attune::cpu
