// rope_table: cos and sin of pos[n] * freq[c], formed and evaluated in double and rounded once to f32.
// source: lib/ops/rope_table.ts; RoFormer (arXiv:2104.09864) eq. 34, frequencies as given by the model (any rope
// scaling).
#include <algorithm>
#include <cmath>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"

namespace attune::cpu {

void rope_table(const RopeTable& a, Context& c) {
  constexpr int64_t kRows = 32;
  const int64_t n = a.pos.size(), half = a.freq.size;
  const int32_t* pos = a.pos.as<int32_t>();
  float* cosines = a.cos.as<float>();
  float* sines = a.sin.as<float>();
  c.parallel((n + kRows - 1) / kRows, [&](int64_t task, int) {
    const int64_t end = std::min(n, (task + 1) * kRows);
    for (int64_t i = task * kRows; i < end; ++i) {
      for (int64_t d = 0; d < half; ++d) {
        const double angle = double(pos[i]) * a.freq.data[d];
        if (cosines) cosines[i * half + d] = float(std::cos(angle));
        if (sines) sines[i * half + d] = float(std::sin(angle));
      }
    }
  });
}

}  // namespace attune::cpu
