// Sums along a row in a fixed order; after common/foreach_isa.h.

namespace attune::cpu::ISA {
namespace {

// The sum over 0..n-1 of what f(i, m, s) adds to s lane by lane, four vectors at a time so that additions overlap.
template <class F> ATTUNE_INLINE float total(int64_t n, F f) {
  V s[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * V::W <= n; i += 4 * V::W)
    for (int v = 0; v < 4; ++v) s[v] = f(i + v * V::W, All{}, s[v]);
  lanes(n - i, [&](int64_t k, auto m) { s[0] = f(i + k, m, s[0]); });
  return sum((s[0] + s[1]) + (s[2] + s[3]));
}

}  // namespace
}  // namespace attune::cpu::ISA
