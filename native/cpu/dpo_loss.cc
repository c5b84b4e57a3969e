// dpo_loss: per pair -(1-ls) log_sigmoid(delta) - ls log_sigmoid(-delta), delta = beta ((chosen - ref_chosen) -
// (rejected - ref_rejected)). source: lib/ops/dpo_loss.ts; Rafailov et al. 2023 (arXiv:2305.18290) eq. 7, label
// smoothing as in cDPO. The log-ratios are small differences of large sums, so they are formed in double.
#include <algorithm>
#include <cmath>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"

namespace attune::cpu {

namespace {

double log_sigmoid(double x) { return std::fmin(x, 0.0) - std::log1p(std::exp(-std::fabs(x))); }

double sigmoid(double x) { return x >= 0 ? 1.0 / (1.0 + std::exp(-x)) : std::exp(x) / (1.0 + std::exp(x)); }

template <class A>
double margin(const A& a, int64_t i) {
  const double chosen = double(a.chosen.template as<float>()[i]) - double(a.ref_chosen.template as<float>()[i]);
  const double rejected = double(a.rejected.template as<float>()[i]) - double(a.ref_rejected.template as<float>()[i]);
  return a.beta * (chosen - rejected);
}

}  // namespace

void dpo_loss(const DpoLoss& a, Context&) {
  float* loss = a.loss.as<float>();
  for (int64_t i = 0, n = a.chosen.size(); i < n; ++i) {
    const double delta = margin(a, i), ls = a.label_smoothing;
    double y = -(1 - ls) * log_sigmoid(delta);
    if (ls != 0) y -= ls * log_sigmoid(-delta);  // skipped at 0: 0 * infinity is not a loss
    loss[i] = float(y);
  }
}

void dpo_loss_backward(const DpoLossBackward& a, Context&) {
  const float* dloss = a.dloss.as<float>();
  float* chosen = a.dchosen.as<float>();
  float* rejected = a.drejected.as<float>();
  for (int64_t i = 0, n = a.chosen.size(); i < n; ++i) {
    const double delta = margin(a, i), ls = a.label_smoothing;
    const double slope = a.beta * (ls * sigmoid(delta) - (1 - ls) * sigmoid(-delta)) * double(dloss[i]);
    if (chosen) chosen[i] = float(slope);
    if (rejected) rejected[i] = float(-slope);
  }
}

}  // namespace attune::cpu
