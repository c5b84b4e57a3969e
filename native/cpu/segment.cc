// segment_sum: y[p] = sum of x[m] over seg[m] == p; segment_gather: y[m] = x[seg[m]], 0 for none. Each is the other's
// backward. source: lib/ops/segment_sum.ts. Sums run in double over ascending m, whatever the number of threads.
#include <algorithm>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"

namespace attune::cpu {

void segment_sum(const SegmentSum& a, Context& c) {
  const int64_t m = std::min(a.x.size(), a.seg.size()), p = a.y.size();
  const float* x = a.x.as<float>();
  const int32_t* seg = a.seg.as<int32_t>();
  float* y = a.y.as<float>();
  // Accumulators live in the caller's own scratch: as many segments at a time as fit.
  double* sums = static_cast<double*>(c.thread_scratch(0));
  constexpr int64_t kFit = Context::kThreadScratch / int64_t(sizeof(double));
  for (int64_t first = 0; first < p; first += kFit) {
    const int64_t count = std::min(kFit, p - first);
    std::fill_n(sums, count, 0.0);
    for (int64_t i = 0; i < m; ++i) {
      const int64_t s = int64_t(seg[i]) - first;
      if (s >= 0 && s < count) sums[s] += double(x[i]);
    }
    for (int64_t s = 0; s < count; ++s) y[first + s] = float(sums[s]);
  }
}

void segment_gather(const SegmentGather& a, Context&) {
  const int64_t m = a.seg.size(), p = a.x.size();
  const float* x = a.x.as<float>();
  const int32_t* seg = a.seg.as<int32_t>();
  float* y = a.y.as<float>();
  for (int64_t i = 0; i < m; ++i) y[i] = seg[i] >= 0 && seg[i] < p ? x[seg[i]] : 0.0f;
}

}  // namespace attune::cpu
