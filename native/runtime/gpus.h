// What `attune doctor` asks of a build's CUDA side: the driver, the GPUs, the library for matrix products. Never fails: it says why not.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace attune {

struct Gpu {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int64_t memory = 0, free = 0;  // bytes
  std::string why;  // it cannot be used; empty where it can
};

struct Gpus {
  int driver = 0, runtime = 0;  // versions as CUDA writes them, 13000 is 13.0; driver 0: there is none
  std::vector<Gpu> found;
  std::string why;        // there is no GPU to use; empty where there is one
  std::string products;   // cuBLASLt and its version, or why not
};

#ifdef ATTUNE_DEVICE
Gpus find_gpus();  // native/cuda/doctor.cc
#endif

}  // namespace attune
