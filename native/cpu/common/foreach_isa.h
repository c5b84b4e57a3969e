// Compiles a kernel file once for each instruction set, with no compiler flags. A kernel file reads:
//
//   #include "kernels.h"
//   #include <cmath>                         // all standard headers come before the next two lines
//   #define ATTUNE_FILE "../rms_norm.cc"     // this file, seen from common/
//   #include "common/foreach_isa.h"
//
//   namespace attune::cpu::ISA { namespace {  // ISA: baseline, avx2, avx512, avx512_bf16, one after another
//   void rms_norm(const RmsNorm& a, Context& c) { ... V, load, store, exp of common/simd.h ... }
//   }}
//   ATTUNE_KERNEL(rms_norm, RmsNorm)          // attune::cpu::rms_norm: calls the one for this machine
//
// ATTUNE_LEVEL (0 to 3, as in dispatch.h) tells the passes apart for code that must know. Everything between the include and
// ATTUNE_KERNEL belongs in the anonymous namespace, so that nothing of one level is merged with another file's.
#if !defined(ATTUNE_LEVEL)

#include <cstdint>
#include <cstring>

#include "../../runtime/context.h"
#include "../../runtime/tensor.h"
#include "dispatch.h"

#define ATTUNE_INLINE inline __attribute__((always_inline))
#define ATTUNE_LAMBDA __attribute__((always_inline))
#define ATTUNE_KERNEL(name, Struct)

#if defined(__x86_64__)
// g++ 12's own "undefined" vectors look uninitialised to it.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#if defined(__clang__)
#define ATTUNE_TARGET_(x) _Pragma(#x)
#define ATTUNE_PUSH(features) ATTUNE_TARGET_(clang attribute push(__attribute__((target(features))), apply_to = function))
#define ATTUNE_POP _Pragma("clang attribute pop")
#else
#define ATTUNE_TARGET_(x) _Pragma(#x)
#define ATTUNE_PUSH(features) _Pragma("GCC push_options") ATTUNE_TARGET_(GCC target(features))
#define ATTUNE_POP _Pragma("GCC pop_options")
#endif

#define ATTUNE_LEVEL 3
#define ISA avx512_bf16
ATTUNE_PUSH("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "simd.h"
#include ATTUNE_FILE
ATTUNE_POP
#undef ISA
#undef ATTUNE_LEVEL

#define ATTUNE_LEVEL 2
#define ISA avx512
ATTUNE_PUSH("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#include "simd.h"
#include ATTUNE_FILE
ATTUNE_POP
#undef ISA
#undef ATTUNE_LEVEL

#define ATTUNE_LEVEL 1
#define ISA avx2
ATTUNE_PUSH("avx2,fma")
#include "simd.h"
#include ATTUNE_FILE
ATTUNE_POP
#undef ISA
#undef ATTUNE_LEVEL
#endif  // x86-64

// The rest of the kernel file itself is the last pass.
#define ATTUNE_LEVEL 0
#define ISA baseline
#include "simd.h"

// Calls `name` of the level in use, with any arguments.
#if defined(__x86_64__)
#define ATTUNE_CALL(name, ...)                                                                \
  (::attune::cpu::level() == ::attune::cpu::Level::avx512_bf16 ? ::attune::cpu::avx512_bf16::name(__VA_ARGS__) \
   : ::attune::cpu::level() == ::attune::cpu::Level::avx512    ? ::attune::cpu::avx512::name(__VA_ARGS__)      \
   : ::attune::cpu::level() == ::attune::cpu::Level::avx2      ? ::attune::cpu::avx2::name(__VA_ARGS__)        \
                                                               : ::attune::cpu::baseline::name(__VA_ARGS__))
#else
#define ATTUNE_CALL(name, ...) ::attune::cpu::baseline::name(__VA_ARGS__)
#endif

#undef ATTUNE_KERNEL
#define ATTUNE_KERNEL(name, Struct) \
  namespace attune::cpu {           \
  void name(const Struct& a, Context& c) { ATTUNE_CALL(name, a, c); } \
  }

#endif  // !ATTUNE_LEVEL
