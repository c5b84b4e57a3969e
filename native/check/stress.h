// What the larger checks share: tensors on the device, a runner of one op, and how far a result may be off.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../cuda/kernels.h"
#include "gpu.h"

namespace attune {

using Values = std::vector<double>;

inline void must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("FAIL  %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

inline uint16_t to_bf16(double x) {
  const float single = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &single, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline double from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, 4);
  return x;
}

// A tensor on the device.
struct Device {
  Tensor tensor;

  Device(DType dtype, std::vector<int64_t> shape) {
    tensor.dtype = dtype;
    tensor.rank = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), tensor.shape);
    must(cudaMalloc(&tensor.data, static_cast<size_t>(std::max<int64_t>(tensor.bytes(), 64))), "allocation");
    must(cudaMemset(tensor.data, 0xFF, static_cast<size_t>(tensor.bytes())), "fill");
  }
  ~Device() { cudaFree(tensor.data); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // Writes the values, and rounds them to what was written.
  void write(Values& values) const {
    std::vector<uint8_t> bytes(static_cast<size_t>(tensor.bytes()));
    for (size_t i = 0; i < values.size(); ++i) {
      if (tensor.dtype == DType::bf16) {
        const uint16_t bits = to_bf16(values[i]);
        std::memcpy(&bytes[2 * i], &bits, 2);
        values[i] = from_bf16(bits);
      } else if (tensor.dtype == DType::f32) {
        const float x = static_cast<float>(values[i]);
        std::memcpy(&bytes[4 * i], &x, 4);
        values[i] = x;
      } else {
        const auto x = static_cast<int32_t>(values[i]);
        std::memcpy(&bytes[4 * i], &x, 4);
      }
    }
    must(cudaMemcpy(tensor.data, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "copy");
  }
  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> out(static_cast<size_t>(tensor.bytes()));
    must(cudaMemcpy(out.data(), tensor.data, out.size(), cudaMemcpyDeviceToHost), "copy");
    return out;
  }
  Values read() const {
    const std::vector<uint8_t> raw = bytes();
    Values values(static_cast<size_t>(tensor.size()));
    for (size_t i = 0; i < values.size(); ++i) {
      if (tensor.dtype == DType::bf16) {
        uint16_t bits;
        std::memcpy(&bits, &raw[2 * i], 2);
        values[i] = from_bf16(bits);
      } else {
        float x;
        std::memcpy(&x, &raw[4 * i], 4);
        values[i] = x;
      }
    }
    return values;
  }
};

inline Values normal(size_t count, double scale, std::mt19937& random) {
  std::normal_distribution<double> draw(0, scale);
  Values values(count);
  for (double& v : values) v = draw(random);
  return values;
}

inline double typical(const double* values, size_t count) {
  double squares = 0;
  size_t finite = 0;
  for (size_t i = 0; i < count; ++i)
    if (std::isfinite(values[i])) squares += values[i] * values[i], ++finite;
  return finite ? std::sqrt(squares / static_cast<double>(finite)) : 0;
}

// An element may be off by so much of itself and of what is typical of its row or of all: sums of rounded numbers err by their parts.
inline std::string compare(const char* what, const Values& got, const Values& want, size_t row, double relative) {
  const double everywhere = std::max(1e-4, typical(want.data(), want.size()));
  for (size_t i = 0; i < want.size(); ++i) {
    const double here = std::max(everywhere, typical(&want[i / row * row], row));
    const bool good = std::isfinite(want[i]) ? std::abs(got[i] - want[i]) <= relative * (std::abs(want[i]) + here)
                                             : got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]));
    if (good) continue;
    char text[160];
    std::snprintf(text, sizeof text, "%s [%zu of %zu]: expected %.6g, got %.6g; a typical value is %.3g", what, i, want.size(), want[i], got[i],
                  here);
    return text;
  }
  return "";
}

class Runner {
 public:
  template <class Op> std::string run(const Op& op, void (*queue)(const Op&, cuda::Stream&), int64_t (*scratch)(const Op&)) {
    void* extra = nullptr;
    const int64_t bytes = std::max<int64_t>(scratch(op), 256);
    must(cudaMalloc(&extra, static_cast<size_t>(bytes)), "scratch");
    must(cudaMemset(extra, 0xFF, static_cast<size_t>(bytes)), "scratch");
    cuda::Stream stream(stream_, device_);
    stream.use_scratch(extra);
    queue(op, stream);
    std::string why = stream.failure();
    if (const cudaError_t error = cudaStreamSynchronize(stream_); error != cudaSuccess && why.empty()) why = cudaGetErrorString(error);
    cudaFree(extra);
    return why;
  }
  const cuda::Properties& device() const { return device_; }
  // Results whose bits are to be told: FNV-1a of what was noted since it was last asked.
  void note(const std::vector<uint8_t>& bytes) {
    for (uint8_t byte : bytes) hash_ = (hash_ ^ byte) * 16777619u;
  }
  uint32_t noted() {
    const uint32_t hash = hash_;
    hash_ = kEmptyHash;
    return hash;
  }

 private:
  static constexpr uint32_t kEmptyHash = 2166136261u;
  cuda::Properties device_;
  cudaStream_t stream_ = open_gpu(&device_);
  uint32_t hash_ = kEmptyHash;
};

}  // namespace attune
