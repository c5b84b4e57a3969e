// The GPU of a check that runs ops by itself.
#pragma once
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "../cuda/common/open.h"

namespace attune {

// Opens it and makes a stream that waits for the default one: an upload by cudaMemcpy ends there, after its call has returned. Ends the process
// where there is no GPU.
inline cudaStream_t open_gpu(cuda::Properties* out) {
  std::string why = cuda::open(0, out);
  cudaStream_t stream = nullptr;
  if (why.empty())
    if (const cudaError_t e = cudaStreamCreate(&stream); e != cudaSuccess) why = cudaGetErrorString(e);
  if (!why.empty()) {
    std::printf("device: %s\n", why.c_str());
    std::exit(5);
  }
  return stream;
}

}  // namespace attune
