// What a run of logits adds to its row's softmax, and how the runs of a row join; after foreach_isa.h.
// Runs are cut by the shape alone and joined left to right, so a row's result depends on nothing else.

namespace attune::cpu::ISA {
namespace {

struct Part {
  float high = -__builtin_inff();  // highest logit
  double sum = 0;                  // of e = exp(logit - high)
  double weighted = 0;             // of e (logit - high): for the entropy
  double plain = 0;                // of the logits: for their mean
};

template <class T> Part part_of(const T* x, int64_t n, bool entropy, bool mean) {
  constexpr int N = 4;
  const V lowest = set(-__builtin_inff());
  V high[N] = {lowest, lowest, lowest, lowest}, plain[N] = {zero(), zero(), zero(), zero()};
  auto look = [&](int v, V logit, auto m) {
    high[v] = max(mask_in(logit, lowest, m), high[v]);  // NaN leaves it as it is
    if (mean) plain[v] = plain[v] + mask_in(logit, zero(), m);
  };
  int64_t i = 0;
  for (; i + N * V::W <= n; i += N * V::W)
    for (int v = 0; v < N; ++v) look(v, load(x + i + v * V::W), All{});
  lanes(n - i, [&](int64_t k, auto m) { look(0, load(x + i + k, m), m); });
  Part p;
  p.plain = ISA::sum((plain[0] + plain[1]) + (plain[2] + plain[3]));
  p.high = highest(max(max(high[0], high[1]), max(high[2], high[3])));
  const V base = set(p.high == -__builtin_inff() ? 0.0f : p.high), floor = set(-200.0f);
  V sum[N] = {zero(), zero(), zero(), zero()}, weighted = zero();
  auto add = [&](int v, V d, auto m) {
    const V e = mask_in(exp(d), zero(), m);
    sum[v] = sum[v] + e;
    if (entropy) weighted = fma(e, max(floor, d), weighted);  // -inf counts 0, NaN stays
  };
  for (i = 0; i + N * V::W <= n; i += N * V::W)
    for (int v = 0; v < N; ++v) add(v, load(x + i + v * V::W) - base, All{});
  lanes(n - i, [&](int64_t k, auto m) { add(0, load(x + i + k, m) - base, m); });
  p.sum = ISA::sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  p.weighted = ISA::sum(weighted);
  return p;
}

void join(Part& total, const Part& p) {
  const double plain = total.plain + p.plain;
  if (!(p.high <= total.high)) {
    const double shift = static_cast<double>(total.high) - p.high, s = std::exp(shift);
    if (total.high > -__builtin_inff()) total.weighted += shift * total.sum;
    total = {p.high, total.sum * s + p.sum, total.weighted * s + p.weighted, 0};
  } else if (p.high > -__builtin_inff()) {
    const double shift = static_cast<double>(p.high) - total.high, s = std::exp(shift);
    total.sum += s * p.sum;
    total.weighted += s * (p.weighted + shift * p.sum);
  } else {
    total.sum += p.sum;
    total.weighted += p.weighted;
  }
  total.plain = plain;
}

struct RowOutputs {
  float *logp, *lse, *entropy, *hit, *mean;  // any may be null
  int64_t columns;

  void write(int64_t row, bool scored, float logit, const Part& total) const {
    const double log_sum = std::log(total.sum);
    if (lse) lse[row] = static_cast<float>(total.high + log_sum);
    if (logp) logp[row] = scored ? static_cast<float>(static_cast<double>(logit) - total.high - log_sum) : 0.0f;
    if (entropy) entropy[row] = scored ? static_cast<float>(log_sum - total.weighted / total.sum) : 0.0f;
    if (hit) hit[row] = scored && logit >= total.high ? 1.0f : 0.0f;
    if (mean) mean[row] = scored ? static_cast<float>(total.plain / static_cast<double>(columns)) : 0.0f;
  }
};

}  // namespace
}  // namespace attune::cpu::ISA
