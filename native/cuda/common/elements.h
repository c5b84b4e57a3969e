// Elements of a float dtype: widened to fp32, rounded once on the way back, moved in vectors.
//   typed(tensor, [&]<class T>(T* x) { ... })           on the host: T is float or __nv_bfloat16, the tensor's dtype
//   by_width(columns, [&]<int N>(Access<N>) { ... })    on the host: N is the number of elements that rows of `columns` move at once
//   const auto v = load<N>(x + i);  float a = v[k];     on the device: N elements as they lie in memory; i is a multiple of N
//   float out[N];  store(y + i, out);                   rounds to nearest, ties to even; NaN stays NaN
// Tensors start on 64 bytes, so rows of a multiple of kWide elements move by kWide: of bf16 in one 16-byte access, of fp32 in two.
// Other rows take the same kernel with vectors of one element.
#pragma once
#include "prelude.h"
#include "ptx.h"

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

// p lies in global memory.
template <int N> __device__ inline void store(float* p, const float (&x)[N]) {
  if constexpr (N == 1) {
    put(p, x[0]);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4)
      ptx::store_global(p + i, make_uint4(__float_as_uint(x[i]), __float_as_uint(x[i + 1]), __float_as_uint(x[i + 2]),
                                          __float_as_uint(x[i + 3])));
  }
}
template <int N> __device__ inline void store(__nv_bfloat16* p, const float (&x)[N]) {
  using ptx::pack_bf16;
  if constexpr (N == 1) {
    put(p, x[0]);
  } else if constexpr (N == 4) {
    ptx::store_global(p, make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3])));
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 8)
      ptx::store_global(p + i, make_uint4(pack_bf16(x[i], x[i + 1]), pack_bf16(x[i + 2], x[i + 3]), pack_bf16(x[i + 4], x[i + 5]),
                                          pack_bf16(x[i + 6], x[i + 7])));
  }
}

}  // namespace attune::cuda
