// GF/s of gemm beside the machine's measured peak, on the shapes of a small Llama: forward (x W^T), dX (dy W), dW (dy^T x, added).
//   g++ -std=c++20 -O3 -fno-math-errno -ffp-contract=fast -pthread -Inative/cpu -o /tmp/gemm_bench bench/native/gemm_bench.cc
//     native/cpu/*.cc native/cpu/common/*.cc && /tmp/gemm_bench [threads] [rows ...]     (on one line; ATTUNE_CPU picks a level)
// Each figure is the best of several runs with the weight's panels already packed, as in all but the first use of a step.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../test/native/test_context.h"
#define ATTUNE_FILE "../../../bench/native/gemm_bench.cc"
#include "../../native/cpu/common/foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

// Floating-point operations of a run of independent multiply-adds in registers.
[[maybe_unused]] double burn(bool half, int64_t steps, float* out) {
  constexpr int N = ATTUNE_LEVEL >= 2 ? 24 : 12;
  V sum[N], a = set(out[0]), b = set(out[1]);
  for (int i = 0; i < N; ++i) sum[i] = set(static_cast<float>(i));
#if ATTUNE_LEVEL >= 3
  if (half) {
    for (int64_t s = 0; s < steps; ++s)
#pragma GCC unroll 24
      for (int i = 0; i < N; ++i) sum[i].v = _mm512_dpbf16_ps(sum[i].v, (__m512bh)a.v, (__m512bh)b.v);
  } else
#endif
    for (int64_t s = 0; s < steps; ++s)
#pragma GCC unroll 24
      for (int i = 0; i < N; ++i) sum[i] = fma(a, b, sum[i]);
  for (int i = 1; i < N; ++i) sum[0] = sum[0] + sum[i];
  store(out, sum[0]);
  return 2.0 * N * V::W * static_cast<double>(steps) * (half && ATTUNE_LEVEL >= 3 ? 2 : 1);
}

}  // namespace
}  // namespace attune::cpu::ISA

#if ATTUNE_LEVEL == 0
using namespace attune;
using namespace attune::test;

static double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class F> static double best(F f) {
  double least = 1e9;
  const double until = now() + 0.25;
  for (int i = 0; i < 3 || now() < until; ++i) {
    const double t = now();
    f();
    least = std::min(least, now() - t);
  }
  return least;
}

static double peak(TestContext& c, bool half) {
  const int threads = c.pool().threads();
  std::vector<float> out(static_cast<size_t>(threads) * 64, 0.0f);
  double flops = 0;
  const double t = best([&] {
    c.parallel(threads, [&](int64_t i, int) {
      using namespace attune::cpu;
      const double n = ATTUNE_CALL(burn, half, int64_t{100000}, out.data() + 64 * i);
      if (i == 0) flops = n;
    });
  });
  return flops * threads / t / 1e9;
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  std::vector<int64_t> rows;
  for (int i = 2; i < argc; ++i) rows.push_back(std::atoi(argv[i]));
  if (rows.empty()) rows = {512, 1024};
  TestContext c(threads);
  const struct {
    const char* name;
    int64_t out, in;
  } shapes[] = {{"qkv", 640, 384}, {"o", 384, 384}, {"gate+up", 2048, 384}, {"down", 384, 1024}, {"head", 16384, 384}};
  for (DType t : {DType::f32, DType::bf16}) {
    const bool half = t == DType::bf16;
    const double most = peak(c, half);
    std::printf("%s %s, %d threads: peak %.0f GF/s\n", cpu::cpu_level(), half ? "bf16" : "fp32", threads, most);
    for (int64_t m : rows)
      for (const auto& s : shapes) {
        Random r(1);
        Buffer x(t, {m, s.in}), w(t, {s.out, s.in}), y(t, {m, s.out}), dx(t, {m, s.in}), dw(DType::f32, {s.out, s.in});
        x.fill(0.5), w.fill(0.25), y.fill(0.125), dw.fill(0);
        for (int64_t i = 0; i < 1000; ++i) x.set(r.below(x.size()), r.normal());
        c.weights.clear();
        c.forget();
        c.weights[w.t.data] = true;
        Gemm g[3] = {};
        g[0].a = x, g[0].b = w, g[0].y = y, g[0].tb = 1;
        g[1].a = y, g[1].b = w, g[1].y = dx;
        g[2].a = y, g[2].b = x, g[2].y = dw, g[2].onto = dw, g[2].ta = 1;
        std::printf("  %-8s %5ld x %5ld x %4ld ", s.name, (long)m, (long)s.out, (long)s.in);
        for (int f = 0; f < 3; ++f) {
          c.plan(opcode_of("gemm"), g[f]);
          const double gf = 2e-9 * static_cast<double>(m * s.out * s.in) / best([&] { cpu::gemm(g[f], c); });
          std::printf(" %s %4.0f = %3.0f%%", f == 0 ? "fwd" : f == 1 ? "dX" : "dW", gf, 100 * gf / most);
        }
        c.plan(opcode_of("gemm"), g[0]);
        const double pack = best([&] { c.forget(), cpu::gemm(g[0], c); }), pack2 = best([&] { c.forget(), cpu::gemm(g[1], c); });
        const double keep = best([&] { cpu::gemm(g[0], c); }), keep2 = best([&] { cpu::gemm(g[1], c); });
        std::printf("  packing +%.0f%% +%.0f%%\n", 100 * (pack / keep - 1), 100 * (pack2 / keep2 - 1));
      }
  }
}
#endif
