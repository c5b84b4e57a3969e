// See include/nvtx3/nvToolsExt.h.
#include <cstdio>
#include <cstdlib>

#include "include/nvtx3/nvToolsExt.h"

namespace {
thread_local int open_ranges = 0;
}  // namespace

int nvtxRangePushA(const char* text) {
  static const bool told = std::getenv("ATTUNE_SIMT_RANGES") != nullptr;
  if (told) std::fprintf(stderr, "simt: range %s\n", text);
  return open_ranges++;
}
int nvtxRangePop() { return open_ranges == 0 ? -2 : --open_ranges; }
