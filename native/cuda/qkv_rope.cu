// qkv_rope: splits qkv (N, (H+2K) D) into q (N,H,D), k (N,K,D), v (N,K,D); normalises heads of q and k where norms are given,
// z = x r w, r = 1 / sqrt(mean x^2 + eps); rotates them, y = [a cos - b sin, b cos + a sin] with z = [a, b] in half-heads.
// Backward: g = the rotation back of dy; dx = g, or with a norm r (g w - x r^2 mean(g w x)), and dw = onto_dw + sum over tokens and heads
// of g r x.
// source: lib/ops/rope.ts; RoFormer (arXiv:2104.09864) eq. 34, Hugging Face's half-split; Qwen3's q_norm and k_norm. fp32 inside, one
// rounding at the end.
// tiling: a block a token. A group of lanes (a power of two within a warp) takes a head, each lane the same place of both halves, so that
// its cosines and sines serve all heads. Backward with norms, a block takes every parts-th token and keeps its lanes' sums in registers.
// budget: bytes: qkv once in, once out (backward with norms: twice in); the tables from the level-1 cache. Registers: 64 plain, 128 for the
// norms' gradients; shared memory: at most 32 KiB, there alone.
// limits: D <= 512, even.
// measured: H200, 16384 tokens, 32/8 heads of 128, bf16: 3878 GB/s; backward, in a step of 32768: 3840. bench/results.
#include "common/column_sums.h"
#include "common/elements.h"
#include "common/grid.h"
#include "common/reduce.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 2;            // heads of a group in flight, without sums
constexpr int64_t kParts = 4 * 132;  // of the norms' gradients: four blocks for each multiprocessor of an H200, on any device

struct Shape {
  int64_t rows;
  int heads, kv_heads, size;  // H, K, D
  float inverse;              // 1 / D
  int lanes;                  // of a head

  __device__ int all() const { return heads + 2 * kv_heads; }
  __device__ int turned() const { return heads + kv_heads; }
};

// The two halves of a head that a lane holds: K vectors of N elements in each.
template <class T, int N, int K> struct Halves {
  Vector<T, N> a[K], b[K];
};

template <int N> __device__ inline int place_of(const Shape& s, int k) { return (k * s.lanes + threadIdx.x % s.lanes) * N; }

// What lies beyond the half reads as 0.
template <int N, int K, class T> __device__ inline Halves<T, N, K> load_head(const Shape& s, const T* head, bool there) {
  Halves<T, N, K> h;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int d = place_of<N>(s, k);
    h.a[k] = h.b[k] = {};
    if (!there || d >= s.size / 2) continue;
    h.a[k] = load<N>(head + d);
    h.b[k] = load<N>(head + s.size / 2 + d);
  }
  return h;
}

template <int N, int K, class T>
__device__ inline void store_head(const Shape& s, T* head, const float (&a)[K][N], const float (&b)[K][N]) {
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int d = place_of<N>(s, k);
    if (d >= s.size / 2) continue;
    store(head + d, a[k]);
    store(head + s.size / 2 + d, b[k]);
  }
}

// A row's cosines and sines, of this lane's places.
template <int N, int K> struct Angles {
  float cosine[K][N], sine[K][N];

  __device__ Angles(const Shape& s, const float* cosines, const float* sines, int64_t row) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int d = place_of<N>(s, k);
      Vector<float, N> c = {}, t = {};
      if (d < s.size / 2) {
        c = load<N>(cosines + row * (s.size / 2) + d);
        t = load<N>(sines + row * (s.size / 2) + d);
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
        cosine[k][j] = c[j];
        sine[k][j] = t[j];
      }
    }
  }
  // Rotates by the angles, or back.
  template <bool kBack> __device__ void turn(float (&a)[K][N], float (&b)[K][N]) const {
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float p = a[k][j], q = b[k][j], s = kBack ? -sine[k][j] : sine[k][j];
        a[k][j] = fmaf(-q, s, p * cosine[k][j]);
        b[k][j] = fmaf(p, s, q * cosine[k][j]);
      }
  }
};

template <class T, int N, int K> __device__ inline void widen_head(const Halves<T, N, K>& h, float (&a)[K][N], float (&b)[K][N]) {
#pragma unroll
  for (int k = 0; k < K; ++k)
#pragma unroll
    for (int j = 0; j < N; ++j) {
      a[k][j] = h.a[k][j];
      b[k][j] = h.b[k][j];
    }
}

// The sum over a head of f(k, j), which speaks of the elements at a[k][j] and b[k][j]; in each of its lanes.
template <int N, int K, class F> __device__ inline float head_sum(const Shape& s, F f) {
  float sum = 0;
#pragma unroll
  for (int k = 0; k < K; ++k)
#pragma unroll
    for (int j = 0; j < N; ++j) sum += f(k, j);
  return warp_sum(sum, s.lanes);
}

// Where head h of a row's q, k and v heads lies, each in its own tensor.
template <class T> struct Split {
  T *q, *k, *v;

  __device__ T* head(const Shape& s, int64_t row, int h) const {
    if (h < s.heads) return q + (row * s.heads + h) * s.size;
    if (h < s.turned()) return k + (row * s.kv_heads + h - s.heads) * s.size;
    return v + (row * s.kv_heads + h - s.turned()) * s.size;
  }
};

template <class W> struct Norms {
  const W *q, *k;  // null: no norm
};

template <class T, class W, bool kNorm, int N, int K> __global__ void __launch_bounds__(kThreads)
    qkv_rope_rows(Shape s, const T* qkv, const float* cosines, const float* sines, Norms<W> norms, float eps, Split<T> out,
                  float* rstd) {
  const int64_t row = blockIdx.x;
  const int groups = blockDim.x / s.lanes, group = threadIdx.x / s.lanes;
  const Angles<N, K> angles(s, cosines, sines, row);
  for (int first = 0; first < s.all(); first += kHeads * groups) {
    Halves<T, N, K> x[kHeads];
#pragma unroll
    for (int i = 0; i < kHeads; ++i) {
      const int h = first + i * groups + group;
      x[i] = load_head<N, K>(s, qkv + (row * s.all() + h) * s.size, h < s.all());
    }
#pragma unroll
    for (int i = 0; i < kHeads; ++i) {
      const int h = first + i * groups + group;
      float a[K][N], b[K][N];
      widen_head(x[i], a, b);
      if constexpr (kNorm) {
        const float squares = head_sum<N, K>(s, [&](int k, int j) { return fmaf(a[k][j], a[k][j], b[k][j] * b[k][j]); });
        const float r = rsqrtf(squares * s.inverse + eps);
        if (h < s.turned()) {
          const auto w = load_head<N, K>(s, h < s.heads ? norms.q : norms.k, true);
#pragma unroll
          for (int k = 0; k < K; ++k)
#pragma unroll
            for (int j = 0; j < N; ++j) {
              a[k][j] *= r * w.a[k][j];
              b[k][j] *= r * w.b[k][j];
            }
          if (rstd && threadIdx.x % s.lanes == 0) rstd[row * s.turned() + h] = r;
        }
      }
      if (h >= s.all()) continue;
      if (h < s.turned()) angles.template turn<false>(a, b);
      store_head(s, out.head(s, row, h), a, b);
    }
  }
}

template <class T, int N, int K> __global__ void __launch_bounds__(kThreads)
    qkv_rope_backward_rows(Shape s, Split<const T> dy, const float* cosines, const float* sines, T* dqkv) {
  const int64_t row = blockIdx.x;
  const int groups = blockDim.x / s.lanes, group = threadIdx.x / s.lanes;
  const Angles<N, K> angles(s, cosines, sines, row);
  for (int first = 0; first < s.all(); first += kHeads * groups) {
    Halves<T, N, K> g[kHeads];
#pragma unroll
    for (int i = 0; i < kHeads; ++i) {
      const int h = first + i * groups + group;
      g[i] = load_head<N, K>(s, dy.head(s, row, h), h < s.all());
    }
#pragma unroll
    for (int i = 0; i < kHeads; ++i) {
      const int h = first + i * groups + group;
      if (h >= s.all()) continue;
      float a[K][N], b[K][N];
      widen_head(g[i], a, b);
      if (h < s.turned()) angles.template turn<true>(a, b);
      store_head(s, dqkv + (row * s.all() + h) * s.size, a, b);
    }
  }
}

// What a lane adds to a norm's gradient.
template <int N, int K> struct NormSum {
  float a[K][N] = {}, b[K][N] = {};

  template <class T> __device__ void add(const float (&ga)[K][N], const float (&gb)[K][N], float r, const Halves<T, N, K>& x) {
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int j = 0; j < N; ++j) {
        a[k][j] = fmaf(ga[k][j] * r, x.a[k][j], a[k][j]);
        b[k][j] = fmaf(gb[k][j] * r, x.b[k][j], b[k][j]);
      }
  }
  // part (D) = the sum over the block's groups, in their order. sums (groups, D) is shared memory.
  __device__ void write(const Shape& s, float* sums, float* part) const {
    const int groups = blockDim.x / s.lanes;
    float* own = sums + threadIdx.x / s.lanes * s.size;
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int d = place_of<N>(s, k) + j;
        if (d >= s.size / 2) continue;
        own[d] = a[k][j];
        own[s.size / 2 + d] = b[k][j];
      }
    __syncthreads();
    for (int d = threadIdx.x; d < s.size; d += blockDim.x) {
      float total = 0;
      for (int i = 0; i < groups; ++i) total += sums[i * s.size + d];
      part[d] = total;
    }
    __syncthreads();
  }
};

// parts: (gridDim, D) for q_norm, then as many for k_norm; null: no gradient of the norms is wanted. dqkv may be null.
template <class T, class W, int N, int K> __global__ void __launch_bounds__(kThreads)
    qkv_rope_backward_norms(Shape s, Split<const T> dy, const T* qkv, const float* rstd, const float* cosines, const float* sines,
                            Norms<W> norms, T* dqkv, float* parts) {
  ATTUNE_DYNAMIC_SHARED(bytes);
  const int groups = blockDim.x / s.lanes, group = threadIdx.x / s.lanes;
  NormSum<N, K> dq_norm, dk_norm;
  for (int64_t row = blockIdx.x; row < s.rows; row += gridDim.x) {
    const Angles<N, K> angles(s, cosines, sines, row);
    for (int first = 0; first < s.all(); first += groups) {
      const int h = first + group;
      const bool there = h < s.all(), turned = h < s.turned();
      const auto g = load_head<N, K>(s, dy.head(s, row, h), there);
      const auto x = load_head<N, K>(s, qkv + (row * s.all() + h) * s.size, turned);
      const auto w = load_head<N, K>(s, h < s.heads ? norms.q : norms.k, turned);
      const float r = turned ? rstd[row * s.turned() + h] : 0.0f;
      float a[K][N], b[K][N];
      widen_head(g, a, b);
      if (turned) {
        angles.template turn<true>(a, b);
        if (h < s.heads)
          dq_norm.add(a, b, r, x);
        else
          dk_norm.add(a, b, r, x);
#pragma unroll
        for (int k = 0; k < K; ++k)
#pragma unroll
          for (int j = 0; j < N; ++j) {
            a[k][j] *= w.a[k][j];
            b[k][j] *= w.b[k][j];
          }
      }
      const float dot = head_sum<N, K>(s, [&](int k, int j) { return fmaf(a[k][j], x.a[k][j], b[k][j] * x.b[k][j]); });
      if (!there || !dqkv) continue;
      if (turned) {
        const float shift = dot * s.inverse * r * r;
#pragma unroll
        for (int k = 0; k < K; ++k)
#pragma unroll
          for (int j = 0; j < N; ++j) {
            a[k][j] = r * fmaf(-x.a[k][j], shift, a[k][j]);
            b[k][j] = r * fmaf(-x.b[k][j], shift, b[k][j]);
          }
      }
      store_head(s, dqkv + (row * s.all() + h) * s.size, a, b);
    }
  }
  if (!parts) return;
  float* sums = reinterpret_cast<float*>(bytes);
  dq_norm.write(s, sums, parts + int64_t{blockIdx.x} * s.size);
  dk_norm.write(s, sums, parts + (int64_t{gridDim.x} + blockIdx.x) * s.size);
}

// Calls f with what a lane holds of each half: <N, K>; whole vectors where they fill it, else single elements. Sets s.lanes.
template <class F> void by_half(Stream& stream, const char* name, Shape& s, F&& f) {
  const int half = s.size / 2;
  if (half > 256) return stream.fail(std::string(name) + ": the head size must be at most 512, got " + std::to_string(s.size));
  if (half % kWide == 0) {
    for (s.lanes = 1; s.lanes * kWide < half;) s.lanes *= 2;
    f.template operator()<kWide, 1>();
  } else {
    s.lanes = kWarp;
    f.template operator()<1, 8>();
  }
}

unsigned threads_of(const Shape& s, int heads_in_flight) {
  return threads_for(ceil_div(s.heads + 2 * s.kv_heads, heads_in_flight) * s.lanes, kThreads);
}

Shape shape_of(const Tensor& q, const Tensor& k) {
  return {q.shape[0],
          static_cast<int>(q.shape[1]),
          static_cast<int>(k.shape[1]),
          static_cast<int>(q.shape[2]),
          1.0f / static_cast<float>(q.shape[2]),
          1};
}

int64_t parts_of(const QkvRopeBackward& a) { return a.dq_norm || a.dk_norm ? std::min(a.dq.shape[0], kParts) : 0; }

}  // namespace

int64_t qkv_rope_backward_scratch(const QkvRopeBackward& a) {
  return parts_of(a) * 2 * a.dq.shape[2] * static_cast<int64_t>(sizeof(float));
}

void qkv_rope(const QkvRope& a, Stream& stream) {
  constexpr const char* name = "qkv_rope";
  Shape s = shape_of(a.q, a.k);
  const dim3 grid = grid_of(stream, name, s.rows);
  const float *cosines = a.cos.as<float>(), *sines = a.sin.as<float>(), eps = static_cast<float>(a.eps);
  typed(a.qkv, [&]<class T>(T* qkv) {
    const Split<T> out{a.q.as<T>(), a.k.as<T>(), a.v.as<T>()};
    by_half(stream, name, s, [&]<int N, int K>() {
      const unsigned threads = threads_of(s, kHeads);
      if (!a.q_norm)
        return stream.launch(name, qkv_rope_rows<T, float, false, N, K>, grid, threads, 0, s, qkv, cosines, sines, Norms<float>{},
                             eps, out, nullptr);
      typed(a.q_norm, [&]<class W>(W* q_norm) {
        stream.launch(name, qkv_rope_rows<T, W, true, N, K>, grid, threads, 0, s, qkv, cosines, sines,
                      Norms<W>{q_norm, a.k_norm.as<W>()}, eps, out, a.rstd.as<float>());
      });
    });
  });
}

void qkv_rope_backward(const QkvRopeBackward& a, Stream& stream) {
  constexpr const char* name = "qkv_rope_backward";
  Shape s = shape_of(a.dq, a.dk);
  const float *cosines = a.cos.as<float>(), *sines = a.sin.as<float>();
  const int64_t parts = parts_of(a);
  float* sums = parts ? stream.scratch<float>() : nullptr;
  typed(a.dq, [&]<class T>(T* dq) {
    const Split<const T> dy{dq, a.dk.as<T>(), a.dv.as<T>()};
    by_half(stream, name, s, [&]<int N, int K>() {
      if (!a.q_norm)
        return stream.launch(name, qkv_rope_backward_rows<T, N, K>, grid_of(stream, name, s.rows), threads_of(s, kHeads), 0, s, dy,
                             cosines, sines, a.dqkv.as<T>());
      const unsigned threads = threads_of(s, 1);
      const size_t shared = sizeof(float) * (threads / s.lanes) * s.size;
      typed(a.q_norm, [&]<class W>(W* q_norm) {
        stream.launch(name, qkv_rope_backward_norms<T, W, N, K>, grid_of(stream, name, parts ? parts : s.rows), threads, shared, s,
                      dy, a.qkv.as<T>(), a.rstd.as<float>(), cosines, sines, Norms<W>{q_norm, a.k_norm.as<W>()}, a.dqkv.as<T>(),
                      sums);
      });
    });
  });
  if (a.dq_norm) add_columns(stream, "qkv_rope_backward_sum", sums, parts, a.onto_dq_norm, a.dq_norm);
  if (a.dk_norm) add_columns(stream, "qkv_rope_backward_sum", sums + parts * s.size, parts, a.onto_dk_norm, a.dk_norm);
}

}  // namespace attune::cuda
