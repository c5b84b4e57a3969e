// A tensor of a check, on the host: its bytes, and ways to make them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "../runtime/tensor.h"

namespace attune {

constexpr DType f32 = DType::f32, bf16_ = DType::bf16, i32 = DType::i32;

using Shape = std::vector<int64_t>;
using Bytes = std::vector<uint8_t>;

struct Value {
  Tensor type;  // data: null
  Bytes bytes;
  bool present = false, output = false;
};

inline double element(const Value& v, int64_t i) {
  if (v.type.dtype == i32) {
    int32_t x;
    std::memcpy(&x, v.bytes.data() + 4 * i, 4);
    return x;
  }
  uint32_t bits = 0;
  if (v.type.dtype == f32) {
    std::memcpy(&bits, v.bytes.data() + 4 * i, 4);
  } else {
    std::memcpy(&bits, v.bytes.data() + 2 * i, 2);
    bits <<= 16;
  }
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline void set(Value& v, int64_t i, double x) {
  uint32_t bits;
  if (v.type.dtype == i32) {
    const int32_t whole = static_cast<int32_t>(x);
    std::memcpy(&bits, &whole, 4);
  } else {
    const float single = static_cast<float>(x);
    std::memcpy(&bits, &single, 4);
  }
  if (v.type.dtype == bf16_) bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const size_t size = static_cast<size_t>(width(v.type.dtype));
  std::memcpy(v.bytes.data() + i * static_cast<int64_t>(size), &bits, size);
}

inline std::mt19937_64 random_bits(1);

template <class F>
Value make(DType dtype, const Shape& shape, F f) {
  Value v;
  v.type.dtype = dtype;
  v.type.rank = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), v.type.shape);
  v.bytes.resize(static_cast<size_t>(v.type.bytes()));
  v.present = true;
  for (int64_t i = 0; i < v.type.size(); ++i) set(v, i, f(i));
  return v;
}
inline Value normal(DType dtype, const Shape& shape) {
  std::normal_distribution<double> draw;
  return make(dtype, shape, [&](int64_t) { return draw(random_bits); });
}
inline Value positive(DType dtype, const Shape& shape) {
  std::uniform_real_distribution<double> draw(0.5, 2);
  return make(dtype, shape, [&](int64_t) { return draw(random_bits); });
}
// Indices below `below`, one in ten none, one in five 0: a long list.
inline Value indices(int64_t count, int64_t below) {
  return make(i32, {count}, [&](int64_t) -> double {
    const uint64_t kind = random_bits() % 10;
    return kind == 0 ? -1 : kind < 3 ? 0 : static_cast<double>(random_bits() % static_cast<uint64_t>(below));
  });
}
inline Value scalar(double x) {
  return make(f32, {}, [&](int64_t) { return x; });
}
inline Value out(DType dtype, const Shape& shape) {
  Value v = make(dtype, shape, [](int64_t) { return 7; });
  v.output = true;
  return v;
}
inline Value none() { return {}; }

}  // namespace attune
