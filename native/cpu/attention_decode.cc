// attention_decode: one query per slot over that slot's cache: slot s sees places < len[s], with a window only the last
// of them. source: lib/ops/attention_decode.ts. Online softmax over runs of places; a slot that sees nothing gives
// zeros. tiling: task = (slot, kv head) with all its query heads, so that the cache comes from memory once.
#include "kernels.h"

#include <algorithm>
#include <cmath>

#define ATTUNE_FILE "../attention_decode.cc"
#include "common/foreach_isa.h"
#include "rows.inl"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kPlaces = 128;  // scored at a time

// One query head over a run of `count` places, `stride` elements apart. acc, high and sum are the state of its online
// softmax.
template <class Cache>
void attend(const float* q, const Cache* k, const Cache* v, int64_t count, int64_t stride, int64_t D, float scale,
            float* p, float* acc, float* high, float* sum) {
  V top = set(*high), total = zero();
  for (int64_t j = 0; j < count; ++j) {
    V s = zero();
    lanes(D, [&](int64_t d, auto m) { s = fma(load(q + d, m), load(k + j * stride + d, m), s); });
    p[j] = sum_lanes(s) * scale;
  }
  for (int64_t j = count; j % V::W; ++j) p[j] = -__builtin_inff();
  for (int64_t j = 0; j < count; j += V::W) top = max(load(p + j), top);
  const float next = highest_lane(top), base = next == -__builtin_inff() ? 0.0f : next, shrink = std::exp(*high - base);
  for (int64_t j = 0; j < count; j += V::W) {
    const V e = exp(load(p + j) - set(base));
    store(p + j, e);
    total = total + e;
  }
  *sum = *sum * shrink + sum_lanes(total);
  *high = next;
  lanes(D, [&](int64_t d, auto m) {
    V part[4] = {load(acc + d, m) * set(shrink), zero(), zero(), zero()};
    int64_t j = 0;
    for (; j + 4 <= count; j += 4)
      for (int i = 0; i < 4; ++i) part[i] = fma(set(p[j + i]), load(v + (j + i) * stride + d, m), part[i]);
    for (; j < count; ++j) part[0] = fma(set(p[j]), load(v + j * stride + d, m), part[0]);
    store(acc + d, (part[0] + part[1]) + (part[2] + part[3]), m);
  });
}

template <class T, class Cache>
void decode(const AttentionDecode& a, Context& c, const T* queries, const Cache* keys) {
  const int64_t slots = a.q.shape[0], H = a.q.shape[1], D = a.q.shape[2], L = a.k.shape[1], K = a.k.shape[2], G = H / K;
  const Cache* values = a.v.as<Cache>();
  c.parallel(slots * K, [&](int64_t task, int thread) {
    const int64_t s = task / K, kv = task % K, row = padded(D);
    const int64_t len = std::min<int64_t>(L, a.len.as<int32_t>()[s]),
                  first = a.window > 0 ? std::max<int64_t>(0, len - static_cast<int64_t>(a.window)) : 0;
    Places at{static_cast<char*>(c.thread_scratch(thread))};
    float* p = at.take<float>(kPlaces);
    float* q = at.take<float>(row);
    float* acc = at.take<float>(row * G);
    float* high = at.take<float>(G);
    float* sum = at.take<float>(G);
    std::fill_n(acc, row * G, 0.0f);
    std::fill_n(high, G, -__builtin_inff());
    std::fill_n(sum, G, 0.0f);
    for (int64_t j = first; j < len; j += kPlaces)
      for (int64_t g = 0; g < G; ++g) {
        const T* from = queries + (s * H + kv * G + g) * D;
        lanes(D, [&](int64_t d, auto m) { store(q + d, load(from + d, m), m); });
        const int64_t place = ((s * L + j) * K + kv) * D;
        attend(q, keys + place, values + place, std::min(kPlaces, len - j), K * D, D, static_cast<float>(a.scale), p,
               acc + g * row, high + g, sum + g);
      }
    for (int64_t g = 0; g < G; ++g) {
      T* y = a.y.as<T>() + (s * H + kv * G + g) * D;
      const bool none = sum[g] == 0;
      const V scale = set(none ? 0.0f : 1.0f / sum[g]);
      lanes(D, [&](int64_t d, auto m) { store(y + d, none ? zero() : load(acc + g * row + d, m) * scale, m); });
    }
  });
}

void attention_decode(const AttentionDecode& a, Context& c) {
  typed(a.q, [&](auto* q) { typed(a.k, [&](auto* k) { decode(a, c, q, k); }); });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(attention_decode, AttentionDecode)
