// Matrix products by cuBLASLt, NVIDIA's library, found at run time: nothing is linked, and a box without it uses gemm.cu's kernels.
#pragma once
#include <string>

#include "../../runtime/ops.gen.h"
#include "launch.h"

namespace attune::cuda {

// What a product may use of planned scratch; 0 where the library is not there.
int64_t cublaslt_workspace();

// Queues the product and returns true; false where the library is missing or has no deterministic algorithm for it.
bool cublaslt_gemm(const Gemm& g, Stream& stream);

// The library and its version, such as "cuBLASLt 13.1.0 (libcublasLt.so.13)", or why there is none and what would mend it.
const std::string& cublaslt_name();

}  // namespace attune::cuda
