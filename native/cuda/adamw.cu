// adamw: one update of flat parameters in one pass over memory, in torch.optim.AdamW's order: d = g scale; m' = b1 m + (1 - b1) d;
// v' = b2 v + (1 - b2) d^2; p' = p (1 - lr decay) - (lr / bias1) m' / (sqrt(v') / sqrt(bias2) + eps).
// p is `master` (fp32) where there is one, w being its rounded copy; else w itself.
// source: lib/ops/adamw.ts; Loshchilov & Hutter 2019 (arXiv:1711.05101), algorithm 2.
// tiling: a flat range, four elements an access, kSteps accesses of each array in flight; blocks stride over the range, so that each
// thread forms the step's scalars (in float64, as the CPU does) once.
// budget: bytes an element: 30 for bf16 weights and fp32 gradients with a master (16 read, 14 written); 28 for fp32 without. At most 72
// registers.
// limits: a weight without a master must be fp32.
// measured: H200, 33.6M weights, fp32 masters and bf16 copies: 3467 GB/s, 1.32 of PyTorch's fused one; 0.5B weights in a step 3970 (3.7 ms).
// bench/results.
#include "common/elements.h"
#include "common/grid.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kVector = 4, kSteps = 2, kThreads = 256, kBlocksPerSm = 3;  // that its registers let be there at once

// Device addresses; any of the outputs may be null.
template <class G, class W> struct Arrays {
  const G* g;
  const float *m, *v, *p;
  W* w2;
  float *master2, *m2, *v2;
};
struct Scalars {
  const float *scale, *lr, *bias1, *bias2;
  double beta1, beta2, eps, decay;
};

template <int N, class G, class W> __global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    adamw_update(Arrays<G, W> a, Scalars s, int64_t first, int64_t end) {
  const double rate = *s.lr;
  const float scale = *s.scale, keep = static_cast<float>(1 - rate * s.decay), eps = static_cast<float>(s.eps);
  const float beta1 = static_cast<float>(s.beta1), gain1 = static_cast<float>(1 - s.beta1);
  const float beta2 = static_cast<float>(s.beta2), gain2 = static_cast<float>(1 - s.beta2);
  const float step = static_cast<float>(rate / *s.bias1);
  const float root = static_cast<float>(1 / sqrt(static_cast<double>(*s.bias2)));

  const int64_t stride = int64_t{gridDim.x} * kThreads * N;
  for (int64_t base = first + (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N; base < end; base += kSteps * stride) {
    Vector<G, N> g[kSteps];
    Vector<float, N> m[kSteps], v[kSteps], p[kSteps];
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const int64_t i = base + k * stride;
      if (i >= end) continue;
      g[k] = load<N>(a.g + i);
      m[k] = load<N>(a.m + i);
      v[k] = load<N>(a.v + i);
      p[k] = load<N>(a.p + i);
    }
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const int64_t i = base + k * stride;
      if (i >= end) continue;
      float mean[N], square[N], next[N];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float d = g[k][j] * scale;
        mean[j] = fmaf(beta1, m[k][j], gain1 * d);
        square[j] = fmaf(beta2, v[k][j], gain2 * d * d);
        next[j] = fmaf(-step, mean[j] / fmaf(sqrtf(square[j]), root, eps), p[k][j] * keep);
      }
      if (a.m2) store(a.m2 + i, mean);
      if (a.v2) store(a.v2 + i, square);
      if (a.master2) store(a.master2 + i, next);
      if (a.w2) store(a.w2 + i, next);
    }
  }
}

template <class G, class W> void run(const Adamw& a, Stream& stream) {
  const float* p = a.master ? a.master.as<float>() : a.w.as<float>();
  const Arrays<G, W> arrays{a.g.as<G>(),           a.m.as<float>(),  a.v.as<float>(),  p,           a.w2.as<W>(),
                            a.master2.as<float>(), a.m2.as<float>(), a.v2.as<float>()};
  const Scalars scalars{
      a.scale.as<float>(), a.lr.as<float>(), a.bias1.as<float>(), a.bias2.as<float>(), a.beta1, a.beta2, a.eps, a.decay};
  const int64_t n = a.g.size(), whole = n / kVector * kVector;
  const int64_t blocks =
      std::min<int64_t>(ceil_div(whole, kVector * kSteps * kThreads), int64_t{stream.device().sms} * kBlocksPerSm);
  stream.launch("adamw", adamw_update<kVector, G, W>, grid_of(stream, "adamw", blocks), kThreads, 0, arrays, scalars, int64_t{0},
                whole);
  if (whole < n) stream.launch("adamw_rest", adamw_update<1, G, W>, 1, kThreads, 0, arrays, scalars, whole, n);
}

}  // namespace

void adamw(const Adamw& a, Stream& stream) {
  if (!a.master && a.w.dtype != DType::f32) return stream.fail("adamw: a bfloat16 weight needs a float32 master");
  typed(a.g, [&]<class G>(G*) { typed(a.w, [&]<class W>(W*) { run<G, W>(a, stream); }); });
}

}  // namespace attune::cuda
