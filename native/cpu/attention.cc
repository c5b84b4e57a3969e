// attention: y = softmax(scale q k^T) v per head, key j visible to query i iff j <= i < end[j] (and pos[i] - pos[j] < window).
// source: lib/ops/attention.ts. Online softmax: no row of scores is ever kept.
#include <algorithm>
#include <cmath>
#include <limits>

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

template <class T> void forward(const Attention& a, Context& c) {
  const int64_t n = a.q.shape[0], H = a.q.shape[1], D = a.q.shape[2], K = a.k.shape[1];
  c.parallel(n, [&](int64_t i, int) {
    for (int64_t h = 0; h < H; ++h) {
      const T* q = a.q.as<T>() + (i * H + h) * D;
      float acc[kMaxD] = {}, top = -std::numeric_limits<float>::infinity(), sum = 0;
      bool any = false;
      for (int64_t j = 0; j <= i; ++j) {
        if (!visible(a, i, j)) continue;
        const T* k = a.k.as<T>() + (j * K + h / (H / K)) * D;
        const T* v = a.v.as<T>() + (j * K + h / (H / K)) * D;
        float s = 0;
        for (int64_t d = 0; d < D; ++d) s += to_f32(q[d]) * to_f32(k[d]);
        s *= float(a.scale);
        const float next = s > top ? s : top, from = std::isinf(next) && next < 0 ? 0 : next;
        const float shrink = std::exp(top - from), p = std::exp(s - from);
        any = true;
        top = next;
        sum = sum * shrink + p;
        for (int64_t d = 0; d < D; ++d) acc[d] = acc[d] * shrink + p * to_f32(v[d]);
      }
      T* y = a.y.as<T>() + (i * H + h) * D;
      for (int64_t d = 0; d < D; ++d) y[d] = from_f32<T>(any ? acc[d] / sum : 0.0f);
      if (a.lse) a.lse.as<float>()[h * n + i] = any ? top + std::log(sum) : std::numeric_limits<float>::infinity();
    }
  });
}

}  // namespace

int64_t attention_scratch(const Attention&) { return 0; }

void attention(const Attention& a, Context& c) {
  with_float(a.q.dtype, [&](auto e) { forward<decltype(e)>(a, c); });
}

}  // namespace attune::cpu
