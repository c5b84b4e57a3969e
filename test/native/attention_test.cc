// Attention forward, backward and decode against plain double loops: masks of every kind, head dims, groups, both
// dtypes, sizes across every block boundary, equal bits for any number of threads, guard bytes. Build: g++ -std=c++20
// -O2 -pthread test/native/attention_test.cc native/cpu/*.cc native/cpu/common/*.cc
#include <functional>

#include "compare.h"

namespace attune::test {
namespace {

enum class Mask { causal, packed, tree, hidden, none };
constexpr const char* kMaskNames[] = {"causal", "packed", "tree", "hidden", "none"};

struct Case {
  int64_t n, H, K, D;
  Mask mask;
  DType dtype = DType::f32;
  int64_t window = 0;
  double size = 1;  // of q and k
  std::string name() const {
    return "n=" + std::to_string(n) + " heads=" + std::to_string(H) + "/" + std::to_string(K) +
           " d=" + std::to_string(D) + " " + kMaskNames[int(mask)] +
           (window ? " window=" + std::to_string(window) : "") + (dtype == DType::bf16 ? " bf16" : " f32");
  }
};

// end and pos of a random layout. A tree is nested: [prompt | branch | branch ...], branches may have branches.
void lay_out(const Case& t, Random& r, Buffer& end, Buffer& pos) {
  const int64_t n = t.n;
  std::vector<int64_t> e(size_t(n), n), p(size_t(n), 0);
  std::function<void(int64_t, int64_t, int64_t, int)> tree = [&](int64_t from, int64_t to, int64_t at, int depth) {
    if (from >= to) return;
    const int64_t own = depth >= 3 ? to - from : 1 + r.below(std::max<int64_t>(1, (to - from) / 2));
    for (int64_t i = from; i < from + own; ++i) e[size_t(i)] = to, p[size_t(i)] = at + i - from;
    for (int64_t b = from + own; b < to;) {
      const int64_t length = std::min(to - b, 1 + r.below(std::max<int64_t>(1, (to - from) / 2)));
      tree(b, b + length, at + own, depth + 1);
      b += length;
    }
  };
  for (int64_t from = 0; from < n;) {
    const int64_t length = t.mask == Mask::causal ? n : std::min(n - from, 1 + r.below(90));
    if (t.mask == Mask::tree)
      tree(from, from + length, 0, 0);
    else
      for (int64_t i = from; i < from + length; ++i) e[size_t(i)] = from + length, p[size_t(i)] = i - from;
    from += length;
  }
  for (int64_t i = 0; i < n; ++i) {
    if (t.mask == Mask::none || (t.mask == Mask::hidden && r.below(3) == 0)) e[size_t(i)] = r.below(2) ? 0 : -1;
    end.set(i, double(e[size_t(i)]));
    pos.set(i, double(p[size_t(i)]));
  }
}

struct Reference {
  std::vector<double> y, lse, dq, dk, dv;
};

Reference reference(const Case& t, double scale, const Buffer& q, const Buffer& k, const Buffer& v, const Buffer& end,
                    const Buffer& pos, const Buffer& dy) {
  const int64_t n = t.n, H = t.H, K = t.K, D = t.D, G = H / K;
  Reference o;
  o.y.assign(size_t(n * H * D), 0);
  o.dq = o.y;
  o.dk.assign(size_t(n * K * D), 0);
  o.dv = o.dk;
  o.lse.assign(size_t(H * n), INFINITY);
  const auto Q = values(q), Kv = values(k), V = values(v), DY = values(dy);
  for (int64_t h = 0; h < H; ++h)
    for (int64_t i = 0; i < n; ++i) {
      std::vector<int64_t> seen;
      for (int64_t j = 0; j <= i; ++j)
        if (i < end.at(j) && (!t.window || pos.at(i) - pos.at(j) < double(t.window))) seen.push_back(j);
      if (seen.empty()) continue;
      std::vector<double> s;
      double top = -INFINITY, sum = 0, delta = 0;
      for (int64_t j : seen) {
        double x = 0;
        for (int64_t d = 0; d < D; ++d) x += Q[size_t((i * H + h) * D + d)] * Kv[size_t((j * K + h / G) * D + d)];
        s.push_back(x * scale);
        top = std::max(top, s.back());
      }
      for (double& x : s) sum += x = std::exp(x - top);
      o.lse[size_t(h * n + i)] = top + std::log(sum);
      std::vector<double> dp;
      for (size_t m = 0; m < seen.size(); ++m) {
        const double p = s[m] / sum;
        double g = 0;
        for (int64_t d = 0; d < D; ++d) {
          const double value = V[size_t((seen[m] * K + h / G) * D + d)], dout = DY[size_t((i * H + h) * D + d)];
          o.y[size_t((i * H + h) * D + d)] += p * value;
          o.dv[size_t((seen[m] * K + h / G) * D + d)] += p * dout;
          g += value * dout;
        }
        dp.push_back(g);
        delta += p * g;
      }
      for (size_t m = 0; m < seen.size(); ++m) {
        const double ds = s[m] / sum * (dp[m] - delta) * scale;
        for (int64_t d = 0; d < D; ++d) {
          o.dq[size_t((i * H + h) * D + d)] += ds * Kv[size_t((seen[m] * K + h / G) * D + d)];
          o.dk[size_t((seen[m] * K + h / G) * D + d)] += ds * Q[size_t((i * H + h) * D + d)];
        }
      }
    }
  return o;
}

struct Outputs {
  Buffer y, lse, dq, dk, dv;
};

Outputs run(const Case& t, double scale, const Buffer& q, const Buffer& k, const Buffer& v, const Buffer& end,
            const Buffer& pos, const Buffer& dy, int threads) {
  Outputs o{Buffer(t.dtype, {t.n, t.H, t.D}), Buffer(DType::f32, {t.H, t.n}), Buffer(t.dtype, {t.n, t.H, t.D}),
            Buffer(t.dtype, {t.n, t.K, t.D}), Buffer(t.dtype, {t.n, t.K, t.D})};
  Attention a{};
  a.q = q, a.k = k, a.v = v, a.end = end, a.y = o.y, a.lse = o.lse, a.scale = scale, a.window = double(t.window);
  if (t.window) a.pos = pos;
  TestContext c(threads);
  RUN(attention, a, c);
  AttentionBackward b{};
  b.q = q, b.k = k, b.v = v, b.end = end, b.y = o.y, b.lse = o.lse, b.dy = dy, b.dq = o.dq, b.dk = o.dk, b.dv = o.dv;
  b.scale = scale, b.window = double(t.window), b.pos = a.pos;
  RUN(attention_backward, b, c);
  for (const Buffer* x : {&o.y, &o.lse, &o.dq, &o.dk, &o.dv}) check(x->guarded(), t.name() + ": guard bytes");
  return o;
}

void attention_case(const Case& t, uint64_t seed) {
  Random r(seed);
  Buffer q(t.dtype, {t.n, t.H, t.D}), k(t.dtype, {t.n, t.K, t.D}), v(t.dtype, {t.n, t.K, t.D}),
      dy(t.dtype, {t.n, t.H, t.D});
  Buffer end(DType::i32, {t.n}), pos(DType::i32, {t.n});
  q.normal(r, t.size), k.normal(r, t.size), v.normal(r), dy.normal(r);
  lay_out(t, r, end, pos);
  const double scale = 1 / std::sqrt(double(t.D));
  const Outputs o = run(t, scale, q, k, v, end, pos, dy, 1);
  const Reference want = reference(t, scale, q, k, v, end, pos, dy);
  const bool half = t.dtype == DType::bf16;
  close(t.name() + " y", o.y, want.y, half ? 5e-3 : 3e-6, half ? 8e-3 : 5e-6);
  std::vector<double> lse = values(o.lse), seen, expect;
  for (size_t i = 0; i < lse.size(); ++i) {
    if (std::isinf(want.lse[i])) {
      check(lse[i] == want.lse[i], t.name() + ": lse of a query that sees nothing must be +inf");
    } else {
      seen.push_back(lse[i]), expect.push_back(want.lse[i]);
    }
  }
  check(worst(seen, expect, 1) < 3e-6,
        t.name() + " lse: worst " + std::to_string(worst(seen, expect, 1) * 1e6) + "e-6");
  close(t.name() + " dq", o.dq, want.dq, half ? 1.2e-2 : 5e-6, half ? 1.5e-2 : 1e-5, 1);
  close(t.name() + " dk", o.dk, want.dk, half ? 1.2e-2 : 5e-6, half ? 1.5e-2 : 1e-5, 1);
  close(t.name() + " dv", o.dv, want.dv, half ? 8e-3 : 5e-6, half ? 1e-2 : 1e-5);
  for (int threads : {2, 3}) {
    const Outputs p = run(t, scale, q, k, v, end, pos, dy, threads);
    const bool same = p.y.same(o.y) && p.lse.same(o.lse) && p.dq.same(o.dq) && p.dk.same(o.dk) && p.dv.same(o.dv);
    check(same, t.name() + ": other bits with " + std::to_string(threads) + " threads");
  }
}

// Branches and windows that end at every place around the edges of blocks and panels.
void every_edge() {
  for (int64_t edge = 60; edge < 190; ++edge)
    for (int64_t window : {int64_t{0}, edge - 59}) {
      const Case t{190, 1, 1, 8, Mask::causal, DType::f32, window};
      Random r(9);
      Buffer q(t.dtype, {t.n, 1, 8}), k(t.dtype, {t.n, 1, 8}), v(t.dtype, {t.n, 1, 8}), dy(t.dtype, {t.n, 1, 8});
      Buffer end(DType::i32, {t.n}), pos(DType::i32, {t.n});
      q.normal(r), k.normal(r), v.normal(r), dy.normal(r);
      for (int64_t i = 0; i < t.n; ++i)
        end.set(i, double(!window && i > 0 && i < 60 ? edge : t.n)), pos.set(i, double(i));
      const Outputs o = run(t, 0.3, q, k, v, end, pos, dy, 1);
      const Reference want = reference(t, 0.3, q, k, v, end, pos, dy);
      const std::string name = t.name() + " edge " + std::to_string(edge);
      close(name + " y", o.y, want.y, 3e-6, 5e-6);
      close(name + " dq", o.dq, want.dq, 5e-6, 1e-5, 1);
      close(name + " dk", o.dk, want.dk, 5e-6, 1e-5, 1);
      close(name + " dv", o.dv, want.dv, 5e-6, 1e-5);
    }
}

// bf16 gradients that many chunks add to are rounded as if once. With q = 0 every visible key weighs the same, so that
// dv and dq have sums that need no pairs: dv[j] = sum_i dy[i] / (i + 1), dq[i] = scale sum_j (dy[i] . (v[j] - y[i]))
// k[j] / (i + 1).
void one_rounding() {
  const int64_t n = 4000, D = 8;
  const Case t{n, 1, 1, D, Mask::causal, DType::bf16};
  Random r(21);
  Buffer q(t.dtype, {n, 1, D}), k(t.dtype, {n, 1, D}), v(t.dtype, {n, 1, D}), dy(t.dtype, {n, 1, D});
  Buffer end(DType::i32, {n}), pos(DType::i32, {n});
  q.fill(0), k.normal(r), v.normal(r), dy.normal(r), end.fill(double(n));
  for (Buffer* b : {&k, &v, &dy})
    for (int64_t i = 0; i < n * D; ++i) b->set(i, b->at(i) + 1);  // sums that grow
  const Outputs o = run(t, 1, q, k, v, end, pos, dy, 1);
  std::vector<double> dv(size_t(n * D), 0), dq(size_t(n * D), 0), sum(size_t(D), 0), outer(size_t(D * D), 0),
      keys(size_t(D), 0);
  for (int64_t i = n - 1; i >= 0; --i)
    for (int64_t d = 0; d < D; ++d) dv[size_t(i * D + d)] = sum[size_t(d)] += dy.at(i * D + d) / double(i + 1);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t e = 0; e < D; ++e) {
      keys[size_t(e)] += k.at(i * D + e);
      for (int64_t d = 0; d < D; ++d) {
        double& m = outer[size_t(d * D + e)];
        m += v.at(i * D + d) * k.at(i * D + e);
        dq[size_t(i * D + e)] += dy.at(i * D + d) * (m - o.y.at(i * D + d) * keys[size_t(e)]) / double(i + 1);
      }
    }
  close("bf16 dv of many chunks", o.dv, dv, 2e-3, 3e-3);
  close("bf16 dq of many chunks", o.dq, dq, 3e-3, 3e-3);
}

void unwanted_outputs() {
  const Case t{70, 4, 2, 16, Mask::packed};
  Random r(5);
  Buffer q(t.dtype, {t.n, t.H, t.D}), k(t.dtype, {t.n, t.K, t.D}), v(t.dtype, {t.n, t.K, t.D}),
      dy(t.dtype, {t.n, t.H, t.D});
  Buffer end(DType::i32, {t.n}), pos(DType::i32, {t.n}), y(t.dtype, {t.n, t.H, t.D});
  q.normal(r), k.normal(r), v.normal(r), dy.normal(r);
  lay_out(t, r, end, pos);
  const Outputs all = run(t, 0.25, q, k, v, end, pos, dy, 1);
  Attention a{};
  a.q = q, a.k = k, a.v = v, a.end = end, a.y = y, a.scale = 0.25;
  TestContext c(2);
  RUN(attention, a, c);
  check(y.same(all.y), "attention without lse: other bits");
  for (int want = 0; want < 3; ++want) {
    Buffer dx(t.dtype, {t.n, want == 0 ? t.H : t.K, t.D});
    AttentionBackward b{};
    b.q = q, b.k = k, b.v = v, b.end = end, b.y = all.y, b.lse = all.lse, b.dy = dy, b.scale = 0.25;
    (want == 0 ? b.dq : want == 1 ? b.dk : b.dv) = dx.t;
    RUN(attention_backward, b, c);
    check(dx.same(want == 0 ? all.dq : want == 1 ? all.dk : all.dv), "attention_backward with one output: other bits");
  }
}

// What is planned for a capacity must do for any count up to it, and a row of 16,384 tokens must fit in 64 MiB.
void scratch_sizes() {
  auto bytes = [](int64_t n, int64_t H, int64_t K, int64_t D, DType type, double window, bool backward) {
    const Tensor q{&n, type, 3, {n, H, D}}, k{&n, type, 3, {n, K, D}}, end{&n, DType::i32, 1, {n}},
        lse{&n, DType::f32, 2, {H, n}};
    if (!backward) return cpu::attention_scratch({q, k, k, end, end, q, lse, 1, window});
    return cpu::attention_backward_scratch({q, k, k, end, q, lse, q, end, q, k, k, 1, window});
  };
  const int64_t shapes[][3] = {{6, 2, 64},   {9, 3, 64},   {14, 2, 64},  {12, 2, 128},
                               {32, 8, 128}, {28, 4, 128}, {16, 8, 128}, {32, 4, 64}};
  for (const auto& s : shapes)
    for (DType type : {DType::f32, DType::bf16})
      for (bool backward : {false, true}) {
        const int64_t most = bytes(16384, s[0], s[1], s[2], type, 4096, backward);
        CHECK(most < 64 << 20, "heads %ld/%ld d %ld: scratch of 16,384 tokens is %.1f MiB", long(s[0]), long(s[1]),
              long(s[2]), double(most) / 1048576);
        for (int64_t n : {0, 1, 31, 320, 321, 1000, 4096, 8191, 12000, 16383})
          CHECK(bytes(n, s[0], s[1], s[2], type, 4096, backward) <= most, "scratch of %ld tokens is more than of 16384",
                long(n));
      }
}

// A document's values must not depend on its neighbours beyond rounding, nor on a poisoned key that nobody sees.
void alone_and_beside() {
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Case t{61, 4, 2, 24, Mask::causal, dtype};
    Random r(11);
    Buffer q(dtype, {t.n, t.H, t.D}), k(dtype, {t.n, t.K, t.D}), v(dtype, {t.n, t.K, t.D}), dy(dtype, {t.n, t.H, t.D}),
        end(DType::i32, {t.n}), pos(DType::i32, {t.n});
    q.normal(r), k.normal(r), v.normal(r), dy.normal(r);
    lay_out(t, r, end, pos);
    const Outputs alone = run(t, 0.2, q, k, v, end, pos, dy, 1);
    Case p = t;
    const int64_t before = 37, after = 50;
    p.n += before + after;
    Buffer q2(dtype, {p.n, t.H, t.D}), k2(dtype, {p.n, t.K, t.D}), v2(dtype, {p.n, t.K, t.D}),
        dy2(dtype, {p.n, t.H, t.D}), end2(DType::i32, {p.n}), pos2(DType::i32, {p.n});
    q2.normal(r), k2.normal(r), v2.normal(r), dy2.normal(r);
    for (int64_t i = 0; i < p.n; ++i) end2.set(i, double(i < before ? before : i < before + t.n ? before + t.n : 0));
    auto put = [&](const Buffer& from, Buffer& to) {
      const int64_t row = from.size() / t.n;
      for (int64_t i = 0; i < from.size(); ++i) to.set(before * row + i, from.at(i));
    };
    put(q, q2), put(k, k2), put(v, v2), put(dy, dy2);
    for (int64_t i = 0; i < t.K * t.D; ++i)
      k2.set((p.n - after) * t.K * t.D + i, NAN), v2.set((p.n - after) * t.K * t.D + i, NAN);
    const Outputs beside = run(p, 0.2, q2, k2, v2, end2, pos2, dy2, 2);
    auto same = [&](const Buffer& a, const Buffer& b, const char* what) {
      const int64_t row = a.size() / t.n;
      std::vector<double> x, y = values(a);
      for (int64_t i = 0; i < a.size(); ++i) x.push_back(b.at(before * row + i));
      check(relative(x, y) < (dtype == DType::bf16 ? 6e-3 : 1e-6),
            std::string("packed = alone: ") + what + " " + std::to_string(relative(x, y)));
    };
    same(alone.y, beside.y, "y"), same(alone.dq, beside.dq, "dq"), same(alone.dk, beside.dk, "dk"),
        same(alone.dv, beside.dv, "dv");
  }
}

// NaN in a key reaches exactly the queries that see it, in the rows of that document.
void poison() {
  const int64_t n = 40, D = 16;
  for (double bad : {double(NAN), double(INFINITY)}) {
    Random r(3);
    Buffer q(DType::f32, {n, 1, D}), k(DType::f32, {n, 1, D}), v(DType::f32, {n, 1, D}), end(DType::i32, {n}),
        y(DType::f32, {n, 1, D}), lse(DType::f32, {1, n});
    q.normal(r), k.normal(r), v.normal(r);
    for (int64_t i = 0; i < n; ++i) end.set(i, double(n));
    v.set(10 * D + 3, bad);
    Attention a{};
    a.q = q, a.k = k, a.v = v, a.end = end, a.y = y, a.lse = lse, a.scale = 0.25;
    TestContext c(1);
    RUN(attention, a, c);
    for (int64_t i = 10; i < n; ++i)
      check(!std::isfinite(y.at(i * D + 3)), "attention: a poisoned value must reach the queries that see it");
    k.set(10 * D + 3, bad);
    RUN(attention, a, c);
    for (int64_t i = 10; i < n; ++i)
      check(!std::isfinite(y.at(i * D + 3)), "attention: a poisoned key must reach the queries that see it");
  }
}

void decode_case(int64_t S, int64_t L, int64_t H, int64_t K, int64_t D, int64_t window, DType dtype) {
  Random r(uint64_t(S * 1000 + L + D));
  Buffer q(dtype, {S, H, D}), k(dtype, {S, L, K, D}), v(dtype, {S, L, K, D}), len(DType::i32, {S}), y(dtype, {S, H, D}),
      y3(dtype, {S, H, D});
  q.normal(r), k.normal(r), v.normal(r);
  for (int64_t s = 0; s < S; ++s) len.set(s, double(s == 0 ? L : s == 1 ? 0 : s == 2 ? -1 : 1 + r.below(L)));
  AttentionDecode a{};
  a.q = q, a.k = k, a.v = v, a.len = len, a.y = y, a.scale = 1 / std::sqrt(double(D)), a.window = double(window);
  TestContext c(1), c3(3);
  RUN(attention_decode, a, c);
  a.y = y3;
  RUN(attention_decode, a, c3);
  const std::string name = "decode S=" + std::to_string(S) + " L=" + std::to_string(L) + " heads=" + std::to_string(H) +
                           "/" + std::to_string(K) + " d=" + std::to_string(D) + " window=" + std::to_string(window) +
                           (dtype == DType::bf16 ? " bf16" : "");
  check(y.same(y3), name + ": other bits with 3 threads");
  check(y.guarded() && y3.guarded(), name + ": guard bytes");
  std::vector<double> want;
  for (int64_t s = 0; s < S; ++s)
    for (int64_t h = 0; h < H; ++h) {
      const int64_t to = int64_t(len.at(s)), from = window ? std::max<int64_t>(0, to - window) : 0, kv = h / (H / K);
      std::vector<double> p, out(size_t(D), 0);
      double top = -INFINITY, sum = 0;
      for (int64_t j = from; j < to; ++j) {
        double x = 0;
        for (int64_t d = 0; d < D; ++d) x += q.at((s * H + h) * D + d) * k.at(((s * L + j) * K + kv) * D + d);
        p.push_back(x * a.scale), top = std::max(top, p.back());
      }
      for (double& x : p) sum += x = std::exp(x - top);
      for (int64_t j = from; j < to; ++j)
        for (int64_t d = 0; d < D; ++d)
          out[size_t(d)] += p[size_t(j - from)] / sum * v.at(((s * L + j) * K + kv) * D + d);
      want.insert(want.end(), out.begin(), out.end());
    }
  close(name, y, want, dtype == DType::bf16 ? 4e-3 : 2e-6, dtype == DType::bf16 ? 5e-3 : 5e-6);
}

void checks() {
  uint64_t seed = 1;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int64_t n : {0, 1, 2, 13, 14, 15, 31, 32, 33, 55, 56, 57, 63, 64, 65, 111, 113, 127, 129, 200})
      for (Mask m : {Mask::causal, Mask::tree}) attention_case({n, 2, 1, 16, m, dtype}, seed++);
    for (int64_t d : {8, 16, 24, 40, 64, 80, 96, 128, 136, 256})
      for (Mask m : {Mask::causal, Mask::packed, Mask::tree, Mask::hidden, Mask::none})
        attention_case({131, 3, 1, d, m, dtype}, seed++);
    for (int64_t g = 1; g <= 8; ++g) attention_case({90, 2 * g, 2, 32, Mask::tree, dtype}, seed++);
    for (int64_t w : {1, 2, 17, 32, 100})
      for (Mask m : {Mask::causal, Mask::packed, Mask::tree, Mask::hidden})
        attention_case({230, 4, 2, 24, m, dtype, w}, seed++);
    for (Mask m : {Mask::causal, Mask::packed, Mask::tree, Mask::hidden})
      attention_case({700, 2, 1, 64, m, dtype}, seed++);
    attention_case({1500, 1, 1, 16, Mask::causal, dtype}, seed++);
    attention_case({1500, 1, 1, 16, Mask::causal, dtype, 300}, seed++);
    attention_case({150, 2, 1, 64, Mask::tree, dtype, 0, 5}, seed++);  // scores far apart
    for (int64_t d : {8, 24, 64, 80, 128, 256}) decode_case(5, 100, 6, 2, d, 0, dtype);
    for (int64_t w : {1, 7, 40, 1000}) decode_case(6, 77, 4, 4, 16, w, dtype);
    decode_case(3, 1, 2, 1, 8, 0, dtype);
    decode_case(4, 1300, 8, 1, 64, 0, dtype);
  }
  every_edge();
  one_rounding();
  scratch_sizes();
  unwanted_outputs();
  alone_and_beside();
  poison();
}

}  // namespace
}  // namespace attune::test

int main(int, char** argv) { return attune::test::for_each_level(argv[0], attune::test::checks); }
