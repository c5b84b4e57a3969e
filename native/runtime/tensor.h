// What a kernel sees of a value: a typed pointer with a shape. Counts are already resolved: `shape` is what is in use
// in this step, never a capacity. Row-major and contiguous, 64-byte aligned at the start.
#pragma once
#include <cstdint>

namespace attune {

enum class DType : uint32_t { f32 = 0, bf16 = 1, i32 = 2 };

constexpr int64_t width(DType t) { return t == DType::bf16 ? 2 : 4; }

struct bf16 {
  uint16_t bits;
};

struct Tensor {
  void* data = nullptr;  // null: an optional input or an unwanted output
  DType dtype = DType::f32;
  int32_t rank = 0;
  int64_t shape[4] = {1, 1, 1, 1};

  explicit operator bool() const { return data != nullptr; }
  int64_t size() const {
    int64_t n = 1;
    for (int32_t i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  int64_t bytes() const { return size() * width(dtype); }
  int64_t rows() const { return rank > 0 ? shape[0] : 1; }          // first axis
  int64_t last() const { return rank > 0 ? shape[rank - 1] : 1; }   // last axis
  template <class T> T* as() const { return static_cast<T*>(data); }
};

// An attribute that is a list of numbers.
struct Doubles {
  const double* data = nullptr;
  int64_t size = 0;
};

}  // namespace attune
