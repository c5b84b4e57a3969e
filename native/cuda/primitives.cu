// The primitives: elementwise arithmetic, broadcast and sums over any mix of dtypes, on the small tensors of a loss formula.
// source: lib/ops/primitives/. Every element is widened to float64, computed, and rounded once to y's dtype.
// tiling: a thread an element; a block a sum. Two operands of one float dtype go by vectors in fp32: what is exact or rounded once in
// fp32 has the bits that float64 rounded to fp32 has.
// budget: none to speak of; large tensors meet add, mul, cast and fill alone. limits: rank 4. measured: not yet.
#include "common/elements.h"
#include "common/grid.h"
#include "common/reduce.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kThreads = 256;

// A tensor of any dtype, element by element.
struct View {
  void* data;
  DType dtype;

  View(const Tensor& t) : data(t.data), dtype(t.dtype) {}
  __device__ double get(int64_t i) const {
    if (dtype == DType::f32) return static_cast<const float*>(data)[i];
    if (dtype == DType::bf16) return widen(static_cast<const __nv_bfloat16*>(data)[i]);
    return static_cast<const int32_t*>(data)[i];
  }
  __device__ void set(int64_t i, double x) const {
    if (dtype == DType::f32)
      put(static_cast<float*>(data) + i, static_cast<float>(x));
    else if (dtype == DType::bf16)
      put(static_cast<__nv_bfloat16*>(data) + i, static_cast<float>(x));
    else
      static_cast<int32_t*>(data)[i] = whole(x);
  }
  // As C would truncate it, but defined everywhere: NaN gives 0, what does not fit saturates.
  __device__ static int32_t whole(double x) {
    if (!(x == x)) return 0;
    if (x >= 2147483647.0) return INT32_MAX;
    if (x <= -2147483648.0) return INT32_MIN;
    return static_cast<int32_t>(x);
  }
};

__device__ inline int64_t element() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

// One and two operands.
struct Same {
  static __device__ double of(double x) { return x; }
};
struct Exponential {
  static __device__ double of(double x) { return ::exp(x); }
};
struct Logarithm {
  static __device__ double of(double x) { return ::log(x); }
};
struct LogSigmoidOf {  // ln (1 / (1 + e^-x)) with no overflow: -ln 2 at 0, x far below
  static __device__ double of(double x) { return (x < 0 ? x : 0.0) - ::log1p(::exp(-fabs(x))); }
};
struct InverseRoot {
  static __device__ double of(double x) { return 1.0 / sqrt(x); }
};
struct Sum {
  template <class R> static __device__ R of(R a, R b) { return a + b; }
};
struct Product {
  template <class R> static __device__ R of(R a, R b) { return a * b; }
};
struct Quotient {
  template <class R> static __device__ R of(R a, R b) { return a / b; }
};
struct Greater {  // NaN if either is
  template <class R> static __device__ R of(R a, R b) { return a > b || a != a ? a : b; }
};
struct IsLess {
  template <class R> static __device__ R of(R a, R b) { return a < b ? R{1} : R{0}; }
};
struct IsEqual {
  template <class R> static __device__ R of(R a, R b) { return a == b ? R{1} : R{0}; }
};

template <class Op> __global__ void __launch_bounds__(kThreads) map1(View x, View y, int64_t n) {
  if (const int64_t i = element(); i < n) y.set(i, Op::of(x.get(i)));
}
template <class Op> __global__ void __launch_bounds__(kThreads) map2(View a, View b, View y, int64_t n) {
  if (const int64_t i = element(); i < n) y.set(i, Op::of(a.get(i), b.get(i)));
}
__global__ void __launch_bounds__(kThreads) choose(View m, View a, View b, View y, int64_t n) {
  if (const int64_t i = element(); i < n) y.set(i, m.get(i) != 0 ? a.get(i) : b.get(i));
}
__global__ void __launch_bounds__(kThreads) count_up(View y, int64_t n) {
  if (const int64_t i = element(); i < n) y.set(i, static_cast<double>(i));
}

// The same by vectors of kWide. y may lie over a.
template <class Op, class T> __global__ void __launch_bounds__(kThreads) map2_wide(const T* a, const T* b, T* y, int64_t n) {
  const int64_t i = element() * kWide;
  if (i + kWide > n) {
    for (int64_t k = i; k < n; ++k) put(y + k, Op::of(widen(a[k]), widen(b[k])));
    return;
  }
  const auto p = load<kWide>(a + i), q = load<kWide>(b + i);
  float out[kWide];
#pragma unroll
  for (int k = 0; k < kWide; ++k) out[k] = Op::of(p[k], q[k]);
  store(y + i, out);
}
template <class X, class Y> __global__ void __launch_bounds__(kThreads) convert(const X* x, Y* y, int64_t n) {
  const int64_t i = element() * kWide;
  if (i + kWide > n) {
    for (int64_t k = i; k < n; ++k) put(y + k, widen(x[k]));
    return;
  }
  const auto p = load<kWide>(x + i);
  float out[kWide];
#pragma unroll
  for (int k = 0; k < kWide; ++k) out[k] = p[k];
  store(y + i, out);
}
template <class Y> __global__ void __launch_bounds__(kThreads) fill_wide(float value, Y* y, int64_t n) {
  const int64_t i = element() * kWide;
  if (i + kWide > n) {
    for (int64_t k = i; k < n; ++k) put(y + k, value);
    return;
  }
  float out[kWide];
#pragma unroll
  for (int k = 0; k < kWide; ++k) out[k] = value;
  store(y + i, out);
}
__global__ void __launch_bounds__(kThreads) fill_integers(int32_t value, int32_t* y, int64_t n) {
  if (const int64_t i = element(); i < n) y[i] = value;
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
  int64_t size() const { return shape[0] * shape[1] * shape[2] * shape[3]; }
  // Where element `i` of the shape lies under the strides.
  __device__ int64_t offset(int64_t i) const {
    const int64_t i3 = i % shape[3], i2 = i / shape[3] % shape[2], i1 = i / shape[3] / shape[2] % shape[1],
                  i0 = i / shape[3] / shape[2] / shape[1];
    return i0 * stride[0] + i1 * stride[1] + i2 * stride[2] + i3 * stride[3];
  }
};

// `from` has y's shape and x's strides, 0 where x repeats.
__global__ void __launch_bounds__(kThreads) repeat(View x, View y, Walk from, int64_t n) {
  if (const int64_t i = element(); i < n) y.set(i, x.get(from.offset(i)));
}

// `outer` walks the axes that stay, `inner` those that are summed.
__global__ void __launch_bounds__(kThreads) sum_axes(View x, View y, Walk outer, Walk inner, int64_t count) {
  ATTUNE_SHARED(double, warps, kWarps);
  const int64_t base = outer.offset(blockIdx.x);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += x.get(base + inner.offset(i));
  sum = block_sum(sum, warps);
  if (threadIdx.x == 0) y.set(blockIdx.x, sum);
}

dim3 blocks_for(Stream& stream, const char* name, int64_t items) { return grid_of(stream, name, ceil_div(items, kThreads)); }

template <class Op> void unary(Stream& stream, const char* name, const Tensor& x, const Tensor& y) {
  stream.launch(name, map1<Op>, blocks_for(stream, name, y.size()), kThreads, 0, x, y, y.size());
}

template <class Op, class A> void binary(Stream& stream, const char* name, const A& a) {
  const int64_t n = a.y.size();
  if (a.a.dtype != a.y.dtype || a.b.dtype != a.y.dtype || a.y.dtype == DType::i32)
    return stream.launch(name, map2<Op>, blocks_for(stream, name, n), kThreads, 0, a.a, a.b, a.y, n);
  typed(a.y, [&]<class T>(T* y) {
    stream.launch(name, map2_wide<Op, T>, blocks_for(stream, name, ceil_div(n, kWide)), kThreads, 0, a.a.template as<T>(),
                  a.b.template as<T>(), y, n);
  });
}

}  // namespace

void add(const Add& a, Stream& stream) { binary<Sum>(stream, "add", a); }
void mul(const Mul& a, Stream& stream) { binary<Product>(stream, "mul", a); }
void div(const Div& a, Stream& stream) { binary<Quotient>(stream, "div", a); }
void max(const Max& a, Stream& stream) { binary<Greater>(stream, "max", a); }
void less(const Less& a, Stream& stream) { binary<IsLess>(stream, "less", a); }
void equal(const Equal& a, Stream& stream) { binary<IsEqual>(stream, "equal", a); }
void exp(const Exp& a, Stream& stream) { unary<Exponential>(stream, "exp", a.x, a.y); }
void log(const Log& a, Stream& stream) { unary<Logarithm>(stream, "log", a.x, a.y); }
void log_sigmoid(const LogSigmoid& a, Stream& stream) { unary<LogSigmoidOf>(stream, "log_sigmoid", a.x, a.y); }
void rsqrt(const Rsqrt& a, Stream& stream) { unary<InverseRoot>(stream, "rsqrt", a.x, a.y); }

void cast(const Cast& a, Stream& stream) {
  const int64_t n = a.y.size();
  if (a.x.dtype == DType::i32 || a.y.dtype == DType::i32) return unary<Same>(stream, "cast", a.x, a.y);
  typed(a.x, [&]<class X>(X* x) {
    typed(a.y, [&]<class Y>(Y* y) {
      stream.launch("cast", convert<X, Y>, blocks_for(stream, "cast", ceil_div(n, kWide)), kThreads, 0, x, y, n);
    });
  });
}

void select(const Select& a, Stream& stream) {
  stream.launch("select", choose, blocks_for(stream, "select", a.y.size()), kThreads, 0, a.m, a.a, a.b, a.y, a.y.size());
}

void fill(const Fill& a, Stream& stream) {
  const int64_t n = a.y.size();
  if (a.y.dtype == DType::i32) {
    const double whole = a.value == a.value ? std::clamp(a.value, double{INT32_MIN}, double{INT32_MAX}) : 0.0;
    return stream.launch("fill", fill_integers, blocks_for(stream, "fill", n), kThreads, 0, static_cast<int32_t>(whole),
                         a.y.as<int32_t>(), n);
  }
  typed(a.y, [&]<class Y>(Y* y) {
    stream.launch("fill", fill_wide<Y>, blocks_for(stream, "fill", ceil_div(n, kWide)), kThreads, 0, static_cast<float>(a.value), y,
                  n);
  });
}

void iota(const Iota& a, Stream& stream) {
  stream.launch("iota", count_up, blocks_for(stream, "iota", a.y.size()), kThreads, 0, a.y, a.y.size());
}

void broadcast(const Broadcast& a, Stream& stream) {
  const Walk x(a.x);
  Walk from(a.y);
  for (int i = 0; i < 4; ++i) from.stride[i] = x.shape[i] == 1 ? 0 : x.stride[i];
  stream.launch("broadcast", repeat, blocks_for(stream, "broadcast", a.y.size()), kThreads, 0, a.x, a.y, from, a.y.size());
}

void reduce_sum(const ReduceSum& a, Stream& stream) {
  Walk outer(a.x), inner(a.x);
  for (int i = 0; i < 4; ++i) inner.shape[i] = 1;
  for (int64_t k = 0; k < a.axes.size; ++k) {
    const int64_t axis = static_cast<int64_t>(a.axes.data[k]), i = (axis < 0 ? axis + a.x.rank : axis) + 4 - a.x.rank;
    if (i < 0 || i > 3) continue;
    inner.shape[i] = Walk(a.x).shape[i];
    outer.shape[i] = 1;
  }
  stream.launch("reduce_sum", sum_axes, grid_of(stream, "reduce_sum", outer.size()), threads_for(inner.size(), kThreads), 0, a.x,
                a.y, outer, inner, inner.size());
}

}  // namespace attune::cuda
