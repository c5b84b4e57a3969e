// Elements of a float dtype: widened to fp32, rounded once on the way back, moved in vectors.
//   typed(tensor, [&]<class T>(T* x) { ... })           on the host: T is float or __nv_bfloat16, the tensor's dtype
//   by_width(columns, [&]<int N>(Access<N>) { ... })    on the host: N is the number of elements that rows of `columns` move at once
//   const auto v = load<N>(x + i);  float a = v[k];     on the device: N elements as they lie in memory; i is a multiple of N
//   float out[N];  store(y + i, out);                   rounds to nearest, ties to even; NaN stays NaN
// Tensors start on 64 bytes, so rows of a multiple of kWide elements move by kWide: of bf16 in one 16-byte access, of fp32 in two.
// Other rows take the same kernel with vectors of one element.
#pragma once
#include <cstring>

#include "prelude.h"

namespace attune::cuda {

constexpr int kWide = 8;

template <class F> void typed(const Tensor& t, F&& f) {
  if (t.dtype == DType::bf16)
    f(static_cast<__nv_bfloat16*>(t.data));
  else
    f(static_cast<float*>(t.data));
}

template <int N> struct Access {};

template <class F> void by_width(int64_t columns, F&& f) {
  if (columns % kWide == 0)
    f(Access<kWide>{});
  else
    f(Access<1>{});
}

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline void put(float* p, float x) { *p = x; }
__device__ inline void put(__nv_bfloat16* p, float x) { *p = __float2bfloat16(x); }

// Two elements in 32 bits. The compiler joins neither stores nor conversions that are written one element at a time.
__device__ inline uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// N elements of T, not yet widened: what a kernel that waits for other loads keeps in registers.
template <class T, int N> struct Vector {
  static constexpr int kWords = N * static_cast<int>(sizeof(T)) / 4;
  static_assert(kWords % 4 == 0 || kWords == 2, "whole accesses of 16 bytes, or one of 8");
  uint32_t words[kWords];

  __device__ float operator[](int i) const {
    if constexpr (sizeof(T) == 4) return __uint_as_float(words[i]);
    return __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
  }
};
template <class T> struct Vector<T, 1> {
  T element;
  __device__ float operator[](int) const { return widen(element); }
};

template <int N, class T> __device__ inline Vector<T, N> load(const T* p) {
  Vector<T, N> v;
  if constexpr (N == 1) {
    v.element = *p;
  } else if constexpr (v.kWords == 2) {
    const uint2 two = *reinterpret_cast<const uint2*>(p);
    v.words[0] = two.x;
    v.words[1] = two.y;
  } else {
#pragma unroll
    for (int i = 0; i < v.kWords; i += 4) {
      const uint4 four = reinterpret_cast<const uint4*>(p)[i / 4];
      v.words[i] = four.x;
      v.words[i + 1] = four.y;
      v.words[i + 2] = four.z;
      v.words[i + 3] = four.w;
    }
  }
  return v;
}

// __stwb is a plain store that stays one access.
template <int N> __device__ inline void store(float* p, const float (&x)[N]) {
  if constexpr (N == 1) {
    put(p, x[0]);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) __stwb(reinterpret_cast<float4*>(p + i), make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]));
  }
}
template <int N> __device__ inline void store(__nv_bfloat16* p, const float (&x)[N]) {
  if constexpr (N == 1) {
    put(p, x[0]);
  } else if constexpr (N == 4) {
    __stwb(reinterpret_cast<uint2*>(p), make_uint2(pack(x[0], x[1]), pack(x[2], x[3])));
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 8)
      __stwb(reinterpret_cast<uint4*>(p + i),
             make_uint4(pack(x[i], x[i + 1]), pack(x[i + 2], x[i + 3]), pack(x[i + 4], x[i + 5]), pack(x[i + 6], x[i + 7])));
  }
}

}  // namespace attune::cuda
