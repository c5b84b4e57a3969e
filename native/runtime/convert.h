// Element types of files and buffers, and conversion between them. Rounding is to nearest, ties to even; NaN stays NaN.
#pragma once
#include <cstdint>
#include <cstring>

#include "tensor.h"

namespace attune {

enum class FileType : uint32_t { f32 = 0, bf16 = 1, i32 = 2, f16 = 3 };

constexpr int64_t width(FileType t) { return t == FileType::bf16 || t == FileType::f16 ? 2 : 4; }

inline float bits_float(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline uint32_t float_bits(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}

inline float bf16_to_float(uint16_t h) { return bits_float(static_cast<uint32_t>(h) << 16); }
inline uint16_t float_to_bf16(float f) {
  const uint32_t u = float_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);  // NaN, made quiet
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float f16_to_float(uint16_t h);
uint16_t float_to_f16(float f);

// `count` elements from a file's type to a buffer's, and back. int32 converts to itself alone; false for any other pair.
bool from_file(FileType file, const void* from, DType dtype, void* to, int64_t count);
bool to_file(DType dtype, const void* from, FileType file, void* to, int64_t count);
bool convertible(FileType file, DType dtype);

}  // namespace attune
