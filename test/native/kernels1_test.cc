// Checks of gemm, linear_logprob, log_softmax_gather, adamw, sums, gathers and the pool against plain double loops: odd shapes, every
// level of the machine, 1 to 3 threads (bits equal), in place, guard bytes. From the repository root:
//   g++ -std=c++20 -O2 -fno-math-errno -ffp-contract=fast -pthread -o /tmp/kernels1_test test/native/kernels1_test.cc
//     native/cpu/*.cc native/cpu/common/*.cc && /tmp/kernels1_test     (on one line; also with -fsanitize=address,undefined or thread)
#include <atomic>
#include <limits>

#include "../../native/cpu/common/gemm_core.h"
#include "test_context.h"

using namespace attune;
using namespace attune::test;

namespace {

constexpr DType F = DType::f32, H = DType::bf16, I = DType::i32;

TestContext& context(int threads) {
  static TestContext all[3] = {TestContext(1), TestContext(2), TestContext(3)};
  return all[threads - 1];
}

// |got - want| within `ulps` roundings of the dtype around the size that the sum had (`mass`: sum of |terms|).
bool near(double got, double want, DType t, double mass, double slack = 1) {
  if (std::isnan(want) || std::isinf(want)) return std::isnan(want) ? std::isnan(got) : got == want;
  const double eps = t == DType::bf16 ? 0x1p-8 : 0x1p-23;
  return std::fabs(got - want) <= slack * (eps * std::fabs(want) + 0x1p-23 * mass) + 1e-37;
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
  if (g.out == I) y.fill(0);
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

struct LogpRow {
  double lse, entropy, top;
};
LogpRow softmax_of(const std::vector<double>& x) {
  double high = -INFINITY, sum = 0, weighted = 0;
  for (double v : x) high = std::fmax(high, v);
  for (double v : x) sum += std::exp(v - high);
  for (double v : x) {
    const double p = std::exp(v - high) / sum;
    if (p != 0) weighted += p * (v - high);
  }
  return {high + std::log(sum), std::log(sum) - weighted, high};
}

void check_head() {
  Random r(3);
  for (DType t : {F, H})
    for (auto [m, v] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {5, 16}, {9, 130}, {2, 4096}, {3, 9001}, {0, 5}}) {
      Buffer x(t, {m, v}), targets(I, {m}), dlogp(F, {m});
      x.normal(r, 4);
      dlogp.normal(r);
      for (int64_t i = 0; i < m; ++i) targets.set(i, i % 3 == 2 ? -1 : r.below(v));
      if (m > 4) x.set(4 * v + v / 2, -INFINITY);
      Buffer first[5];
      for (int threads : {1, 2, 3}) {
        TestContext& c = context(threads);
        Buffer logp(F, {m}), lse(F, {m}), entropy(F, {m}), hit(F, {m}), d(F, {m, v});
        LogSoftmaxGather a{};
        a.logits = x, a.targets = targets, a.logp = logp, a.lse = lse, a.entropy = entropy, a.hit = hit;
        RUN(log_softmax_gather, a, c);
        LogSoftmaxGatherBackward b{};
        b.logits = x, b.targets = targets, b.lse = lse, b.dlogp = dlogp, b.dlogits = d;
        RUN(log_softmax_gather_backward, b, c);
        Buffer place = x;
        b.logits = place, b.dlogits = place;
        RUN(log_softmax_gather_backward, b, c);
        const Buffer* all[5] = {&logp, &lse, &entropy, &hit, &d};
        for (int i = 0; i < 5; ++i) {
          CHECK(all[i]->guarded(), "guard %d", i);
          if (threads == 1) first[i] = *all[i];
          CHECK(first[i].same(*all[i]), "bits on %d threads, output %d", threads, i);
        }
        bool rounded = true;
        for (int64_t i = 0; i < m * v; ++i)
          rounded = rounded && place.at(i) == (t == F ? d.at(i) : to_float(to_bf16(static_cast<float>(d.at(i)))));
        CHECK(rounded && place.guarded(), "in place differs, dtype %d", (int)t);
        Buffer only(F, {m});
        LogSoftmaxGather some{};
        some.logits = x, some.targets = targets, some.logp = only;
        RUN(log_softmax_gather, some, c);
        CHECK(only.same(logp), "logp alone");
      }
      for (int64_t i = 0; i < m; ++i) {
        std::vector<double> row(static_cast<size_t>(v));
        for (int64_t j = 0; j < v; ++j) row[static_cast<size_t>(j)] = x.at(i * v + j);
        const LogpRow want = softmax_of(row);
        const int64_t target = static_cast<int64_t>(targets.at(i));
        const double at = target < 0 ? 0 : row[static_cast<size_t>(target)];
        CHECK(near(first[1].at(i), want.lse, F, 10), "lse %g for %g", first[1].at(i), want.lse);
        CHECK(near(first[0].at(i), target < 0 ? 0 : at - want.lse, F, 10), "logp %g for %g", first[0].at(i), at - want.lse);
        CHECK(near(first[2].at(i), target < 0 ? 0 : want.entropy, F, 10), "entropy %g for %g", first[2].at(i), want.entropy);
        CHECK(first[3].at(i) == (target >= 0 && at == want.top ? 1 : 0), "hit %g", first[3].at(i));
        for (int64_t j = 0; j < v; ++j) {
          const double p = std::exp(row[static_cast<size_t>(j)] - want.lse);
          const double d = target < 0 ? 0 : dlogp.at(i) * ((j == target ? 1 : 0) - p);
          CHECK(std::fabs(first[4].at(i * v + j) - d) <= 1e-6 * std::fabs(d) + 2e-7 * std::fabs(dlogp.at(i)) * (p + 1e-7) * 4,
                "dlogits %g for %g", first[4].at(i * v + j), d);
        }
      }
    }
  Buffer x(F, {3, 40}), targets(I, {3}), lse(F, {3}), logp(F, {3}), entropy(F, {3}), dlogp(F, {3}), d(F, {3, 40});
  x.normal(r);
  dlogp.fill(1);
  targets.fill(2);
  x.set(5, NAN);
  for (int j = 0; j < 40; ++j) x.set(40 + j, j == 2 ? 1.5 : -INFINITY);
  targets.set(2, -1);
  LogSoftmaxGather a{};
  a.logits = x, a.targets = targets, a.lse = lse, a.logp = logp, a.entropy = entropy;
  RUN(log_softmax_gather, a, context(1));
  CHECK(std::isnan(lse.at(0)) && std::isnan(logp.at(0)) && std::isnan(entropy.at(0)), "NaN row gives %g", lse.at(0));
  CHECK(lse.at(1) == 1.5 && logp.at(1) == 0 && entropy.at(1) == 0, "one finite logit: %g %g %g", lse.at(1), logp.at(1), entropy.at(1));
  LogSoftmaxGatherBackward b{};
  b.logits = x, b.targets = targets, b.lse = lse, b.dlogp = dlogp, b.dlogits = d;
  x.set(80, NAN);
  RUN(log_softmax_gather_backward, b, context(1));
  CHECK(std::isnan(d.at(0)) && d.at(42) == 0 && d.at(80) == 0, "backward of special rows");
}

void check_linear_logprob() {
  Random r(11);
  for (DType t : {F, H})
    for (auto [m, v, width] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {3, 33, 7}, {20, 700, 33}, {115, 2100, 16}, {6, 9000, 24}, {0, 9, 3}})
      for (bool weight : {false, true}) {
        Buffer hidden(t, {m, width}), w(t, {v, width}), targets(I, {m});
        hidden.normal(r);
        w.normal(r);
        for (int64_t i = 0; i < m; ++i) targets.set(i, i % 4 == 3 ? -1 : r.below(v));
        Buffer first[4];
        for (int threads : {1, 2, 3}) {
          TestContext& c = context(threads);
          c.weights.clear();
          c.forget();
          if (weight) c.weights[w.t.data] = true;
          Buffer logp(F, {m}), lse(F, {m}), entropy(F, {m}), hit(F, {m});
          LinearLogprob a{};
          a.hidden = hidden, a.weight = w, a.targets = targets;
          a.logp = logp, a.lse = lse, a.entropy = entropy, a.hit = hit;
          LinearLogprob capacity = a;  // planned for more rows than are in use
          capacity.hidden.shape[0] += 5000, capacity.targets.shape[0] += 5000;
          c.plan(opcode_of("linear_logprob"), capacity);
          cpu::linear_logprob(a, c);
          const int64_t planned = cpu::linear_logprob_scratch(capacity);
          CHECK(planned <= 32 << 20, "scratch of %ld bytes", (long)planned);
          const Buffer* all[4] = {&logp, &lse, &entropy, &hit};
          for (int i = 0; i < 4; ++i) {
            if (threads == 1) first[i] = *all[i];
            CHECK(first[i].same(*all[i]) && all[i]->guarded(), "bits on %d threads, output %d", threads, i);
          }
          if (m > 2) {  // rows alone
            Buffer one(t, {1, width}), target(I, {1}), p(F, {1});
            for (int64_t i = 0; i < width; ++i) one.set(i, hidden.at(2 * width + i));
            target.set(0, targets.at(2));
            LinearLogprob b{};
            b.hidden = one, b.weight = w, b.targets = target, b.logp = p;
            RUN(linear_logprob, b, c);
            CHECK(p.at(0) == logp.at(2), "row alone: %.9g, among others %.9g", p.at(0), logp.at(2));
          }
        }
        for (int64_t i = 0; i < m; ++i) {
          std::vector<double> row(static_cast<size_t>(v));
          for (int64_t j = 0; j < v; ++j)
            for (int64_t k = 0; k < width; ++k) row[static_cast<size_t>(j)] += hidden.at(i * width + k) * w.at(j * width + k);
          const LogpRow want = softmax_of(row);
          const int64_t target = static_cast<int64_t>(targets.at(i));
          const double at = target < 0 ? 0 : row[static_cast<size_t>(target)];
          CHECK(near(first[1].at(i), want.lse, F, 40), "lse %g for %g", first[1].at(i), want.lse);
          CHECK(near(first[0].at(i), target < 0 ? 0 : at - want.lse, F, 40), "logp %g for %g", first[0].at(i), at - want.lse);
          CHECK(near(first[2].at(i), target < 0 ? 0 : want.entropy, F, 80), "entropy %g for %g", first[2].at(i), want.entropy);
          CHECK(first[3].at(i) == (target >= 0 && at == want.top ? 1 : 0), "hit %g", first[3].at(i));
        }
      }
}

Buffer scalar(double x) {
  Buffer b(F, {});
  b.set(0, x);
  return b;
}

void check_adamw() {
  Random r(5);
  for (bool mixed : {false, true})
    for (int64_t n : {0, 1, 15, 16, 17, 1000, 40001}) {
      Buffer g(F, {n}), m(F, {n}), v(F, {n}), w(mixed ? H : F, {n}), master(F, {n});
      g.normal(r), m.normal(r, 0.1), v.normal(r), master.normal(r);
      for (int64_t i = 0; i < n; ++i) v.set(i, v.at(i) * v.at(i)), w.set(i, master.at(i));
      if (n > 20) g.set(3, NAN);
      const Buffer scale = scalar(0.7), lr = scalar(3e-3), bias1 = scalar(0.271), bias2 = scalar(0.003);
      Buffer first[5];
      for (int threads : {1, 2, 3}) {
        Buffer g2 = g, m2 = m, v2 = v, w2 = w, master2 = master;
        Adamw a{};
        a.g = a.g2 = g2, a.m = a.m2 = m2, a.v = a.v2 = v2, a.w = a.w2 = w2;
        if (mixed) a.master = a.master2 = master2;
        a.scale = scale, a.lr = lr, a.bias1 = bias1, a.bias2 = bias2;
        a.beta1 = 0.9, a.beta2 = 0.999, a.eps = 1e-8, a.decay = 0.1;
        RUN(adamw, a, context(threads));
        const Buffer* all[5] = {&g2, &m2, &v2, &w2, &master2};
        for (int i = 0; i < 5; ++i) {
          if (threads == 1) first[i] = *all[i];
          CHECK(first[i].same(*all[i]) && all[i]->guarded(), "adamw bits on %d threads, output %d", threads, i);
        }
      }
      const float lrf = static_cast<float>(3e-3), b1 = static_cast<float>(0.271), b2 = static_cast<float>(0.003);
      for (int64_t i = 0; i < n; ++i) {
        const double d = g.at(i) * static_cast<float>(0.7), mean = 0.9 * m.at(i) + 0.1 * d, square = 0.999 * v.at(i) + 0.001 * d * d;
        const double step = lrf / b1 * mean / (std::sqrt(square) / std::sqrt(b2) + 1e-8), p = mixed ? master.at(i) : w.at(i);
        const double want = p * (1 - lrf * 0.1) - step;
        CHECK(first[0].at(i) == 0, "g2 %g", first[0].at(i));
        CHECK(near(first[1].at(i), mean, F, std::fabs(m.at(i)) + std::fabs(d)), "m %g for %g", first[1].at(i), mean);
        CHECK(near(first[2].at(i), square, F, square), "v %g for %g", first[2].at(i), square);
        const Buffer& out = mixed ? first[4] : first[3];
        CHECK(near(out.at(i), want, F, std::fabs(p) + 2 * std::fabs(step)), "p %g for %g", out.at(i), want);
        if (mixed && i != 3) CHECK(first[3].at(i) == to_float(to_bf16(static_cast<float>(out.at(i)))), "w is no copy of master");
      }
    }
}

void check_sums() {
  Random r(9);
  for (DType t : {F, H}) {
    for (int64_t n : {0, 1, 31, 33, 65536, 200001})
      for (bool onto : {false, true}) {
        Buffer x(t, {n}), first;
        x.normal(r);
        double want = onto ? 2.5 : 0;
        for (int64_t i = 0; i < n; ++i) want += x.at(i) * x.at(i);
        for (int threads : {1, 2, 3}) {
          Buffer y = scalar(2.5);
          SumSquares a{};
          a.x = x, a.y = y;
          if (onto) a.onto = y;
          RUN(sum_squares, a, context(threads));
          if (threads == 1) first = y;
          CHECK(y.same(first) && y.guarded() && near(y.at(0), want, F, 0), "sum_squares %g for %g", y.at(0), want);
        }
      }
    for (auto [n, w] : {std::pair<int64_t, int64_t>{0, 5}, {1, 1}, {3, 70}, {300, 65}, {129, 7}, {1000, 200}})
      for (bool onto : {false, true}) {
        Buffer x(t, {n, w}), base(F, {w}), first;
        x.normal(r), base.normal(r);
        for (int threads : {1, 2, 3}) {
          Buffer y = base;
          SumRows a{};
          a.x = x, a.y = y;
          if (onto) a.onto = y;
          RUN(sum_rows, a, context(threads));
          if (threads == 1) first = y;
          CHECK(y.same(first) && y.guarded(), "sum_rows bits");
        }
        for (int64_t j = 0; j < w; ++j) {
          double want = onto ? base.at(j) : 0, mass = std::fabs(want);
          for (int64_t i = 0; i < n; ++i) want += x.at(i * w + j), mass += std::fabs(x.at(i * w + j));
          CHECK(near(first.at(j), want, F, mass), "sum_rows %g for %g", first.at(j), want);
        }
      }
  }
}

void check_gathers() {
  Random r(13);
  for (auto [rows, m, w] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {7, 30, 5}, {300, 100, 64}, {65, 0, 33}, {9, 400, 1100}, {4, 9, 130}})
    for (DType t : {F, H})
      for (int mode = 0; mode < 3; ++mode) {  // backward: no onto, onto elsewhere, in place
        Buffer x(t, {rows, w}), idx(I, {m}), start(I, {rows}), length(I, {rows}), order(I, {m}), dy(t, {m, w}), base(F, {rows, w});
        x.normal(r), dy.normal(r), base.normal(r);
        for (int64_t j = 0; j < m; ++j) idx.set(j, r.below(5) == 0 ? -1 : r.below(rows) / 2);
        IndexTranspose s{};
        s.idx = idx, s.start = start, s.length = length, s.order = order;
        RUN(index_transpose, s, context(1));
        CHECK(start.guarded() && length.guarded() && order.guarded(), "guards");
        int64_t at = 0;
        for (int64_t i = 0; i < rows; ++i) {
          CHECK(start.at(i) == at, "start %g for %ld", start.at(i), (long)at);
          for (int64_t j = 0; j < m; ++j)
            if (idx.at(j) == i) {
              CHECK(order.at(at) == j, "order %g for %ld", order.at(at), (long)j);
              ++at;
            }
          CHECK(start.at(i) + length.at(i) == at, "length");
        }
        for (; at < m; ++at) CHECK(order.at(at) == -1, "tail");
        Buffer first;
        for (int threads : {1, 2, 3}) {
          Buffer y(t, {m, w});
          y.fill(NAN);
          GatherRows a{};
          a.x = x, a.idx = idx, a.y = y;
          RUN(gather_rows, a, context(threads));
          for (int64_t j = 0; j < m; ++j)
            for (int64_t i = 0; i < w; ++i) {
              const double want = idx.at(j) < 0 ? 0 : x.at(static_cast<int64_t>(idx.at(j)) * w + i);
              CHECK(y.at(j * w + i) == want, "gather %g for %g", y.at(j * w + i), want);
            }
          Buffer dx = base;
          if (mode != 2) dx.fill(NAN);
          GatherRowsBackward b{};
          b.idx = idx, b.start = start, b.length = length, b.order = order, b.dy = dy, b.dx = dx;
          if (mode) b.onto_dx = mode == 1 ? base.t : dx.t;
          RUN(gather_rows_backward, b, context(threads));
          if (threads == 1) first = dx;
          CHECK(first.same(dx) && dx.guarded() && y.guarded(), "gather_rows_backward bits");
        }
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t k = 0; k < w; ++k) {
            double want = mode ? base.at(i * w + k) : 0, mass = std::fabs(want);
            for (int64_t j = 0; j < m; ++j)
              if (idx.at(j) == i) want += dy.at(j * w + k), mass += std::fabs(dy.at(j * w + k));
            CHECK(near(first.at(i * w + k), want, F, mass, 3), "dx %g for %g", first.at(i * w + k), want);
          }
      }
}

void checks() {
  const char* asked = std::getenv("ATTUNE_CPU");
  const bool known = std::strcmp(asked, "nonsense") != 0;
  CHECK(cpu::cpu_level_unknown() != known, "ATTUNE_CPU=%s", asked);
  if (!known) return;
  CHECK(std::strcmp(cpu::cpu_level(), asked) == 0, "ATTUNE_CPU=%s gives %s", asked, cpu::cpu_level());
  check_core();
  check_pool();
  check_gemm();
  check_head();
  check_linear_logprob();
  check_adamw();
  check_sums();
  check_gathers();
}

}  // namespace

int main(int, char** argv) {
  if (!std::getenv("ATTUNE_CPU") && std::system((std::string("ATTUNE_CPU=nonsense '") + argv[0] + "' >/dev/null").c_str()) != 0) {
    std::printf("an unknown ATTUNE_CPU is not said to be unknown\n");
    return 1;
  }
  return for_each_level(argv[0], checks);
}
