// One small kernel for each instruction of native/cuda/common/ptx.h, its expected output worked out here from the PTX manual: what the
// emulator and a GPU must both say. A probe returns nothing when it agrees, else what differs first.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "../cuda/common/launch.h"

namespace attune::probes {

struct Probe {
  const char* name;
  int capability;  // 80 or 90
  std::string (*run)(cuda::Stream&);
};
const std::vector<Probe>& portable_probes();
const std::vector<Probe>& hopper_probes();

// Device memory that holds `values`, freed at the end of its scope.
template <class T> class Buffer {
 public:
  explicit Buffer(const std::vector<T>& values) : size_(values.size()) {
    cudaMalloc(&data_, bytes());
    cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice);
  }
  Buffer(size_t size, T value) : Buffer(std::vector<T>(size, value)) {}
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() const { return static_cast<T*>(data_); }
  size_t bytes() const { return size_ * sizeof(T); }
  // After all that was queued on the stream.
  std::vector<T> read(cuda::Stream& stream) const {
    std::vector<T> values(size_);
    const cudaError_t error = cudaStreamSynchronize(stream.handle());
    if (error != cudaSuccess) stream.fail(cudaGetErrorString(error));
    cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost);
    return values;
  }

 private:
  void* data_ = nullptr;
  size_t size_;
};

template <class T> std::string differ(const std::vector<T>& got, const std::vector<T>& expected, const char* what) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (got[i] == expected[i] || (got[i] != got[i] && expected[i] != expected[i])) continue;
    return std::string(what) + " [" + std::to_string(i) + "]: expected " + std::to_string(expected[i]) + ", got " +
           std::to_string(got[i]);
  }
  return "";
}

// Small integers, exact in bf16 and in fp32 sums; another sequence for each seed.
inline int small_integer(uint32_t index, uint32_t seed) {
  uint32_t x = (index + 1) * 0x9E3779B9u ^ seed * 0x85EBCA6Bu;
  x ^= x >> 15;
  x *= 0x2C1B3C6Du;
  x ^= x >> 13;
  return static_cast<int>(x % 9) - 4;
}
// The bf16 of a number that it holds exactly.
inline uint16_t bf16_of(float exact) {
  uint32_t bits;
  static_assert(sizeof bits == sizeof exact);
  __builtin_memcpy(&bits, &exact, 4);
  return static_cast<uint16_t>(bits >> 16);
}

}  // namespace attune::probes
