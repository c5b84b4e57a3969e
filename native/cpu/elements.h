// Scalar access to elements of any dtype: conversions with one rounding, and a switch from a Tensor's dtype to a C++
// type.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../runtime/tensor.h"

namespace attune::cpu {

inline float to_f32(float x) { return x; }
inline float to_f32(bf16 x) {
  const uint32_t u = uint32_t(x.bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

template <class T>
T from_f32(float x);
template <>
inline float from_f32<float>(float x) {
  return x;
}
// Round to nearest, ties to even; a NaN stays a NaN (its quiet bit is set), infinity stays infinity.
template <>
inline bf16 from_f32<bf16>(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {uint16_t((u >> 16) | 0x40u)};
  return {uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

// To an integer as C would truncate it, but defined everywhere: NaN gives 0, what does not fit saturates.
inline int32_t to_i32(double x) {
  if (!(x == x)) return 0;
  if (x >= 2147483647.0) return INT32_MAX;
  if (x <= -2147483648.0) return INT32_MIN;
  return int32_t(x);
}

// Calls f with a value of the element type: `with_float(t.dtype, [&](auto e) { using T = decltype(e); ... })`.
template <class F>
void with_float(DType t, F&& f) {
  if (t == DType::bf16)
    f(bf16{});
  else
    f(float{});
}

}  // namespace attune::cpu
