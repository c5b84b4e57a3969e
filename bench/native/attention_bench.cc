// GF/s of attention beside the machine's measured peak: one long document, packed documents, prompt trees. Operations
// counted are those of visible pairs alone: 4 D a pair and head forward, 10 D backward.
//   g++ -std=c++20 -O3 -fno-math-errno -ffp-contract=fast -pthread -o /tmp/attention_bench
//   bench/native/attention_bench.cc
//     native/cpu/*.cc native/cpu/common/*.cc && /tmp/attention_bench [threads] [H K D]      (on one line; ATTUNE_CPU
//     picks a level)
#include <time.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../test/native/test_context.h"
#define ATTUNE_FILE "../../../bench/native/attention_bench.cc"
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

// One thread: its own processor time, so that neighbours count less. More: the clock.
static bool alone = true;
static double now() {
  if (!alone) return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

template <class F>
static double best(F f) {
  double least = 1e9;
  const double until = now() + 0.3;
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
  const int64_t H = argc > 4 ? std::atoi(argv[2]) : 6, K = argc > 4 ? std::atoi(argv[3]) : 2,
                D = argc > 4 ? std::atoi(argv[4]) : 64;
  alone = threads == 1;
  TestContext c(threads);
  // A layout is a list of documents; a tree is a prompt with two completions.
  struct Document {
    int64_t prompt, a, b;
  };
  const struct {
    const char* name;
    std::vector<Document> documents;
  } layouts[] = {{"4 x 312", {{312, 0, 0}, {312, 0, 0}, {312, 0, 0}, {312, 0, 0}}},
                 {"4 x tree", {{243, 158, 151}, {243, 158, 151}, {243, 158, 151}, {200, 100, 90}}},
                 {"1 x 2048", {{2048, 0, 0}}}};
  std::printf("%s, %d threads, heads %ld/%ld, D %ld\n", cpu::cpu_level(), threads, long(H), long(K), long(D));
  for (DType type : {DType::f32, DType::bf16}) {
    const double top = peak(c, type == DType::bf16);
    std::printf("%s: peak %.0f GF/s\n", type == DType::bf16 ? "bf16" : "fp32", top);
    for (const auto& layout : layouts) {
      std::vector<int64_t> end;
      double pairs = 0;
      for (const Document& d : layout.documents) {
        const int64_t from = int64_t(end.size()), all = from + d.prompt + d.a + d.b;
        for (int64_t i = 0; i < d.prompt; ++i) end.push_back(all);
        for (int64_t i = 0; i < d.a; ++i) end.push_back(from + d.prompt + d.a);
        for (int64_t i = 0; i < d.b; ++i) end.push_back(all);
        for (int64_t own : {d.a, d.b}) pairs += double(own) * double(d.prompt) + 0.5 * double(own) * double(own + 1);
        pairs += 0.5 * double(d.prompt) * double(d.prompt + 1);
      }
      const int64_t n = int64_t(end.size());
      Random r(1);
      Buffer q(type, {n, H, D}), k(type, {n, K, D}), v(type, {n, K, D}), ends(DType::i32, {n}), y(type, {n, H, D}),
          lse(DType::f32, {H, n});
      Buffer dy(type, {n, H, D}), dq(type, {n, H, D}), dk(type, {n, K, D}), dv(type, {n, K, D});
      q.normal(r), k.normal(r), v.normal(r), dy.normal(r);
      for (int64_t i = 0; i < n; ++i) ends.set(i, double(end[size_t(i)]));
      Attention f{};
      f.q = q, f.k = k, f.v = v, f.end = ends, f.y = y, f.lse = lse, f.scale = 1 / std::sqrt(double(D));
      AttentionBackward b{};
      b.q = q, b.k = k, b.v = v, b.end = ends, b.y = y, b.lse = lse, b.dy = dy, b.dq = dq, b.dk = dk, b.dv = dv,
      b.scale = f.scale;
      c.plan(opcode_of("attention"), f);
      const double forward = best([&] { cpu::attention(f, c); });
      c.plan(opcode_of("attention_backward"), b);
      const double backward = best([&] { cpu::attention_backward(b, c); });
      const double work = pairs * double(H * D) / 1e9;
      std::printf(
          "  %-10s forward %7.2f ms %4.0f GF/s %2.0f%%   backward %7.2f ms %4.0f GF/s %2.0f%%   scratch %.1f / %.1f "
          "MiB\n",
          layout.name, forward * 1e3, 4 * work / forward, 400 * work / forward / top, backward * 1e3,
          10 * work / backward, 1000 * work / backward / top, double(cpu::attention_scratch(f)) / 1048576,
          double(cpu::attention_backward_scratch(b)) / 1048576);
    }
  }
}
#endif
