// The primitives: elementwise arithmetic, broadcast and sums over any mix of dtypes, on the small tensors of a loss
// formula. source: lib/ops/primitives/. Every element is widened to double, computed, and rounded once to y's dtype. In
// place over the first input is safe: a block is read before it is written.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"
#include "elements.h"

namespace attune::cpu {

namespace {

constexpr int64_t kBlock = 256;        // elements widened at a time, on the stack
constexpr int64_t kPerTask = 1 << 14;  // elements of one task

void read(const Tensor& t, int64_t at, int64_t n, double* out) {
  if (t.dtype == DType::f32)
    for (int64_t i = 0; i < n; ++i) out[i] = double(t.as<float>()[at + i]);
  else if (t.dtype == DType::bf16)
    for (int64_t i = 0; i < n; ++i) out[i] = double(to_f32(t.as<bf16>()[at + i]));
  else
    for (int64_t i = 0; i < n; ++i) out[i] = double(t.as<int32_t>()[at + i]);
}

void write(const Tensor& t, int64_t at, int64_t n, const double* in) {
  if (t.dtype == DType::f32)
    for (int64_t i = 0; i < n; ++i) t.as<float>()[at + i] = float(in[i]);
  else if (t.dtype == DType::bf16)
    for (int64_t i = 0; i < n; ++i) t.as<bf16>()[at + i] = from_f32<bf16>(float(in[i]));
  else
    for (int64_t i = 0; i < n; ++i) t.as<int32_t>()[at + i] = to_i32(in[i]);
}

// Calls f(at, n) for consecutive blocks that cover `size` elements.
template <class F>
void blocks(Context& c, int64_t size, F&& f) {
  c.parallel((size + kPerTask - 1) / kPerTask, [&](int64_t task, int) {
    for (int64_t at = task * kPerTask, end = std::min(size, at + kPerTask); at < end; at += kBlock)
      f(at, std::min(kBlock, end - at));
  });
}

template <class F>
void map1(const Tensor& x, const Tensor& y, Context& c, F f) {
  blocks(c, y.size(), [&](int64_t at, int64_t n) {
    double v[kBlock];
    read(x, at, n, v);
    for (int64_t i = 0; i < n; ++i) v[i] = f(v[i]);
    write(y, at, n, v);
  });
}

template <class F>
void map2(const Tensor& a, const Tensor& b, const Tensor& y, Context& c, F f) {
  blocks(c, y.size(), [&](int64_t at, int64_t n) {
    double v[kBlock], w[kBlock];
    read(a, at, n, v);
    read(b, at, n, w);
    for (int64_t i = 0; i < n; ++i) v[i] = f(v[i], w[i]);
    write(y, at, n, v);
  });
}

// Shape and row-major strides at rank 4, aligned to the last axis as numpy does.
struct Walk {
  int64_t shape[4] = {1, 1, 1, 1}, stride[4] = {0, 0, 0, 0};
  explicit Walk(const Tensor& t) {
    int64_t s = 1;
    for (int32_t i = t.rank - 1, j = 3; i >= 0; --i, --j) {
      shape[j] = t.shape[i];
      stride[j] = s;
      s *= t.shape[i];
    }
  }
};

}  // namespace

void add(const Add& a, Context& c) {
  map2(a.a, a.b, a.y, c, [](double p, double q) { return p + q; });
}

void mul(const Mul& a, Context& c) {
  map2(a.a, a.b, a.y, c, [](double p, double q) { return p * q; });
}

void div(const Div& a, Context& c) {
  map2(a.a, a.b, a.y, c, [](double p, double q) { return p / q; });
}

// NaN if either is NaN, as Math.max and torch.maximum.
void max(const Max& a, Context& c) {
  map2(a.a, a.b, a.y, c, [](double p, double q) { return p > q || p != p ? p : q; });
}

void less(const Less& a, Context& c) {
  map2(a.a, a.b, a.y, c, [](double p, double q) { return p < q ? 1.0 : 0.0; });
}

void equal(const Equal& a, Context& c) {
  map2(a.a, a.b, a.y, c, [](double p, double q) { return p == q ? 1.0 : 0.0; });
}

void exp(const Exp& a, Context& c) {
  map1(a.x, a.y, c, [](double x) { return std::exp(x); });
}

void log(const Log& a, Context& c) {
  map1(a.x, a.y, c, [](double x) { return std::log(x); });
}

// log(1 / (1 + e^-x)) with no overflow: -ln 2 at 0, x far below.
void log_sigmoid(const LogSigmoid& a, Context& c) {
  map1(a.x, a.y, c, [](double x) { return (x < 0 ? x : 0.0) - std::log1p(std::exp(-std::fabs(x))); });
}

void rsqrt(const Rsqrt& a, Context& c) {
  map1(a.x, a.y, c, [](double x) { return 1.0 / std::sqrt(x); });
}

void cast(const Cast& a, Context& c) {
  map1(a.x, a.y, c, [](double x) { return x; });
}

void select(const Select& a, Context& c) {
  blocks(c, a.y.size(), [&](int64_t at, int64_t n) {
    double m[kBlock], p[kBlock], q[kBlock];
    read(a.m, at, n, m);
    read(a.a, at, n, p);
    read(a.b, at, n, q);
    for (int64_t i = 0; i < n; ++i) p[i] = m[i] != 0 ? p[i] : q[i];
    write(a.y, at, n, p);
  });
}

void fill(const Fill& a, Context& c) {
  blocks(c, a.y.size(), [&](int64_t at, int64_t n) {
    double v[kBlock];
    std::fill_n(v, n, a.value);
    write(a.y, at, n, v);
  });
}

void iota(const Iota& a, Context& c) {
  blocks(c, a.y.size(), [&](int64_t at, int64_t n) {
    double v[kBlock];
    for (int64_t i = 0; i < n; ++i) v[i] = double(at + i);
    write(a.y, at, n, v);
  });
}

void broadcast(const Broadcast& a, Context& c) {
  const Walk y(a.y);
  Walk x(a.x);
  for (int i = 0; i < 4; ++i)
    if (x.shape[i] == 1) x.stride[i] = 0;
  const int64_t last = y.shape[3], rows = last ? a.y.size() / last : 0;
  c.parallel(rows, [&](int64_t row, int) {
    const int64_t i2 = row % y.shape[2], i1 = row / y.shape[2] % y.shape[1], i0 = row / y.shape[2] / y.shape[1];
    const int64_t from = i0 * x.stride[0] + i1 * x.stride[1] + i2 * x.stride[2];
    double v[kBlock];
    for (int64_t at = 0; at < last; at += kBlock) {
      const int64_t n = std::min(kBlock, last - at);
      read(a.x, from + at * x.stride[3], x.stride[3] ? n : 1, v);
      if (!x.stride[3]) std::fill_n(v, n, double(v[0]));
      write(a.y, row * last + at, n, v);
    }
  });
}

void reduce_sum(const ReduceSum& a, Context& c) {
  const Walk x(a.x);
  int64_t outer[4] = {1, 1, 1, 1}, inner[4] = {1, 1, 1, 1};  // the axes that stay, the axes that are summed
  for (int i = 0; i < 4; ++i) outer[i] = x.shape[i];
  for (int64_t k = 0; k < a.axes.size; ++k) {
    const int64_t axis = int64_t(a.axes.data[k]), i = (axis < 0 ? axis + a.x.rank : axis) + 4 - a.x.rank;
    if (i < 0 || i > 3) continue;
    inner[i] = x.shape[i];
    outer[i] = 1;
  }
  const int64_t count = outer[0] * outer[1] * outer[2] * outer[3];
  c.parallel(count, [&](int64_t o, int) {
    const int64_t o3 = o % outer[3], o2 = o / outer[3] % outer[2], o1 = o / outer[3] / outer[2] % outer[1],
                  o0 = o / outer[3] / outer[2] / outer[1];
    const int64_t base = o0 * x.stride[0] + o1 * x.stride[1] + o2 * x.stride[2] + o3 * x.stride[3];
    double sum = 0, v[kBlock];
    for (int64_t i0 = 0; i0 < inner[0]; ++i0) {
      for (int64_t i1 = 0; i1 < inner[1]; ++i1) {
        for (int64_t i2 = 0; i2 < inner[2]; ++i2) {
          const int64_t from = base + i0 * x.stride[0] + i1 * x.stride[1] + i2 * x.stride[2];
          for (int64_t at = 0; at < inner[3]; at += kBlock) {
            const int64_t n = std::min(kBlock, inner[3] - at);
            read(a.x, from + at, n, v);
            for (int64_t i = 0; i < n; ++i) sum += v[i];
          }
        }
      }
    }
    write(a.y, o, 1, &sum);
  });
}

}  // namespace attune::cpu
