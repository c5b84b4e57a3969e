// Norms, rope, SwiGLU, segments, DPO loss, cache writes and primitives against plain double loops: odd sizes, both
// dtypes, every permitted in-place use, unwanted outputs, NaN, equal bits for any number of threads, guard bytes.
// Build: g++ -std=c++20 -O2 -pthread test/native/kernels2_test.cc native/cpu/*.cc native/cpu/common/*.cc
#include "compare.h"

namespace attune::test {
namespace {

constexpr DType f32 = DType::f32, half = DType::bf16, i32 = DType::i32;
const char* name(DType t) { return t == f32 ? "f32" : t == half ? "bf16" : "i32"; }
// Bounds on the relative norm and the worst element, for a value rounded once to dtype.
double norm_of(DType t) { return t == half ? 3e-3 : 1e-6; }
double each_of(DType t) { return t == half ? 4e-3 : 3e-6; }
std::string sizes(std::initializer_list<int64_t> v) {
  std::string s;
  for (int64_t x : v) s.append(s.empty() ? "(" : ",").append(std::to_string(x));
  return s.append(")");
}

void rms_norm_case(int64_t n, int64_t width, DType x_type, DType w_type, DType dw_type) {
  const std::string what =
      "rms_norm " + sizes({n, width}) + " " + name(x_type) + " w " + name(w_type) + " dw " + name(dw_type);
  Random r(uint64_t(n * 131 + width));
  Buffer x(x_type, {n, width}), w(w_type, {width}), dy(x_type, {n, width}), onto_dx(x_type, {n, width}),
      onto_dw(dw_type, {width});
  x.normal(r, 2), w.normal(r), dy.normal(r), onto_dx.normal(r), onto_dw.normal(r);
  const double eps = 1e-5;
  std::vector<double> y, rstd, dx, dw(size_t(width), 0), dx_onto, dw_onto;
  for (int64_t i = 0; i < n; ++i) {
    double ss = 0, dot = 0;
    for (int64_t j = 0; j < width; ++j) ss += x.at(i * width + j) * x.at(i * width + j);
    const double s = 1 / std::sqrt(ss / double(width) + eps);
    rstd.push_back(s);
    for (int64_t j = 0; j < width; ++j) {
      y.push_back(w.at(j) * x.at(i * width + j) * s);
      dot += w.at(j) * dy.at(i * width + j) * x.at(i * width + j);
      dw[size_t(j)] += dy.at(i * width + j) * x.at(i * width + j) * s;
    }
    for (int64_t j = 0; j < width; ++j)
      dx.push_back(s * (w.at(j) * dy.at(i * width + j) - x.at(i * width + j) * s * s * dot / double(width)));
  }
  for (size_t i = 0; i < dx.size(); ++i) dx_onto.push_back(dx[i] + onto_dx.at(int64_t(i)));
  for (size_t j = 0; j < dw.size(); ++j) dw_onto.push_back(dw[j] + onto_dw.at(int64_t(j)));

  Buffer first[5];
  for (int threads : {1, 2, 3}) {
    TestContext c(threads);
    Buffer got_y(x_type, {n, width}), got_rstd(f32, {n}), got_dx(x_type, {n, width}), got_dw(dw_type, {width});
    RmsNorm a{x, w, got_y, got_rstd, eps};
    RUN(rms_norm, a, c);
    close(what + " y", got_y, y, norm_of(x_type), each_of(x_type));
    close(what + " rstd", got_rstd, rstd, 3e-7, 1e-6);
    RmsNormBackward b{x, w, got_rstd, dy, {}, {}, got_dx, got_dw, eps};
    RUN(rms_norm_backward, b, c);
    close(what + " dx", got_dx, dx, norm_of(x_type), each_of(x_type));
    close(what + " dw", got_dw, dw, norm_of(dw_type), each_of(dw_type));
    CHECK(got_y.guarded() && got_rstd.guarded() && got_dx.guarded() && got_dw.guarded(), "%s guard bytes",
          what.c_str());
    Buffer over = onto_dx, over_dw = onto_dw, over_dy = dy;  // dx over onto_dx, dw over onto_dw; then dx over dy
    RmsNormBackward d{x, w, got_rstd, dy, over, over_dw, over, over_dw, eps};
    RUN(rms_norm_backward, d, c);
    close(what + " dx in place", over, dx_onto, norm_of(x_type), each_of(x_type));
    close(what + " dw in place", over_dw, dw_onto, norm_of(dw_type), each_of(dw_type));
    RmsNormBackward e{x, w, got_rstd, over_dy, onto_dx, {}, over_dy, {}, eps};
    RUN(rms_norm_backward, e, c);
    CHECK(over_dy.same(over), "%s dx over dy: other bits", what.c_str());
    Buffer only_dw(dw_type, {width});
    RmsNormBackward g{x, w, got_rstd, dy, {}, {}, {}, only_dw, eps};
    RUN(rms_norm_backward, g, c);
    CHECK(only_dw.same(got_dw), "%s dw alone: other bits", what.c_str());
    const Buffer now[5] = {got_y, got_dx, got_dw, over, over_dw};
    for (int i = 0; i < 5; ++i) {
      if (threads == 1) first[i] = now[i];
      CHECK(first[i].same(now[i]), "%s output %d: other bits with %d threads", what.c_str(), i, threads);
    }
  }
}

void qkv_rope_case(int64_t n, int64_t H, int64_t K, int64_t D, bool q_norm, bool k_norm, DType type, DType norm_type,
                   DType grad_type) {
  const std::string what =
      "qkv_rope " + sizes({n, H, K, D}) + " " + name(type) + " norms " + (q_norm ? "q" : "") + (k_norm ? "k" : "");
  Random r(uint64_t(n * 31 + D + H));
  const int64_t all = H + 2 * K, hd = D / 2;
  Buffer qkv(type, {n, all * D}), cosines(f32, {n, hd}), sines(f32, {n, hd}), qw(norm_type, {D}), kw(norm_type, {D});
  Buffer dq(type, {n, H, D}), dk(type, {n, K, D}), dv(type, {n, K, D}), onto_q(grad_type, {D}), onto_k(grad_type, {D});
  qkv.normal(r, 2), qw.normal(r), kw.normal(r), dq.normal(r), dk.normal(r), dv.normal(r), onto_q.normal(r),
      onto_k.normal(r);
  for (int64_t i = 0; i < n * hd; ++i) {
    const double angle = r.uniform() * 100;
    cosines.set(i, std::cos(angle)), sines.set(i, std::sin(angle));
  }
  const double eps = 1e-6;
  std::vector<double> out[3], rstd, dqkv(size_t(n * all * D), 0), dnorm[2];
  dnorm[0].assign(size_t(D), 0), dnorm[1].assign(size_t(D), 0);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t h = 0; h < all; ++h) {
      const int64_t at = (i * all + h) * D, which = h < H ? 0 : h < H + K ? 1 : 2;
      std::vector<double> x(size_t(D), 0), g(size_t(D), 0);
      for (int64_t d = 0; d < D; ++d) x[size_t(d)] = qkv.at(at + d);
      if (which == 2) {
        for (int64_t d = 0; d < D; ++d)
          out[2].push_back(x[size_t(d)]), dqkv[size_t(at + d)] = dv.at((i * K + h - H - K) * D + d);
        continue;
      }
      const bool norm = which == 0 ? q_norm : k_norm;
      const Buffer& w = which == 0 ? qw : kw;
      double ss = 0;
      for (double v : x) ss += v * v;
      const double s = norm ? 1 / std::sqrt(ss / double(D) + eps) : 1;
      rstd.push_back(s);
      auto z = [&](int64_t d) { return x[size_t(d)] * s * (norm ? w.at(d) : 1.0); };
      for (int64_t d = 0; d < hd; ++d)
        out[which].push_back(z(d) * cosines.at(i * hd + d) - z(hd + d) * sines.at(i * hd + d));
      for (int64_t d = 0; d < hd; ++d)
        out[which].push_back(z(hd + d) * cosines.at(i * hd + d) + z(d) * sines.at(i * hd + d));
      const Buffer& up = which == 0 ? dq : dk;
      const int64_t from = which == 0 ? (i * H + h) * D : (i * K + h - H) * D;
      double dot = 0;
      for (int64_t d = 0; d < hd; ++d) {
        const double p = up.at(from + d), q = up.at(from + hd + d), co = cosines.at(i * hd + d),
                     si = sines.at(i * hd + d);
        g[size_t(d)] = p * co + q * si, g[size_t(hd + d)] = q * co - p * si;
      }
      if (norm)
        for (int64_t d = 0; d < D; ++d) {
          dnorm[which][size_t(d)] += g[size_t(d)] * x[size_t(d)] * s;
          g[size_t(d)] *= w.at(d);
          dot += g[size_t(d)] * x[size_t(d)];
        }
      for (int64_t d = 0; d < D; ++d)
        dqkv[size_t(at + d)] = s * (g[size_t(d)] - (norm ? x[size_t(d)] * s * s * dot / double(D) : 0));
    }
  const bool norms = q_norm || k_norm;
  Buffer first[6];
  for (int threads : {1, 2, 3}) {
    TestContext c(threads);
    Buffer q(type, {n, H, D}), k(type, {n, K, D}), v(type, {n, K, D}), s(f32, {n, H + K}), dx(type, {n, all * D}),
        gq(grad_type, {D}), gk(grad_type, {D});
    QkvRope a{};
    a.qkv = qkv, a.cos = cosines, a.sin = sines, a.q = q, a.k = k, a.v = v, a.eps = eps;
    if (q_norm) a.q_norm = qw;
    if (k_norm) a.k_norm = kw;
    if (norms) a.rstd = s;
    RUN(qkv_rope, a, c);
    close(what + " q", q, out[0], norm_of(type), each_of(type));
    close(what + " k", k, out[1], norm_of(type), each_of(type));
    close(what + " v", v, out[2], 0, 0);
    if (q_norm && k_norm) close(what + " rstd", s, rstd, 3e-7, 1e-6);
    QkvRopeBackward b{};
    b.cos = cosines, b.sin = sines, b.dq = dq, b.dk = dk, b.dv = dv, b.dqkv = dx, b.eps = eps;
    if (norms) b.qkv = qkv, b.rstd = s;
    if (q_norm) b.q_norm = qw, b.dq_norm = gq;
    if (k_norm) b.k_norm = kw, b.dk_norm = gk;
    RUN(qkv_rope_backward, b, c);
    close(what + " dqkv", dx, dqkv, norm_of(type), each_of(type));
    if (q_norm) close(what + " dq_norm", gq, dnorm[0], norm_of(grad_type), each_of(grad_type));
    if (k_norm) close(what + " dk_norm", gk, dnorm[1], norm_of(grad_type), each_of(grad_type));
    Buffer in_q = onto_q, in_k = onto_k;
    if (norms) {
      if (q_norm) b.onto_dq_norm = in_q, b.dq_norm = in_q;
      if (k_norm) b.onto_dk_norm = in_k, b.dk_norm = in_k;
      RUN(qkv_rope_backward, b, c);
      std::vector<double> want_q = dnorm[0], want_k = dnorm[1];
      for (int64_t d = 0; d < D; ++d) want_q[size_t(d)] += onto_q.at(d), want_k[size_t(d)] += onto_k.at(d);
      if (q_norm) close(what + " dq_norm in place", in_q, want_q, norm_of(grad_type), each_of(grad_type));
      if (k_norm) close(what + " dk_norm in place", in_k, want_k, norm_of(grad_type), each_of(grad_type));
    }
    for (const Buffer* o : {&q, &k, &v, &s, &dx, &gq, &gk}) CHECK(o->guarded(), "%s guard bytes", what.c_str());
    const Buffer now[6] = {q, k, v, dx, gq, gk};
    for (int i = 0; i < 6; ++i) {
      if (threads == 1) first[i] = now[i];
      CHECK(first[i].same(now[i]), "%s output %d: other bits with %d threads", what.c_str(), i, threads);
    }
  }
}

void swiglu_case(int64_t n, int64_t f, DType type) {
  const std::string what = "swiglu " + sizes({n, f}) + " " + name(type);
  Random r(uint64_t(n + f));
  Buffer x(type, {n, 2 * f}), dy(type, {n, f}), y(type, {n, f}), dx(type, {n, 2 * f});
  x.normal(r, 4), dy.normal(r);
  if (x.size() > 8) x.set(0, -200), x.set(1, 200), x.set(2, 0);
  std::vector<double> want, dwant(size_t(n * 2 * f), 0);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < f; ++j) {
      const double gate = x.at(i * 2 * f + j), up = x.at(i * 2 * f + f + j), s = 1 / (1 + std::exp(-gate)),
                   d = dy.at(i * f + j);
      want.push_back(gate * s * up);
      dwant[size_t(i * 2 * f + j)] = d * up * s * (1 + gate * (1 - s));
      dwant[size_t(i * 2 * f + f + j)] = d * gate * s;
    }
  TestContext c(2), c1(1);
  Swiglu a{x, y};
  RUN(swiglu, a, c);
  close(what, y, want, norm_of(type), each_of(type));
  SwigluBackward b{x, dy, dx};
  RUN(swiglu_backward, b, c);
  close(what + " dx", dx, dwant, norm_of(type), each_of(type));
  Buffer over = x;
  SwigluBackward d{over, dy, over};
  RUN(swiglu_backward, d, c1);
  CHECK(over.same(dx), "%s dx over x, one thread: other bits", what.c_str());
  CHECK(y.guarded() && dx.guarded() && over.guarded(), "%s guard bytes", what.c_str());
}

void rope_table_case(int64_t n, int64_t hd) {
  Random r{uint64_t(n)};
  Buffer pos(i32, {n}), cosines(f32, {n, hd}), sines(f32, {n, hd});
  std::vector<double> freq, co, si;
  for (int64_t d = 0; d < hd; ++d) freq.push_back(std::pow(500000.0, -double(d) / double(hd)));
  for (int64_t i = 0; i < n; ++i) pos.set(i, double(i % 5 == 4 ? r.below(1000000) : i));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t d = 0; d < hd; ++d)
      co.push_back(double(float(std::cos(pos.at(i) * freq[size_t(d)])))),
          si.push_back(double(float(std::sin(pos.at(i) * freq[size_t(d)]))));
  TestContext c(2);
  RopeTable a{pos, cosines, sines, {freq.data(), hd}};
  RUN(rope_table, a, c);
  close("rope_table cos", cosines, co, 1e-7, 1e-7);
  close("rope_table sin", sines, si, 1e-7, 1e-7);
  CHECK(cosines.guarded() && sines.guarded(), "rope_table guard bytes");
}

void segments(int64_t m, int64_t p) {
  Random r{uint64_t(m)};
  Buffer x(f32, {m}), seg(i32, {m}), y(f32, {p}), back(f32, {m});
  x.normal(r);
  for (int64_t i = 0; i < m; ++i) seg.set(i, double(r.below(p + 4) - 2));
  std::vector<double> want(size_t(p), 0), gathered;
  for (int64_t i = 0; i < m; ++i)
    if (seg.at(i) >= 0 && seg.at(i) < double(p)) want[size_t(seg.at(i))] += x.at(i);
  for (double& v : want) v = double(float(v));
  TestContext c(2);
  SegmentSum a{x, seg, y};
  RUN(segment_sum, a, c);
  close("segment_sum", y, want, 0, 0);
  for (int64_t i = 0; i < m; ++i)
    gathered.push_back(seg.at(i) >= 0 && seg.at(i) < double(p) ? want[size_t(seg.at(i))] : 0);
  SegmentGather b{y, seg, back};
  RUN(segment_gather, b, c);
  close("segment_gather", back, gathered, 0, 0);
  CHECK(y.guarded() && back.guarded(), "segments guard bytes");
}

void dpo(double beta, double smoothing) {
  const int64_t p = 9;
  Random r(4);
  Buffer in[4] = {{f32, {p}}, {f32, {p}}, {f32, {p}}, {f32, {p}}}, loss(f32, {p}), dloss(f32, {p}), dc(f32, {p}),
         dr(f32, {p});
  for (auto& b : in) b.normal(r, 300);
  for (int i = 0; i < 4; ++i) in[i].set(0, -1234.5);  // delta exactly 0: ln 2
  in[0].set(1, -1e5);                                 // far out
  dloss.normal(r);
  auto f = [&](double x, double sign) {
    const double s = sign * x;
    return (s < 0 ? s : 0) - std::log1p(std::exp(-std::fabs(s)));
  };
  std::vector<double> want, dwant, minus;
  for (int64_t i = 0; i < p; ++i) {
    const double delta = beta * ((in[0].at(i) - in[2].at(i)) - (in[1].at(i) - in[3].at(i)));
    want.push_back(-(1 - smoothing) * f(delta, 1) - smoothing * f(delta, -1));
    dwant.push_back(dloss.at(i) * beta *
                    (smoothing / (1 + std::exp(-delta)) - (1 - smoothing) / (1 + std::exp(delta))));
    minus.push_back(-dwant.back());
  }
  TestContext c(1);
  DpoLoss a{in[0], in[1], in[2], in[3], loss, beta, smoothing};
  RUN(dpo_loss, a, c);
  CHECK(worst(values(loss), want, 1e-12) < 1e-6, "dpo_loss: worst %g", worst(values(loss), want, 1e-12));
  CHECK(loss.at(0) == double(float(std::log(2.0))), "dpo_loss at 0 must be ln 2");
  DpoLossBackward b{in[0], in[1], in[2], in[3], dloss, dc, dr, beta, smoothing};
  RUN(dpo_loss_backward, b, c);
  CHECK(worst(values(dc), dwant, 1e-12) < 1e-6, "dpo_loss dchosen: worst %g", worst(values(dc), dwant, 1e-12));
  CHECK(worst(values(dr), minus, 1e-12) < 1e-6, "dpo_loss drejected: worst %g", worst(values(dr), minus, 1e-12));
  CHECK(loss.guarded() && dc.guarded() && dr.guarded(), "dpo_loss guard bytes");
}

void cache(DType type, DType x_type) {
  const int64_t S = 4, L = 9, K = 2, D = 8, m = 7, row = K * D;
  Random r(8);
  Buffer before(type, {S, L, K, D}), x(x_type, {m, K, D}), slot(i32, {m}), place(i32, {m}), y(type, {S, L, K, D});
  before.normal(r), x.normal(r);
  const double slots[] = {0, 3, -1, 2, 4, 1, 3}, places[] = {0, 8, 1, 9, 2, -1, 8};  // the second (3, 8) wins
  std::vector<double> want = values(before);
  for (int64_t i = 0; i < m; ++i) {
    slot.set(i, slots[i]), place.set(i, places[i]);
    if (slots[i] < 0 || slots[i] >= double(S) || places[i] < 0 || places[i] >= double(L)) continue;
    for (int64_t d = 0; d < row; ++d) {
      const double v = x.at(i * row + d);
      want[size_t((int64_t(slots[i]) * L + int64_t(places[i])) * row + d)] =
          type == half ? to_float(to_bf16(float(v))) : v;
    }
  }
  TestContext c(3);
  Buffer over = before;
  CacheWrite a{before, x, slot, place, y}, b{over, x, slot, place, over};
  RUN(cache_write, a, c);
  close("cache_write", y, want, 0, 0);
  RUN(cache_write, b, c);
  CHECK(over.same(y) && over.guarded() && y.guarded(), "cache_write in place: other bits");
}

// Rows with NaN or infinity give what IEEE arithmetic gives, and leave other rows alone.
void poison() {
  for (double bad : {double(NAN), double(INFINITY), -double(INFINITY)})
    for (DType type : {f32, half}) {
      const int64_t n = 3, width = 40;
      Random r(2);
      Buffer x(type, {n, width}), w(type, {width}), y(type, {n, width}), rstd(f32, {n}), z(type, {n, width / 2});
      x.normal(r), w.normal(r);
      x.set(width + 7, bad);
      TestContext c(1);
      RmsNorm a{x, w, y, rstd, 1e-5};
      RUN(rms_norm, a, c);
      CHECK(std::isnan(y.at(width + 7)), "rms_norm must pass %g on", bad);
      Swiglu s{x, z};
      RUN(swiglu, s, c);
      CHECK(!std::isfinite(z.at(width / 2 + 7)), "swiglu must pass %g on, got %g", bad, z.at(width / 2 + 7));
      for (int64_t j = 0; j < width; ++j)
        CHECK(std::isfinite(y.at(j)) && std::isfinite(y.at(2 * width + j)), "rms_norm: other rows");
    }
}

}  // namespace

void primitives();

namespace {

void checks() {
  for (DType t : {f32, half})
    for (int64_t n : {0, 1, 7, 33, 200})
      for (int64_t width : {3, 5, 16, 31, 64, 127, 576}) rms_norm_case(n, width, t, t, f32);
  rms_norm_case(50, 100, half, half, half);
  rms_norm_case(50, 100, half, f32, f32);
  rms_norm_case(50, 100, f32, half, f32);
  for (DType t : {f32, half})
    for (int64_t d : {8, 24, 64, 80, 128, 256})
      for (int norms : {0, 1, 2, 3}) qkv_rope_case(21, 3, 1, d, norms & 1, norms & 2, t, t, f32);
  for (int64_t n : {0, 1, 100}) qkv_rope_case(n, 4, 2, 16, true, true, half, half, half);
  for (DType t : {f32, half})
    for (int64_t f : {1, 8, 31, 64, 172}) swiglu_case(f == 31 ? 0 : 19, f, t), swiglu_case(1, f, t);
  rope_table_case(0, 4), rope_table_case(75, 32), rope_table_case(33, 5);
  segments(0, 3), segments(1, 1), segments(1000, 17);
  dpo(0.1, 0), dpo(0.5, 0.2);
  cache(f32, f32), cache(half, half), cache(half, f32);
  poison();
  primitives();
}

}  // namespace
}  // namespace attune::test

int main(int, char** argv) { return attune::test::for_each_level(argv[0], attune::test::checks); }
