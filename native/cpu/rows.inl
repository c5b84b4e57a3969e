// Sums along rows in a fixed order, and places for rows in scratch; after common/foreach_isa.h.

namespace attune::cpu::ISA {
namespace {

// Hands out 64-byte aligned places from a block; with a null block it only counts.
struct Places {
  char* base;
  int64_t used = 0;
  template <class T>
  T* take(int64_t count) {
    T* p = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return p;
  }
};

// A row length in fp32, no power of two: an odd number of cache lines, so that a tile's rows do not share a set.
ATTUNE_INLINE int64_t padded(int64_t n) { return ((n + 15) / 16 | 1) * 16; }

ATTUNE_INLINE float highest_lane(V v) {  // no NaN among them
#if ATTUNE_LEVEL >= 2
  return _mm512_reduce_max_ps(v.v);
#else
  return highest(v);
#endif
}
ATTUNE_INLINE float sum_lanes(V v) {
#if ATTUNE_LEVEL >= 2
  return _mm512_reduce_add_ps(v.v);
#else
  return sum(v);
#endif
}

// The sum over 0..n-1 of what f(i, m, s) adds to s lane by lane, four vectors at a time so that additions overlap.
template <class F>
ATTUNE_INLINE float total(int64_t n, F f) {
  V s[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * V::W <= n; i += 4 * V::W)
    for (int v = 0; v < 4; ++v) s[v] = f(i + v * V::W, All{}, s[v]);
  lanes(n - i, [&](int64_t k, auto m) { s[0] = f(i + k, m, s[0]); });
  return sum_lanes((s[0] + s[1]) + (s[2] + s[3]));
}

}  // namespace
}  // namespace attune::cpu::ISA
