// Ranges of NVTX, which Nsight Systems shows and puts kernels under. The header alone: it loads nothing unless a profiler asks.
#pragma once
#include <string>

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define ATTUNE_NVTX 1
#endif

namespace attune::cuda {

#ifdef ATTUNE_NVTX
constexpr bool kRanges = true;
#else
constexpr bool kRanges = false;  // CUDA was installed without them
#endif

// From here to the end of the scope, where it is wanted, what this thread launches is `op name`.
class Range {
 public:
  Range([[maybe_unused]] bool wanted, [[maybe_unused]] const char* op, [[maybe_unused]] const char* name) {
#ifdef ATTUNE_NVTX
    if (!wanted) return;
    nvtxRangePushA((std::string(op) + " " + name).c_str());
    open_ = true;
#endif
  }
  ~Range() {
#ifdef ATTUNE_NVTX
    if (open_) nvtxRangePop();
#endif
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  [[maybe_unused]] bool open_ = false;
};

}  // namespace attune::cuda
