// See open.h.
#include "open.h"

namespace attune::cuda {

namespace {
std::string said(const char* what, cudaError_t error) { return std::string(what) + ": " + cudaGetErrorString(error); }
}  // namespace

std::string look(int index, Properties* out) {
  int count = 0;
  if (cudaError_t e = cudaGetDeviceCount(&count); e != cudaSuccess)
    return said("no NVIDIA driver that CUDA 13 can use (580 or newer)", e);
  if (index >= count) return "there is no CUDA device " + std::to_string(index) + " (" + std::to_string(count) + " found)";
  int shared = 0;
  const struct {
    int* to;
    cudaDeviceAttr what;
  } wanted[] = {{&out->major, cudaDevAttrComputeCapabilityMajor},
                {&out->minor, cudaDevAttrComputeCapabilityMinor},
                {&out->sms, cudaDevAttrMultiProcessorCount},
                {&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin}};
  for (const auto& w : wanted)
    if (cudaError_t e = cudaDeviceGetAttribute(w.to, w.what, index); e != cudaSuccess) return said("the device does not answer", e);
  out->shared = shared;
  if (out->major < 8)
    return "compute capability 8.0 or newer is needed (Ampere), got " + std::to_string(out->major) + "." + std::to_string(out->minor);
  return "";
}

std::string open(int index, Properties* out) {
  if (std::string why = look(index, out); !why.empty()) return why;
  const cudaError_t e = cudaSetDevice(index);
  return e == cudaSuccess ? "" : said("the device can't be opened", e);
}

}  // namespace attune::cuda
