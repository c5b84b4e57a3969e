// What this machine can do at most, measured: multiply-adds in registers and copies through memory, on every thread of a pool.
// Benches and profiles print kernels as a share of it.
#include <algorithm>
#include <chrono>
#include <memory>
#include <new>
#include <vector>

#include "../runtime/device.h"
#include "kernels.h"

#define ATTUNE_FILE "../peak.cc"
#include "common/foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

// Enough independent sums to fill every pipe; returns the operations done. `half`: products of bfloat16 pairs.
double burn(bool half, int64_t steps, float* out) {
  constexpr int N = ATTUNE_LEVEL >= 2 ? 24 : 12;
  V sum[N];
  const V a = set(out[0]), b = set(out[1]);
  for (int i = 0; i < N; ++i) sum[i] = set(static_cast<float>(i));
#if ATTUNE_LEVEL >= 3
  if (half) {
    for (int64_t s = 0; s < steps; ++s)
#pragma GCC unroll 24
      for (int i = 0; i < N; ++i) sum[i].v = _mm512_dpbf16_ps(sum[i].v, (__m512bh)a.v, (__m512bh)b.v);
  } else
#endif
  {
    for (int64_t s = 0; s < steps; ++s)
#pragma GCC unroll 24
      for (int i = 0; i < N; ++i) sum[i] = fma(a, b, sum[i]);
  }
  for (int i = 1; i < N; ++i) sum[0] = sum[0] + sum[i];
  store(out, sum[0]);
  return 2.0 * N * V::W * static_cast<double>(steps) * (half && ATTUNE_LEVEL >= 3 ? 2 : 1);
}

}  // namespace
}  // namespace attune::cpu::ISA

#if ATTUNE_LEVEL == 0

namespace attune::cpu {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class F> void each(Pool& pool, F&& f) {
  auto call = [](void* arg, int64_t index, int) { (*static_cast<F*>(arg))(index); };
  pool.run(pool.threads(), call, &f);
}

// The highest rate of `work` units a call, over about a tenth of a second.
template <class F> double rate(double* work, F&& f) {
  double most = 0;
  const double until = now() + 0.1;
  for (int i = 0; i < 3 || now() < until; ++i) {
    const double start = now();
    f();
    most = std::max(most, *work / (now() - start));
  }
  return most;
}

double operations(Pool& pool, bool half) {
  constexpr int64_t kLine = 64;  // floats: threads stay out of one another's way
  std::vector<float> out(static_cast<size_t>(pool.threads() * kLine), 0.5f);
  double work = 0;
  return rate(&work, [&] {
    each(pool, [&](int64_t thread) {
      const double done = ATTUNE_CALL(burn, half, int64_t{400000}, out.data() + kLine * thread);
      if (thread == 0) work = done * pool.threads();
    });
  });
}

// Bytes read and written a second by a copy far larger than any cache; 0 where there is no memory for it.
double copied(Pool& pool) {
  constexpr size_t kBytes = size_t{32} << 20;  // of each thread
  const size_t threads = static_cast<size_t>(pool.threads());
  const std::unique_ptr<uint8_t[]> from(new (std::nothrow) uint8_t[kBytes * threads]), to(new (std::nothrow) uint8_t[kBytes * threads]);
  if (!from || !to) return 0;
  std::memset(from.get(), 1, kBytes * threads);
  std::memset(to.get(), 2, kBytes * threads);
  double work = 2.0 * static_cast<double>(kBytes * threads);
  return rate(&work, [&] {
    each(pool, [&](int64_t thread) {
      const size_t at = static_cast<size_t>(thread) * kBytes;
      std::memcpy(to.get() + at, from.get() + at, kBytes);
    });
  });
}

}  // namespace

Peak peak(Pool& pool) { return {operations(pool, false), operations(pool, true), copied(pool)}; }

}  // namespace attune::cpu

#endif
