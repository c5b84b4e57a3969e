// The primitives against plain double arithmetic: every mix of dtypes, in place, edge values. Part of the kernels2
// checks.
#include "compare.h"

namespace attune::test {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::i32};
constexpr int64_t kSizes[] = {0, 1, 255, 257, 20000};

double rounded(DType t, double x) {
  if (t == DType::f32) return double(float(x));
  if (t == DType::bf16) return to_float(to_bf16(float(x)));
  return x != x ? 0 : std::trunc(std::min(2147483647.0, std::max(-2147483648.0, x)));
}

void expect(const char* what, const Buffer& y, const std::vector<double>& want) {
  const auto got = values(y);
  CHECK(got.size() == want.size() && worst(got, want, 0) == 0, "%s: worst %g of %zu", what, worst(got, want, 0),
        want.size());
  CHECK(y.guarded(), "%s: guard bytes", what);
}

Buffer some(DType t, int64_t n, uint64_t seed, double size = 3) {
  Random r(seed);
  Buffer b(t, {n});
  b.normal(r, size);
  const double edges[] = {0, 1, -1, NAN, INFINITY, -INFINITY, -100, 100, 2};
  if (t != DType::i32)
    for (int64_t i = 0; i < n && i < 9; ++i) b.set((i * 7) % n, edges[i]);
  return b;
}

template <class Args, class F>
void unary(const char* what, void (*op)(const Args&, Context&), F f) {
  TestContext c(2);
  for (DType x : kTypes)
    for (DType y : kTypes)
      for (int64_t n : kSizes) {
        Buffer in = some(x, n, 1), out(y, {n});
        std::vector<double> want;
        for (int64_t i = 0; i < n; ++i) want.push_back(rounded(y, f(in.at(i))));
        Args a{in, out};
        op(a, c);
        expect(what, out, want);
        if (x == y) {
          Args b{in, in};
          op(b, c);
          CHECK(in.same(out), "%s in place: other bits", what);
        }
      }
}

template <class Args, class F>
void binary(const char* what, void (*op)(const Args&, Context&), F f) {
  TestContext c(2);
  for (DType p : kTypes)
    for (DType q : kTypes)
      for (DType y : kTypes)
        for (int64_t n : kSizes) {
          Buffer a = some(p, n, 1), b = some(q, n, 2), out(y, {n});
          for (int64_t i = 3; i < n; i += 5) b.set(i, a.at(i));  // ties
          std::vector<double> want;
          for (int64_t i = 0; i < n; ++i) want.push_back(rounded(y, f(a.at(i), b.at(i))));
          Args args{a, b, out};
          op(args, c);
          expect(what, out, want);
          if (p == y) {
            Args over{a, b, a};
            op(over, c);
            CHECK(a.same(out), "%s in place: other bits", what);
          }
        }
}

void shapes() {
  TestContext c(2);
  Random r(3);
  const int64_t dims[] = {2, 3, 5, 300};
  for (DType x : kTypes)
    for (DType y : kTypes)
      for (int mask = 0; mask < 16; ++mask) {
        int64_t s[4];
        for (int i = 0; i < 4; ++i) s[i] = mask >> i & 1 ? 1 : dims[i];
        Buffer small(x, {s[0], s[1], s[2], s[3]}), big(y, {2, 3, 5, 300}), full(x, {2, 3, 5, 300}),
            sum(y, {s[0], s[1], s[2], s[3]});
        small.normal(r, 3), full.normal(r, 3);
        std::vector<double> want, sums(size_t(sum.size()), 0), axes;
        for (int64_t i = 0; i < big.size(); ++i) {
          int64_t left = i, at = 0, step = 1;
          for (int k = 3; k >= 0; --k) {
            const int64_t index = left % dims[k];
            left /= dims[k];
            at += s[k] == 1 ? 0 : index * step;
            step *= s[k];
          }
          want.push_back(rounded(y, small.at(at)));
          sums[size_t(at)] += full.at(i);
        }
        for (double& v : sums) v = rounded(y, v);
        for (int k = 0; k < 4; ++k)
          if (mask >> k & 1) axes.push_back(k);
        Broadcast b{small, big};
        RUN(broadcast, b, c);
        expect("broadcast", big, want);
        ReduceSum a{full, sum, {axes.data(), int64_t(axes.size())}};
        RUN(reduce_sum, a, c);
        expect("reduce_sum", sum, sums);
      }
  Buffer scalar(DType::f32, {1}), row(DType::f32, {3}), matrix(DType::f32, {4, 3});
  scalar.set(0, 7);
  scalar.t.rank = 0;
  for (int i = 0; i < 3; ++i) row.set(i, i);
  Broadcast low{row, matrix}, point{scalar, matrix};
  RUN(broadcast, low, c);
  expect("broadcast of a lower rank", matrix, {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2});
  RUN(broadcast, point, c);
  expect("broadcast of a scalar", matrix, std::vector<double>(12, 7));
}

}  // namespace

void primitives() {
  unary<Exp>("exp", cpu::exp, [](double x) { return std::exp(x); });
  unary<Log>("log", cpu::log, [](double x) { return std::log(x); });
  unary<Rsqrt>("rsqrt", cpu::rsqrt, [](double x) { return 1 / std::sqrt(x); });
  unary<LogSigmoid>("log_sigmoid", cpu::log_sigmoid,
                    [](double x) { return (x < 0 ? x : 0.0) - std::log1p(std::exp(-std::fabs(x))); });
  unary<Cast>("cast", cpu::cast, [](double x) { return x; });
  binary<Add>("add", cpu::add, [](double a, double b) { return a + b; });
  binary<Mul>("mul", cpu::mul, [](double a, double b) { return a * b; });
  binary<Div>("div", cpu::div, [](double a, double b) { return a / b; });
  binary<Max>("max", cpu::max, [](double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : a > b ? a : b; });
  binary<Less>("less", cpu::less, [](double a, double b) { return a < b ? 1.0 : 0.0; });
  binary<Equal>("equal", cpu::equal, [](double a, double b) { return a == b ? 1.0 : 0.0; });
  shapes();
  TestContext c(2);
  for (DType t : kTypes) {
    Buffer y(t, {1000}), m = some(t, 1000, 9, 0.7), p = some(t, 1000, 10), q = some(t, 1000, 11);
    Fill f{y, -2.5};
    RUN(fill, f, c);
    expect("fill", y, std::vector<double>(1000, rounded(t, -2.5)));
    Iota i{y};
    RUN(iota, i, c);
    std::vector<double> want;
    for (int n = 0; n < 1000; ++n) want.push_back(rounded(t, n));
    expect("iota", y, want);
    Select s{m, p, q, y};
    RUN(select, s, c);
    want.clear();
    for (int n = 0; n < 1000; ++n) want.push_back(m.at(n) != 0 ? p.at(n) : q.at(n));
    expect("select", y, want);
  }
  Buffer zero(DType::f32, {1}), y(DType::f32, {1});
  zero.set(0, 0);
  LogSigmoid a{zero, y};
  RUN(log_sigmoid, a, c);
  CHECK(y.at(0) == double(float(-std::log(2.0))), "log_sigmoid(0) must be -ln 2");
}

}  // namespace attune::test
