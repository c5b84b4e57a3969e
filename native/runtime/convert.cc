// float16 by hand (no instruction set assumed) and loops over whole buffers. See convert.h.
#include "convert.h"

namespace attune {

float f16_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31u;
  const uint32_t mantissa = h & 0x3ffu;
  if (exponent == 31) return bits_float(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
  // Zero or subnormal: mantissa units of 2^-24, exact in float.
  const float value = static_cast<float>(mantissa) * bits_float(0x33800000u);
  return bits_float(sign | float_bits(value));
}

uint16_t float_to_f16(float f) {
  const uint32_t u = float_bits(f);
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x1ffu));
  if (a >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and above round to infinity
  if (a < 0x38800000u) {
    // Below 2^-14: adding 0.5 makes the float's own rounding that of units of 2^-24.
    const float shifted = bits_float(a) + 0.5f;
    return static_cast<uint16_t>(sign | (float_bits(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = a + 0xfffu + ((a >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

bool convertible(FileType file, DType dtype) { return (file == FileType::i32) == (dtype == DType::i32); }

namespace {

template <class From, class To, class F> void each(const void* from, void* to, int64_t count, F convert) {
  const From* x = static_cast<const From*>(from);
  To* y = static_cast<To*>(to);
  for (int64_t i = 0; i < count; ++i) y[i] = convert(x[i]);
}

// A float file type and a float dtype with the same bits.
bool alike(FileType file, DType dtype) { return static_cast<uint32_t>(file) == static_cast<uint32_t>(dtype); }

}  // namespace

bool from_file(FileType file, const void* from, DType dtype, void* to, int64_t count) {
  if (!convertible(file, dtype)) return false;
  if (alike(file, dtype)) {
    std::memcpy(to, from, static_cast<size_t>(count * width(dtype)));
  } else if (file == FileType::bf16) {
    each<uint16_t, float>(from, to, count, bf16_to_float);
  } else if (file == FileType::f16 && dtype == DType::f32) {
    each<uint16_t, float>(from, to, count, f16_to_float);
  } else if (file == FileType::f16) {
    each<uint16_t, uint16_t>(from, to, count, [](uint16_t h) { return float_to_bf16(f16_to_float(h)); });
  } else {
    each<float, uint16_t>(from, to, count, float_to_bf16);
  }
  return true;
}

bool to_file(DType dtype, const void* from, FileType file, void* to, int64_t count) {
  if (!convertible(file, dtype)) return false;
  if (alike(file, dtype)) {
    std::memcpy(to, from, static_cast<size_t>(count * width(dtype)));
  } else if (file == FileType::f32) {
    each<uint16_t, float>(from, to, count, bf16_to_float);
  } else if (file == FileType::f16 && dtype == DType::f32) {
    each<float, uint16_t>(from, to, count, float_to_f16);
  } else if (file == FileType::f16) {
    each<uint16_t, uint16_t>(from, to, count, [](uint16_t h) { return float_to_f16(bf16_to_float(h)); });
  } else {
    each<float, uint16_t>(from, to, count, float_to_bf16);
  }
  return true;
}

}  // namespace attune
