// Checks of the pool, the micro-kernel and gemm against plain double loops: odd shapes and every form, every level of the machine,
// 1 to 3 threads (bits equal), rows alone (bits equal), in place, kept panels, planned capacities, guard bytes. From the repository root:
//   g++ -std=c++20 -O2 -fno-math-errno -ffp-contract=fast -pthread -o /tmp/gemm_test test/native/gemm_test.cc
//     native/cpu/*.cc native/cpu/common/*.cc && /tmp/gemm_test        (on one line; also with -fsanitize=address,undefined or thread)
#include <atomic>
#include <limits>

#include "../../native/cpu/common/gemm_core.h"
#include "test_context.h"

using namespace attune;
using namespace attune::test;

namespace {

constexpr DType F = DType::f32, H = DType::bf16;

TestContext& context(int threads) {
  static TestContext all[3] = {TestContext(1), TestContext(2), TestContext(3)};
  return all[threads - 1];
}

void check_pool() {
  for (int threads : {1, 2, 3, 5}) {
    auto pool = cpu::make_pool(threads);
    for (int64_t count : {0, 1, 2, 3, 7, 100, 1000}) {
      for (int repeat = 0; repeat < 50; ++repeat) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
        struct Job {
          std::vector<std::atomic<int>>& seen;
          int threads;
          std::atomic<int> bad{0};
        } job{seen, threads, {}};
        pool->run(count, [](void* p, int64_t i, int thread) {
          Job& j = *static_cast<Job*>(p);
          ++j.seen[static_cast<size_t>(i)];
          if (thread < 0 || thread >= j.threads) ++j.bad;
        }, &job);
        bool once = job.bad == 0;
        for (auto& n : seen) once = once && n == 1;
        CHECK(once, "pool of %d, %ld tasks", threads, (long)count);
      }
    }
  }
  auto pool = cpu::make_pool(2);  // more tasks than one round holds; threads asleep before the call
  for (int repeat = 0; repeat < 3; ++repeat) {
    usleep(20000);
    std::atomic<int64_t> sum{0};
    pool->run(1500000, [](void* p, int64_t i, int) { static_cast<std::atomic<int64_t>*>(p)->fetch_add(i); }, &sum);
    CHECK(sum == 1500000ll * 1499999 / 2, "sum of %ld", (long)sum);
  }
}

struct GemmCase {
  int64_t m, n, k;
  DType in, out, onto, bias;
  bool ta, tb, with_onto, with_bias, in_place, weight;
};

int seed_of_capacity = 0;

Buffer run_gemm(const GemmCase& g, const Buffer& a, const Buffer& b, const Buffer& bias, const Buffer& onto, int threads) {
  TestContext& c = context(threads);
  c.weights.clear();
  c.forget();
  if (g.weight) c.weights[b.t.data] = true;
  Buffer y(g.out, {g.m, g.n});
  y.fill(std::numeric_limits<double>::quiet_NaN());
  Gemm args{};
  args.a = a;
  args.b = b;
  args.y = y;
  if (g.with_bias) args.bias = bias;
  if (g.with_onto) args.onto = onto;
  args.ta = g.ta;
  args.tb = g.tb;
  if (g.with_onto && g.in_place) {
    y = onto;
    args.y = y;
    args.onto = y;
  }
  Gemm capacity = args;  // planned for more tokens than are in use
  if (seed_of_capacity++ % 2) {
    if (g.ta)
      capacity.a.shape[0] += 777, capacity.b.shape[g.tb ? 1 : 0] += 777;
    else
      capacity.a.shape[0] += 777, capacity.y.shape[0] += 777;
  }
  c.plan(opcode_of("gemm"), capacity);
  cpu::gemm(args, c);
  CHECK(y.guarded(), "gemm wrote outside y: %ldx%ldx%ld", (long)g.m, (long)g.n, (long)g.k);
  if (g.weight && !(g.with_onto && g.in_place)) {  // again, from the panels kept
    Buffer first = y;
    RUN(gemm, args, c);
    CHECK(first.same(y), "gemm from kept panels differs: %ldx%ldx%ld", (long)g.m, (long)g.n, (long)g.k);
  }
  return y;
}

void check_gemm_case(const GemmCase& g, uint64_t seed) {
  Random r(seed);
  Buffer a = g.ta ? Buffer(g.in, {g.k, g.m}) : Buffer(g.in, {g.m, g.k});
  Buffer b = g.tb ? Buffer(g.in, {g.n, g.k}) : Buffer(g.in, {g.k, g.n});
  Buffer bias(g.bias, {g.n}), onto(g.onto, {g.m, g.n});
  a.normal(r);
  b.normal(r);
  bias.normal(r);
  onto.normal(r);
  const Buffer y = run_gemm(g, a, b, bias, onto, 1);
  int bad = 0;
  double got = 0, want_bad = 0;
  for (int64_t i = 0; i < g.m; ++i)
    for (int64_t j = 0; j < g.n; ++j) {
      double want = 0, mass = 0;
      for (int64_t t = 0; t < g.k; ++t) {
        const double p = a.at(g.ta ? t * g.m + i : i * g.k + t) * b.at(g.tb ? j * g.k + t : t * g.n + j);
        want += p;
        mass += std::fabs(p);
      }
      if (g.with_bias) want += bias.at(j), mass += std::fabs(bias.at(j));
      if (g.with_onto) want += onto.at(i * g.n + j), mass += std::fabs(onto.at(i * g.n + j));
      if (!near(y.at(i * g.n + j), want, g.out, mass, 4)) ++bad, got = y.at(i * g.n + j), want_bad = want;
    }
  CHECK(bad == 0, "gemm %ldx%ldx%ld in %d out %d ta %d tb %d onto %d bias %d weight %d: %d wrong, e.g. %g for %g", (long)g.m, (long)g.n,
        (long)g.k, (int)g.in, (int)g.out, g.ta, g.tb, g.with_onto, g.with_bias, g.weight, bad, got, want_bad);
  for (int threads : {2, 3}) {
    const Buffer other = run_gemm(g, a, b, bias, onto, threads);
    CHECK(other.same(y), "gemm bits on %d threads: %ldx%ldx%ld", threads, (long)g.m, (long)g.n, (long)g.k);
  }
  if (!g.ta && g.m > 1) {  // a row's bits do not depend on the other rows
    const int64_t first = r.below(g.m), count = 1 + r.below(g.m - first);
    GemmCase part = g;
    part.m = count;
    Buffer a2(g.in, {count, g.k}), onto2(g.onto, {count, g.n});
    for (int64_t i = 0; i < count * g.k; ++i) a2.set(i, a.at(first * g.k + i));
    for (int64_t i = 0; i < count * g.n; ++i) onto2.set(i, onto.at(first * g.n + i));
    const Buffer y2 = run_gemm(part, a2, b, bias, onto2, 2);
    bool same = true;
    for (int64_t i = 0; i < count * g.n; ++i) same = same && y2.at(i) == y.at(first * g.n + i);
    CHECK(same, "gemm rows %ld..%ld alone differ: %ldx%ldx%ld", (long)first, (long)(first + count), (long)g.m, (long)g.n, (long)g.k);
  }
}

void check_gemm() {
  const int64_t sizes[] = {0, 1, 2, 3, 7, 13, 14, 15, 16, 29, 31, 32, 33, 47, 64, 65, 113};
  Random r(7);
  auto pick = [&] { return sizes[r.below(17)]; };
  for (uint64_t i = 0; i < 160; ++i) {
    GemmCase g{};
    g.m = pick(), g.n = pick(), g.k = pick();
    if (i % 16 == 0) g.k = 300 + r.below(200);
    g.in = r.below(2) ? F : H, g.out = r.below(2) ? F : H, g.onto = r.below(2) ? F : H, g.bias = r.below(2) ? F : H;
    g.ta = i & 1, g.tb = i & 2;
    g.with_onto = r.below(2), g.with_bias = r.below(3) == 0, g.weight = r.below(2);
    g.in_place = g.with_onto && r.below(2);
    if (g.in_place) g.onto = g.out;
    check_gemm_case(g, i);
  }
  for (DType in : {F, H}) {  // the blocking of long sums, wide outputs and strides of whole pages
    for (int form = 0; form < 4; ++form) {
      const bool ta = form & 1, tb = form & 2;
      check_gemm_case({30, 45, 5003, in, F, F, F, ta, tb, true, false, true, false}, 1000);
      check_gemm_case({17, 33, 4096, in, H, F, H, ta, tb, false, true, false, true}, 1001);
      check_gemm_case({130, 700, 70, in, in, F, in, ta, tb, false, false, false, true}, 1002);
      check_gemm_case({5, 70, 9001, in, H, H, H, ta, tb, true, true, true, false}, 1003);
    }
    check_gemm_case({260, 64, 1024, in, in, F, F, false, true, false, false, false, true}, 1004);
  }
}

// The micro-kernel as attention uses it: A by k in tiles of 8 rows, sums added to what is there, few rows, part of a panel.
void check_core() {
  Random r(21);
  for (DType t : {F, H})
    for (int64_t k : {1, 2, 5, 32, 33})
      for (int rows : {1, 3, 4})
        for (int columns : {1, 7, 0}) {
          const cpu::GemmCore& g = cpu::gemm_core(t);
          const int n = columns ? columns : g.columns, tile = 8;
          Buffer a(t, {k, rows}), b(t, {k, n}), y(F, {rows, n + 3});
          a.normal(r), b.normal(r), y.normal(r);
          const Buffer before = y;
          const int64_t units = g.units(k);
          Buffer pa(F, {units * tile + 16}), pb(F, {units, g.columns});
          g.pack_a(a.t.data, rows, k, rows, tile, pa.t.data);
          g.pack_b(b.t.data, n, k, n, pb.t.data);
          cpu::TileOut o;
          o.y = y.t.data, o.stride = n + 3, o.columns = n;
          o.add = o.y, o.add_stride = o.stride;
          g.by_k[rows](pa.t.data, tile, pb.t.data, units, o);
          CHECK(pa.guarded() && pb.guarded() && y.guarded(), "core guards");
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < n + 3; ++j) {
              double want = before.at(i * (n + 3) + j), mass = std::fabs(want);
              for (int64_t u = 0; u < k && j < n; ++u) want += a.at(u * rows + i) * b.at(u * n + j), mass += std::fabs(a.at(u * rows + i) * b.at(u * n + j));
              CHECK(near(y.at(i * (n + 3) + j), want, F, mass, 2), "core %g for %g", y.at(i * (n + 3) + j), want);
            }
        }
}

void checks() {
  const char* asked = std::getenv("ATTUNE_CPU");
  const bool known = std::strcmp(asked, "nonsense") != 0;
  CHECK(cpu::cpu_level_unknown() != known, "ATTUNE_CPU=%s", asked);
  if (!known) return;
  CHECK(std::strcmp(cpu::cpu_level(), asked) == 0, "ATTUNE_CPU=%s gives %s", asked, cpu::cpu_level());
  check_pool();
  check_core();
  check_gemm();
}

}  // namespace

int main(int, char** argv) {
  if (!std::getenv("ATTUNE_CPU") && std::system((std::string("ATTUNE_CPU=nonsense '") + argv[0] + "' >/dev/null").c_str()) != 0) {
    std::printf("an unknown ATTUNE_CPU is not said to be unknown\n");
    return 1;
  }
  return for_each_level(argv[0], checks);
}
