// The micro-kernel and its packing routines, for every instruction set.
#include "gemm_core.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#define ATTUNE_FILE "gemm_core.cc"
#include "foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

typedef float __attribute__((may_alias)) Unit;  // 32 bits of an operand; moved as a float, whatever it holds

constexpr int kColumns = 2 * V::W;
constexpr int kRows = ATTUNE_LEVEL >= 2 ? 14 : ATTUNE_LEVEL == 1 ? 6 : 4;

struct Single {  // units of one fp32
  static ATTUNE_INLINE V multiply_add(V a, V b, V c) { return fma(a, b, c); }
};
#if ATTUNE_LEVEL >= 3
struct Pairs {  // units of two bf16
  static ATTUNE_INLINE V multiply_add(V a, V b, V c) { return {_mm512_dpbf16_ps(c.v, (__m512bh)a.v, (__m512bh)b.v)}; }
};
#endif

// The general way out, through memory: any types, bias, add, part of a panel.
__attribute__((noinline)) void write(const float* sums, int rows, const TileOut& o) {
  typed(Tensor{o.y, o.type}, [&](auto* y) {
    for (int r = 0; r < rows; ++r)
      lanes(o.columns, [&](int64_t j, auto m) {
        V x = load(sums + r * kColumns + j, m);
        if (o.bias) typed(Tensor{const_cast<void*>(o.bias), o.bias_type}, [&](auto* b) { x = x + load(b + j, m); });
        if (o.add)
          typed(Tensor{const_cast<void*>(o.add), o.add_type}, [&](auto* a) { x = x + load(a + r * o.add_stride + j, m); });
        store(y + r * o.stride + j, x, m);
      });
  });
}

template <class Op, int R, bool kByK>
void tile(const void* a_, int64_t stride, const void* panel, int64_t units, const TileOut& o) {
  const Unit* a = static_cast<const Unit*>(a_);
  const float* b = static_cast<const float*>(panel);
  V sum[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = zero();
  auto step = [&](const Unit* at, const float* row) ATTUNE_LAMBDA {
    const V b0 = load(row), b1 = load(row + V::W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const V x = set(at[kByK ? r : r * stride]);
      sum[r][0] = Op::multiply_add(x, b0, sum[r][0]);
      sum[r][1] = Op::multiply_add(x, b1, sum[r][1]);
    }
  };
  const int64_t next = kByK ? stride : 1;
  for (; units >= 4; units -= 4) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) step(a + u * next, b + u * kColumns);
    a += 4 * next;
    b += 4 * kColumns;
  }
  for (; units > 0; --units, a += next, b += kColumns) step(a, b);

  if (o.columns == kColumns && o.type == DType::f32 && !o.bias && (!o.add || o.add_type == DType::f32)) {
    float* y = static_cast<float*>(o.y);
    const float* add = static_cast<const float*>(o.add);
    if (add)
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        sum[r][0] = sum[r][0] + load(add + r * o.add_stride);
        sum[r][1] = sum[r][1] + load(add + r * o.add_stride + V::W);
      }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      store(y + r * o.stride, sum[r][0]);
      store(y + r * o.stride + V::W, sum[r][1]);
    }
    return;
  }
  alignas(64) float sums[R * kColumns];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    store(sums + r * kColumns, sum[r][0]);
    store(sums + r * kColumns + V::W, sum[r][1]);
  }
  write(sums, R, o);
}

// Packing, the plain way: T in memory, `kPair` values of k in a unit of type E (bf16 pairs stay bf16, else fp32).
template <class E, class T> ATTUNE_INLINE E convert(const T* p) {
  if constexpr (std::is_same_v<E, T>)
    return *p;
  else
    return get(p);
}

template <class T, class E, int kPair> void pack_b_t(const void* src_, int64_t stride, int64_t k, int columns, void* panel) {
  const T* src = static_cast<const T*>(src_);
  E* dst = static_cast<E*>(panel);
  for (int64_t u = 0; u * kPair < k; ++u)
    for (int j = 0; j < kColumns; ++j)
      for (int h = 0; h < kPair; ++h)
        *dst++ = j < columns && u * kPair + h < k ? convert<E>(src + j * stride + u * kPair + h) : E{};
}

template <class T, class E, int kPair> void pack_b(const void* src_, int64_t stride, int64_t k, int columns, void* panel) {
  const T* src = static_cast<const T*>(src_);
  E* dst = static_cast<E*>(panel);
  for (int64_t u = 0; u * kPair < k; ++u)
    for (int j = 0; j < kColumns; ++j)
      for (int h = 0; h < kPair; ++h)
        *dst++ = j < columns && u * kPair + h < k ? convert<E>(src + (u * kPair + h) * stride + j) : E{};
}

template <class T, class E, int kPair>
void pack_a(const void* src_, int64_t stride, int64_t k, int rows, int tile, void* dst_) {
  const T* src = static_cast<const T*>(src_);
  E* dst = static_cast<E*>(dst_);
  for (int64_t u = 0; u * kPair < k; ++u)
    for (int r = 0; r < tile; ++r)
      for (int h = 0; h < kPair; ++h)
        *dst++ = r < rows && u * kPair + h < k ? convert<E>(src + (u * kPair + h) * stride + r) : E{};
}

template <class T, class E, int kPair>
void copy_a(const void* src_, int64_t stride, int64_t k, int64_t rows, void* dst_, int64_t dst_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* src = static_cast<const T*>(src_) + r * stride;
    E* dst = static_cast<E*>(dst_) + r * dst_stride * kPair;
    if constexpr (std::is_same_v<E, T>)
      std::memcpy(static_cast<void*>(dst), src, static_cast<size_t>(k) * sizeof(E));
    else
      lanes(k, [&](int64_t i, auto m) { store(dst + i, load(src + i, m), m); });
    if (k % kPair) dst[k] = E{};
  }
}

template <class Op, class T, class E, int kPair> const GemmCore& core() {
  static constexpr GemmCore c = [] {
    GemmCore g{};
    g.rows = kRows;
    g.columns = kColumns;
    g.pair = kPair;
    g.widened = !std::is_same_v<E, T>;
    [&]<int... R>(std::integer_sequence<int, R...>) {
      ((g.by_rows[R + 1] = tile<Op, R + 1, false>, g.by_k[R + 1] = tile<Op, R + 1, true>), ...);
    }(std::make_integer_sequence<int, kRows>{});
    g.pack_b_t = pack_b_t<T, E, kPair>;
    g.pack_b = pack_b<T, E, kPair>;
    g.pack_a = pack_a<T, E, kPair>;
    g.copy_a = copy_a<T, E, kPair>;
    return g;
  }();
  return c;
}

[[maybe_unused]] const GemmCore& fp32() { return core<Single, float, float, 1>(); }
#if ATTUNE_LEVEL >= 3
const GemmCore& half() { return core<Pairs, bf16, bf16, 2>(); }
#else
const GemmCore& half() { return core<Single, bf16, float, 1>(); }
#endif

}  // namespace
}  // namespace attune::cpu::ISA

#if ATTUNE_LEVEL == 0
const attune::cpu::GemmCore& attune::cpu::gemm_core(DType inputs) {
  if (inputs == DType::bf16) return ATTUNE_CALL(half);
#if defined(__x86_64__)
  if (level() >= Level::avx512) return avx512::fp32();
  if (level() == Level::avx2) return avx2::fp32();
#endif
  return baseline::fp32();
}
#endif
