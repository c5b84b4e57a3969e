// See ../runtime/gpus.h. Memory is asked of the first GPU alone, the one that sessions use: asking makes a context on it.
#include "../runtime/gpus.h"

#include <cuda_runtime.h>

#include "common/cublaslt.h"
#include "common/open.h"

namespace attune {

Gpus find_gpus() {
  Gpus all;
  if (cudaDriverGetVersion(&all.driver) != cudaSuccess) all.driver = 0;
  if (cudaRuntimeGetVersion(&all.runtime) != cudaSuccess) all.runtime = 0;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    Gpu gpu{p.name, p.major, p.minor, static_cast<int64_t>(p.totalGlobalMem), 0, ""};
    if (i > 0) gpu.why = "the first one is used (CUDA_VISIBLE_DEVICES chooses it)";
    all.found.push_back(gpu);
  }
  cuda::Properties first;
  all.why = cuda::open(0, &first);
  if (!all.why.empty() && !all.found.empty()) all.found[0].why = all.why;
  size_t free = 0, total = 0;
  if (all.why.empty() && !all.found.empty() && cudaMemGetInfo(&free, &total) == cudaSuccess) all.found[0].free = static_cast<int64_t>(free);
  all.products = cuda::cublaslt_name();
  cudaGetLastError();  // nothing is left for the next one to find
  return all;
}

}  // namespace attune
