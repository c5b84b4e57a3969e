// Checks of linear_logprob, log_softmax_gather, adamw, sums and gathers against plain double loops: odd shapes,
// every level of the machine, 1 to 3 threads (bits equal), in place, guard bytes. From the repository root:
//   g++ -std=c++20 -O2 -fno-math-errno -ffp-contract=fast -pthread -o /tmp/kernels1_test test/native/kernels1_test.cc
//     native/cpu/*.cc native/cpu/common/*.cc && /tmp/kernels1_test     (on one line; also with -fsanitize=address,undefined or thread)
#include "test_context.h"

using namespace attune;
using namespace attune::test;

namespace {

constexpr DType F = DType::f32, H = DType::bf16, I = DType::i32;

TestContext& context(int threads) {
  static TestContext all[3] = {TestContext(1), TestContext(2), TestContext(3)};
  return all[threads - 1];
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
    for (auto [m, v, width] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {3, 33, 7}, {20, 700, 33}, {115, 2100, 16}, {6, 9000, 24}, {3, 2100, 1101}, {2, 70, 3300}, {0, 9, 3}})
      for (bool weight : {false, true}) {
        Buffer hidden(t, {m, width}), w(t, {v, width}), targets(I, {m});
        hidden.normal(r, 4 / std::sqrt(static_cast<double>(width)));
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
          const double mass = 40 + 3 * std::sqrt(static_cast<double>(width));
          const int64_t target = static_cast<int64_t>(targets.at(i));
          const double at = target < 0 ? 0 : row[static_cast<size_t>(target)];
          CHECK(near(first[1].at(i), want.lse, F, mass), "lse %g for %g", first[1].at(i), want.lse);
          CHECK(near(first[0].at(i), target < 0 ? 0 : at - want.lse, F, mass), "logp %g for %g", first[0].at(i), at - want.lse);
          CHECK(near(first[2].at(i), target < 0 ? 0 : want.entropy, F, 2 * mass), "entropy %g for %g", first[2].at(i), want.entropy);
          CHECK(first[3].at(i) == (target >= 0 && at == want.top ? 1 : 0), "hit %g", first[3].at(i));
        }
      }
}

// More rows than running softmaxes are kept for at a time.
void check_linear_logprob_rows() {
  Random r(12);
  const int64_t m = 5900, v = 60000, width = 2;
  Buffer hidden(F, {m, width}), w(F, {v, width}), targets(I, {m}), logp(F, {m});
  hidden.normal(r);
  w.normal(r);
  for (int64_t i = 0; i < m; ++i) targets.set(i, r.below(v));
  LinearLogprob a{};
  a.hidden = hidden, a.weight = w, a.targets = targets, a.logp = logp;
  RUN(linear_logprob, a, context(2));
  CHECK(logp.guarded(), "guards");
  for (int64_t i : {int64_t{0}, int64_t{111}, int64_t{3000}, int64_t{5823}, int64_t{5824}, m - 1}) {
    Buffer one(F, {1, width}), target(I, {1}), alone(F, {1});
    for (int64_t k = 0; k < width; ++k) one.set(k, hidden.at(i * width + k));
    target.set(0, targets.at(i));
    a.hidden = one, a.targets = target, a.logp = alone;
    RUN(linear_logprob, a, context(1));
    CHECK(alone.at(0) == logp.at(i), "row %ld alone: %.9g, among others %.9g", (long)i, alone.at(0), logp.at(i));
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
      Buffer first[4];
      for (int threads : {1, 2, 3}) {
        Buffer m2 = m, v2 = v, w2 = w, master2 = master;
        Adamw a{};
        a.g = g, a.m = a.m2 = m2, a.v = a.v2 = v2, a.w = a.w2 = w2;
        if (mixed) a.master = a.master2 = master2;
        a.scale = scale, a.lr = lr, a.bias1 = bias1, a.bias2 = bias2;
        a.beta1 = 0.9, a.beta2 = 0.999, a.eps = 1e-8, a.decay = 0.1;
        RUN(adamw, a, context(threads));
        const Buffer* all[4] = {&m2, &v2, &w2, &master2};
        for (int i = 0; i < 4; ++i) {
          if (threads == 1) first[i] = *all[i];
          CHECK(first[i].same(*all[i]) && all[i]->guarded(), "adamw bits on %d threads, output %d", threads, i);
        }
      }
      const float lrf = static_cast<float>(3e-3), b1 = static_cast<float>(0.271), b2 = static_cast<float>(0.003);
      for (int64_t i = 0; i < n; ++i) {
        const double d = g.at(i) * static_cast<float>(0.7), mean = 0.9 * m.at(i) + 0.1 * d, square = 0.999 * v.at(i) + 0.001 * d * d;
        const double step = lrf / b1 * mean / (std::sqrt(square) / std::sqrt(b2) + 1e-8), p = mixed ? master.at(i) : w.at(i);
        const double want = p * (1 - lrf * 0.1) - step;
        CHECK(near(first[0].at(i), mean, F, std::fabs(m.at(i)) + std::fabs(d)), "m %g for %g", first[0].at(i), mean);
        CHECK(near(first[1].at(i), square, F, square), "v %g for %g", first[1].at(i), square);
        const Buffer& out = mixed ? first[3] : first[2];
        CHECK(near(out.at(i), want, F, std::fabs(p) + 2 * std::fabs(step)), "p %g for %g", out.at(i), want);
        if (mixed && i != 3) CHECK(first[2].at(i) == to_float(to_bf16(static_cast<float>(out.at(i)))), "w is no copy of master");
      }
    }
}

void check_sums() {
  Random r(9);
  for (DType t : {F, H}) {
    for (int64_t n : {0, 1, 31, 33, 65536, 200001}) {
      Buffer x(t, {n}), first;
      x.normal(r);
      double want = 0;
      for (int64_t i = 0; i < n; ++i) want += x.at(i) * x.at(i);
      for (int threads : {1, 2, 3}) {
        Buffer y = scalar(2.5);
        SumSquares a{};
        a.x = x, a.y = y;
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
  check_head();
  check_linear_logprob();
  check_linear_logprob_rows();
  check_adamw();
  check_sums();
  check_gathers();
}

}  // namespace

int main(int, char** argv) { return for_each_level(argv[0], checks); }
