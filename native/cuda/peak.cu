// What this GPU reaches at most, measured now: products of 8192 (bf16) and 4096 (fp32) on normal numbers by the gemm that runs use,
// and a copy from device memory to device memory. Random data matters: zeros switch fewer transistors and run faster.
#include "peak.h"

#include <algorithm>
#include <vector>

#include "common/elements.h"
#include "common/grid.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kRuns = 10;
constexpr int64_t kHalfSide = 8192, kFullSide = 4096, kCopied = int64_t{2} << 30;

// Numbers with the spread of normal ones: sums of four uniform numbers from a hash of the place.
template <class T> __global__ void fill_normal(T* x, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  uint32_t h = static_cast<uint32_t>(i) * 2654435761u;
  float sum = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    h = (h ^ (h >> 15)) * 2246822519u + 0x9e3779b9u;
    sum += static_cast<float>(h >> 8) * (1.0f / 16777216.0f) - 0.5f;
  }
  put(x + i, sum * 1.7320508f);
}

// Median milliseconds of what `queue` queues.
template <class F> double median(Stream& s, F&& queue) {
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<float> times;
  for (int i = 0; i < kRuns + 3; ++i) {
    cudaEventRecord(begin, s.handle());
    queue();
    cudaEventRecord(end, s.handle());
    if (cudaEventSynchronize(end) != cudaSuccess) break;
    float t = 0;
    cudaEventElapsedTime(&t, begin, end);
    if (i >= 3) times.push_back(t);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return times.empty() ? 0 : static_cast<double>(times[times.size() / 2]);
}

template <class T> double product_rate(Stream& s, uint8_t* memory, DType dtype, int64_t side) {
  Gemm g{};
  g.tb = 1;
  const int64_t bytes = side * side * static_cast<int64_t>(sizeof(T));
  for (Tensor* t : {&g.a, &g.b, &g.y}) {
    t->data = memory;
    t->dtype = dtype;
    t->rank = 2;
    t->shape[0] = t->shape[1] = side;
    const int64_t n = side * side;
    s.launch("fill_normal", fill_normal<T>, dim3(static_cast<unsigned>(ceil_div(n, 256))), dim3(256), 0, static_cast<T*>(t->data), n);
    memory += bytes;
  }
  s.use_scratch(memory);
  const double ms = median(s, [&] { gemm(g, s); });
  const double n = static_cast<double>(side);
  return ms > 0 && s.ok() ? 2e3 * n * n * n / ms : 0;
}

}  // namespace

Peak measure_peak(Stream& s) {
  Peak peak;
  void* memory = nullptr;
  if (cudaMalloc(&memory, 2 * static_cast<size_t>(kCopied)) != cudaSuccess) {
    cudaGetLastError();
    return peak;
  }
  uint8_t* bytes = static_cast<uint8_t*>(memory);
  peak.bfloat16 = product_rate<__nv_bfloat16>(s, bytes, DType::bf16, kHalfSide);
  peak.float32 = product_rate<float>(s, bytes, DType::f32, kFullSide);
  const double ms = median(s, [&] { cudaMemcpyAsync(bytes, bytes + kCopied, static_cast<size_t>(kCopied), cudaMemcpyDeviceToDevice, s.handle()); });
  peak.copy = ms > 0 ? 2e3 * static_cast<double>(kCopied) / ms : 0;
  cudaFree(memory);
  return peak;
}

}  // namespace attune::cuda
