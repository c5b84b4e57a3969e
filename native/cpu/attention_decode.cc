// attention_decode: one query per slot over that slot's cache: slot s sees places < len[s], with a window only the last of them.
// source: lib/ops/attention_decode.ts. Online softmax; a slot that sees nothing gives zeros.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"
#include "elements.h"

namespace attune::cpu {

namespace {

constexpr int64_t kMaxD = 256;

template <class T, class Cache> void decode(const AttentionDecode& a, Context& c) {
  const int64_t slots = a.q.shape[0], H = a.q.shape[1], D = a.q.shape[2], L = a.k.shape[1], K = a.k.shape[2];
  c.parallel(slots * H, [&](int64_t task, int) {
    const int64_t s = task / H, h = task % H, kv = h / (H / K);
    const int64_t len = std::min<int64_t>(L, a.len.as<int32_t>()[s]), first = a.window > 0 ? std::max<int64_t>(0, len - int64_t(a.window)) : 0;
    const T* q = a.q.as<T>() + task * D;
    float acc[kMaxD] = {}, top = -std::numeric_limits<float>::infinity(), sum = 0;
    for (int64_t j = first; j < len; ++j) {
      const Cache* k = a.k.as<Cache>() + ((s * L + j) * K + kv) * D;
      const Cache* v = a.v.as<Cache>() + ((s * L + j) * K + kv) * D;
      float score = 0;
      for (int64_t d = 0; d < D; ++d) score += to_f32(q[d]) * to_f32(k[d]);
      score *= float(a.scale);
      const float next = score > top ? score : top, from = std::isinf(next) && next < 0 ? 0 : next;
      const float shrink = std::exp(top - from), p = std::exp(score - from);
      top = next;
      sum = sum * shrink + p;
      for (int64_t d = 0; d < D; ++d) acc[d] = acc[d] * shrink + p * to_f32(v[d]);
    }
    T* y = a.y.as<T>() + task * D;
    for (int64_t d = 0; d < D; ++d) y[d] = from_f32<T>(len > first ? acc[d] / sum : 0.0f);
  });
}

}  // namespace

void attention_decode(const AttentionDecode& a, Context& c) {
  with_float(a.q.dtype, [&](auto q) { with_float(a.k.dtype, [&](auto k) { decode<decltype(q), decltype(k)>(a, c); }); });
}

}  // namespace attune::cpu
