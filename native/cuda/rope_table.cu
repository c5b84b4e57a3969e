// rope_table: cos and sin (N, D/2) of pos[n] freq[i], formed and evaluated in float64 and rounded once to fp32.
// source: lib/ops/rope.ts; RoFormer (arXiv:2104.09864) eq. 34, frequencies as given by the model (any rope scaling).
// tiling: a thread an element. The frequencies live on the host, so they travel with the launch, kColumns at a time.
// budget: 2 KB of kernel parameters; a float64 sine and cosine an element, once a step. limits: none. measured: not yet.
#include "common/grid.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int64_t kColumns = 256;
constexpr int kThreads = 128;

struct Frequencies {
  double of[kColumns];
};

// Columns [first, first + count) of tables that are `half` wide.
__global__ void __launch_bounds__(kThreads)
    rope_angles(const int32_t* pos, const __grid_constant__ Frequencies freq, float* cosines, float* sines, int64_t rows,
                int64_t half, int64_t first, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x, row = i / count, column = i % count;
  if (row >= rows) return;
  double sine, cosine;
  ::sincos(static_cast<double>(pos[row]) * freq.of[column], &sine, &cosine);
  const int64_t at = row * half + first + column;
  if (cosines) cosines[at] = static_cast<float>(cosine);
  if (sines) sines[at] = static_cast<float>(sine);
}

}  // namespace

void rope_table(const RopeTable& a, Stream& stream) {
  const int64_t rows = a.pos.size(), half = a.freq.size;
  for (int64_t first = 0; first < half; first += kColumns) {
    const int64_t count = std::min(kColumns, half - first);
    Frequencies freq = {};
    std::copy_n(a.freq.data + first, count, freq.of);
    stream.launch("rope_table", rope_angles, grid_of(stream, "rope_table", ceil_div(rows * count, kThreads)), kThreads, 0,
                  a.pos.as<int32_t>(), freq, a.cos.as<float>(), a.sin.as<float>(), rows, half, first, count);
  }
}

}  // namespace attune::cuda
