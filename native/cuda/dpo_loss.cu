// dpo_loss: per pair -(1-s) ln sigmoid(d) - s ln sigmoid(-d), d = beta ((chosen - ref_chosen) - (rejected - ref_rejected)), s the label
// smoothing. Backward: dchosen = dloss beta (s sigmoid(d) - (1-s) sigmoid(-d)), drejected = -dchosen.
// source: lib/ops/dpo_loss.ts; Rafailov et al. 2023 (arXiv:2305.18290) eq. 7; s as in cDPO. The log-ratios are small differences of
// large sums, so they are formed in float64.
// tiling: a thread a pair. budget: a launch; the vectors hold one number an example. limits: none. measured: not yet.
#include "common/grid.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kThreads = 128;

struct Pairs {
  const float *chosen, *rejected, *ref_chosen, *ref_rejected;
  int64_t count;
  double beta, smoothing;
};
template <class A> Pairs pairs_of(const A& a) {
  return {a.chosen.template as<float>(),
          a.rejected.template as<float>(),
          a.ref_chosen.template as<float>(),
          a.ref_rejected.template as<float>(),
          a.chosen.size(),
          a.beta,
          a.label_smoothing};
}

__device__ double log_sigmoid(double x) { return (x > 0 ? 0.0 : x) - ::log1p(::exp(-fabs(x))); }
__device__ double sigmoid(double x) { return x >= 0 ? 1.0 / (1.0 + ::exp(-x)) : ::exp(x) / (1.0 + ::exp(x)); }
__device__ double margin(const Pairs& p, int64_t i) {
  const double chosen = static_cast<double>(p.chosen[i]) - static_cast<double>(p.ref_chosen[i]);
  const double rejected = static_cast<double>(p.rejected[i]) - static_cast<double>(p.ref_rejected[i]);
  return p.beta * (chosen - rejected);
}

__global__ void __launch_bounds__(kThreads) dpo_loss_pairs(Pairs p, float* loss) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.count) return;
  const double d = margin(p, i), s = p.smoothing;
  double y = -(1 - s) * log_sigmoid(d);
  if (s != 0) y -= s * log_sigmoid(-d);  // skipped at 0: 0 * infinity is not a loss
  loss[i] = static_cast<float>(y);
}

__global__ void __launch_bounds__(kThreads) dpo_loss_backward_pairs(Pairs p, const float* dloss, float* dchosen, float* drejected) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.count) return;
  const double d = margin(p, i), s = p.smoothing;
  const double slope = p.beta * (s * sigmoid(d) - (1 - s) * sigmoid(-d)) * static_cast<double>(dloss[i]);
  if (dchosen) dchosen[i] = static_cast<float>(slope);
  if (drejected) drejected[i] = static_cast<float>(-slope);
}

}  // namespace

void dpo_loss(const DpoLoss& a, Stream& stream) {
  const Pairs pairs = pairs_of(a);
  stream.launch("dpo_loss", dpo_loss_pairs, grid_of(stream, "dpo_loss", ceil_div(pairs.count, kThreads)), kThreads, 0, pairs,
                a.loss.as<float>());
}

void dpo_loss_backward(const DpoLossBackward& a, Stream& stream) {
  const Pairs pairs = pairs_of(a);
  stream.launch("dpo_loss_backward", dpo_loss_backward_pairs, grid_of(stream, "dpo_loss_backward", ceil_div(pairs.count, kThreads)),
                kThreads, 0, pairs, a.dloss.as<float>(), a.dchosen.as<float>(), a.drejected.as<float>());
}

}  // namespace attune::cuda
