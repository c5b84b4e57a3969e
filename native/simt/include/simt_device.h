// The functions that a kernel may call, under CUDA's names.
#pragma once
#include <assert.h>
#include <math.h>
#include <stdio.h>

#include <cmath>
#include <cstring>

#include "simt.h"

// ---- Warp collectives: every lane of the warp, from one place in the source, with the full mask.

namespace simt {

template <class T> uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "a lane gives at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T> T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// A lane outside its segment, or one that the warp lacks, gives the asking lane's own value.
template <class T> T pick(const Lanes& lanes, int source, bool inside) {
  const bool there = inside && (lanes.present >> (source & 31) & 1);
  return from_bits<T>(lanes.values[there ? source & 31 : lanes.lane]);
}
template <class T, class F> T reduce(const char* op, uint32_t mask, T value, Site site, F combine) {
  const Lanes lanes = exchange(op, mask, to_bits(value), site);
  bool first = true;
  T sum = value;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(lanes.present >> lane & 1)) continue;
    const T given = from_bits<T>(lanes.values[lane]);
    sum = first ? given : combine(sum, given);
    first = false;
  }
  return sum;
}
inline uint32_t ballot(const char* op, uint32_t mask, int predicate, Site site) {
  const Lanes lanes = exchange(op, mask, predicate != 0, site);
  uint32_t bits = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (lanes.present >> lane & 1) bits |= static_cast<uint32_t>(lanes.values[lane]) << lane;
  return bits;
}

}  // namespace simt

#define SIMT_SITE simt::Site site = simt::Site::current()

template <class T> T __shfl_sync(uint32_t mask, T value, int source, int width = 32, SIMT_SITE) {
  const simt::Lanes lanes = simt::exchange("__shfl_sync", mask, simt::to_bits(value), site);
  return simt::pick<T>(lanes, (lanes.lane & ~(width - 1)) | (source & (width - 1)), true);
}
template <class T> T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32, SIMT_SITE) {
  const simt::Lanes lanes = simt::exchange("__shfl_xor_sync", mask, simt::to_bits(value), site);
  const int source = lanes.lane ^ lane_mask;
  return simt::pick<T>(lanes, source, source < (lanes.lane & ~(width - 1)) + width);
}
template <class T> T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  const simt::Lanes lanes = simt::exchange("__shfl_down_sync", mask, simt::to_bits(value), site);
  const int source = lanes.lane + static_cast<int>(delta);
  return simt::pick<T>(lanes, source, source < (lanes.lane & ~(width - 1)) + width);
}
template <class T> T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  const simt::Lanes lanes = simt::exchange("__shfl_up_sync", mask, simt::to_bits(value), site);
  const int source = lanes.lane - static_cast<int>(delta);
  return simt::pick<T>(lanes, source, source >= (lanes.lane & ~(width - 1)));
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, SIMT_SITE) {
  return simt::ballot("__ballot_sync", mask, predicate, site);
}
inline int __any_sync(uint32_t mask, int predicate, SIMT_SITE) { return simt::ballot("__any_sync", mask, predicate, site) != 0; }
inline int __all_sync(uint32_t mask, int predicate, SIMT_SITE) {
  return simt::ballot("__all_sync", mask, !predicate, site) == 0;
}
template <class T> uint32_t __match_any_sync(uint32_t mask, T value, SIMT_SITE) {
  const simt::Lanes lanes = simt::exchange("__match_any_sync", mask, simt::to_bits(value), site);
  uint32_t same = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (lanes.present >> lane & 1) same |= static_cast<uint32_t>(lanes.values[lane] == lanes.values[lanes.lane]) << lane;
  return same;
}
#define SIMT_REDUCE(name, T, expression)                                                                  \
  inline T name(uint32_t mask, T value, SIMT_SITE) {                                                      \
    return simt::reduce(#name, mask, value, site, [](T a, T b) { return static_cast<T>(expression); });   \
  }
SIMT_REDUCE(__reduce_add_sync, unsigned, a + b)
SIMT_REDUCE(__reduce_add_sync, int, static_cast<unsigned>(a) + static_cast<unsigned>(b))
SIMT_REDUCE(__reduce_min_sync, unsigned, b < a ? b : a)
SIMT_REDUCE(__reduce_min_sync, int, b < a ? b : a)
SIMT_REDUCE(__reduce_max_sync, unsigned, a < b ? b : a)
SIMT_REDUCE(__reduce_max_sync, int, a < b ? b : a)
SIMT_REDUCE(__reduce_and_sync, unsigned, a& b)
SIMT_REDUCE(__reduce_or_sync, unsigned, a | b)
SIMT_REDUCE(__reduce_xor_sync, unsigned, a ^ b)
#undef SIMT_REDUCE

inline void __syncwarp(uint32_t mask = 0xFFFFFFFFu, SIMT_SITE) { simt::sync_warp(mask, site); }
inline void __syncthreads(SIMT_SITE) { simt::sync_threads(site); }
inline int __syncthreads_count(int predicate, SIMT_SITE) { return simt::sync_threads_count(predicate != 0, site); }
inline int __syncthreads_or(int predicate, SIMT_SITE) { return simt::sync_threads_count(predicate != 0, site) != 0; }
inline int __syncthreads_and(int predicate, SIMT_SITE) { return simt::sync_threads_count(predicate == 0, site) == 0; }
#undef SIMT_SITE

[[noreturn]] inline void __trap() { simt::fault("__trap"); }

// Sums would come in the order of arrival: the same step would not give the same bits twice.
#define SIMT_REFUSED(name) template <class... A> void name(A...) = delete
SIMT_REFUSED(atomicAdd);
SIMT_REFUSED(atomicSub);
SIMT_REFUSED(atomicMin);
SIMT_REFUSED(atomicMax);
SIMT_REFUSED(atomicAnd);
SIMT_REFUSED(atomicOr);
SIMT_REFUSED(atomicXor);
SIMT_REFUSED(atomicExch);
SIMT_REFUSED(atomicCAS);
SIMT_REFUSED(__threadfence);
SIMT_REFUSED(__activemask);
#undef SIMT_REFUSED

// ---- Memory with a cache hint: plain memory here.

#define SIMT_LOAD(name) \
  template <class T> T name(const T* from) { return *from; }
#define SIMT_STORE(name) \
  template <class T> void name(T* to, T value) { *to = value; }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)
#undef SIMT_LOAD
#undef SIMT_STORE

// ---- Arithmetic

#define SIMT_MINMAX(T)                                     \
  constexpr T min(T a, T b) { return b < a ? b : a; }      \
  constexpr T max(T a, T b) { return a < b ? b : a; }
SIMT_MINMAX(int)
SIMT_MINMAX(unsigned)
SIMT_MINMAX(long)
SIMT_MINMAX(unsigned long)
SIMT_MINMAX(long long)
SIMT_MINMAX(unsigned long long)
#undef SIMT_MINMAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// The approximate functions; the C library declares some of their names for itself.
#define __expf expf
#define __exp10f(x) powf(10.f, x)
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __powf powf
#define __sincosf sincosf
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline double rsqrt(double x) { return 1. / sqrt(x); }
inline float __frsqrt_rn(float x) { return static_cast<float>(1. / sqrt(static_cast<double>(x))); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __saturatef(float x) { return x > 0.f ? fminf(x, 1.f) : 0.f; }
inline float sinpif(float x) { return static_cast<float>(sin(M_PI * x)); }
inline float cospif(float x) { return static_cast<float>(cos(M_PI * x)); }

inline int __float_as_int(float x) { return simt::from_bits<int>(simt::to_bits(x)); }
inline unsigned __float_as_uint(float x) { return simt::from_bits<unsigned>(simt::to_bits(x)); }
inline float __int_as_float(int x) { return simt::from_bits<float>(simt::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return simt::from_bits<float>(simt::to_bits(x)); }
inline int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1) << (31 - bit);
  return reversed;
}
