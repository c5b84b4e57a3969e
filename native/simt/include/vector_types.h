// CUDA's small vectors and dim3, aligned as CUDA aligns them.
#pragma once
#include <cstdint>

// X(name, element): NAME2, NAME3 and NAME4 with their make_ functions.
#define SIMT_VECTORS(X)                                                                                                    \
  X(char, signed char)                                                                                                     \
  X(uchar, unsigned char) X(short, short) X(ushort, unsigned short) X(int, int) X(uint, unsigned) X(longlong, long long)   \
      X(ulonglong, unsigned long long) X(float, float) X(double, double)

#define X(name, T)                                                                                                         \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                                                       \
  struct name##3 { T x, y, z; };                                                                                           \
  struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; };                                            \
  constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }                                                            \
  constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                                    \
  constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTORS(X)
#undef X
#undef SIMT_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
