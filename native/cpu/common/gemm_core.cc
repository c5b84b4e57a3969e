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
constexpr int kAhead = 32;  // units of a panel between its prefetch and its use: it may come from memory

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
  // A by rows: one pointer for three rows, so that all of them stay in registers.
  constexpr int kPointers = kByK ? 1 : (R + 2) / 3;
  const Unit* at[kPointers];
#pragma GCC unroll 8
  for (int i = 0; i < kPointers; ++i) at[i] = a + 3 * i * stride;
  auto step = [&](int64_t ahead, const float* row) ATTUNE_LAMBDA {
#pragma GCC unroll 2
    for (int i = 0; i < kColumns; i += 16) __builtin_prefetch(row + kAhead * kColumns + i, 0, 2);
    const V b0 = load(row), b1 = load(row + V::W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const V x = set(kByK ? at[0][ahead + r] : at[r / 3][r % 3 * stride + ahead]);
      sum[r][0] = Op::multiply_add(x, b0, sum[r][0]);
      sum[r][1] = Op::multiply_add(x, b1, sum[r][1]);
    }
#if ATTUNE_LEVEL == 1  // 15 of 16 registers are in use: steps that overlap would spill a sum
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) asm("" : "+x"(sum[r][0].v), "+x"(sum[r][1].v));
#endif
  };
  const int64_t next = kByK ? stride : 1;
  auto advance = [&](int64_t steps) ATTUNE_LAMBDA {
#pragma GCC unroll 8
    for (int i = 0; i < kPointers; ++i) {
      at[i] += steps * next;
      asm("" : "+r"(at[i]));  // else the compiler keeps a pointer for each row, in memory
    }
    b += steps * kColumns;
  };
  for (; units >= 4; units -= 4) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) step(u * next, b + u * kColumns);
    advance(4);
  }
  for (; units > 0; --units) {
    step(0, b);
    advance(1);
  }

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
  if (o.columns == kColumns && o.type == DType::bf16 && !o.bias && !o.add) {
    bf16* y = static_cast<bf16*>(o.y);
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

#if ATTUNE_LEVEL >= 1
// The same with whole vectors. W x W units: r[i] becomes column i.
#if ATTUNE_LEVEL == 1
ATTUNE_INLINE void transpose(V* r) {
  __m256 t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {  // 128-bit lane q of r[i + j]: rows i ... i + 3 of column 4 q + j
    r[i].v = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1].v = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2].v = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3].v = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(r[i].v, r[i + 4].v, 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i].v, r[i + 4].v, 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) r[i].v = t[i];
}
#else
ATTUNE_INLINE void transpose(V* r) {
  __m512i t[16], s[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) s[i] = _mm512_castps_si512(r[i].v);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(s[i], s[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(s[i], s[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    s[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    s[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    s[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    s[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // s[4 j + i]: 128-bit lane q holds rows 4 j ... 4 j + 3 of column 4 q + i
    const __m512i a = _mm512_shuffle_i32x4(s[i], s[i + 4], 0x88), b = _mm512_shuffle_i32x4(s[i + 8], s[i + 12], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(s[i], s[i + 4], 0xdd), d = _mm512_shuffle_i32x4(s[i + 8], s[i + 12], 0xdd);
    t[i] = _mm512_shuffle_i32x4(a, b, 0x88);
    t[i + 8] = _mm512_shuffle_i32x4(a, b, 0xdd);
    t[i + 4] = _mm512_shuffle_i32x4(c, d, 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i].v = _mm512_castsi512_ps(t[i]);
}
#endif

// What a unit is and how W of them are loaded; values beyond `values` read as 0.
template <class T> struct One {  // one fp32 of a T
  static constexpr int kPair = 1;
  static ATTUNE_INLINE V load_units(const void* p, int64_t values) {
    const T* from = static_cast<const T*>(p);
    return values >= V::W ? load(from) : load(from, Some{values});
  }
};
#if ATTUNE_LEVEL >= 3
struct Two {  // two bf16
  static constexpr int kPair = 2;
  static ATTUNE_INLINE V load_units(const void* p, int64_t values) {
    return {_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(values >= 32 ? ~0u : (1u << values) - 1, p))};
  }
};
#endif

template <class T, class Units> void fast_b_t(const void* src, int64_t stride, int64_t k, int columns, void* panel) {
  constexpr int kPair = Units::kPair;
  const int64_t units = (k + kPair - 1) / kPair;
  for (int half = 0; half < kColumns; half += V::W)
    for (int64_t u = 0; u < units; u += V::W) {
      V r[V::W];
#pragma GCC unroll 16
      for (int j = 0; j < V::W; ++j)
        r[j] = half + j < columns ? Units::load_units(static_cast<const T*>(src) + (half + j) * stride + u * kPair, k - u * kPair)
                                  : zero();
      transpose(r);
      float* to = static_cast<float*>(panel) + u * kColumns + half;
#pragma GCC unroll 16
      for (int j = 0; j < V::W; ++j)
        if (u + j < units) store(to + j * kColumns, r[j]);
    }
}

template <class T> void fast_b(const void* src_, int64_t stride, int64_t k, int columns, void* panel) {
  float* to = static_cast<float*>(panel);
  const T* src = static_cast<const T*>(src_);
  for (int64_t u = 0; u < k; ++u, to += kColumns, src += stride)
#pragma GCC unroll 2
    for (int j = 0; j < kColumns; j += V::W)
      store(to + j, j < columns ? One<T>::load_units(src + j, columns - j) : zero());
}

// Whole vectors at steps of `tile` units, ascending: what one store writes too much, the next one covers. Whole vectors are
// loaded too wherever another row follows, which then holds what is read beyond the tile.
template <class T> void fast_a(const void* src_, int64_t stride, int64_t k, int rows, int tile, void* dst) {
  float* to = static_cast<float*>(dst);
  const T* src = static_cast<const T*>(src_);
  const int64_t whole = stride >= V::W ? k - 1 : 0;
  for (int64_t i = 0; i < k; ++i, to += tile, src += stride) store(to, i < whole ? load(src) : One<T>::load_units(src, rows));
}

#if ATTUNE_LEVEL >= 3
void fast_b_pairs(const void* src_, int64_t stride, int64_t k, int columns, void* panel) {
  float* to = static_cast<float*>(panel);
  const char* src = static_cast<const char*>(src_);
  alignas(64) uint16_t low[32], high[32];  // value j of the even row, then of the odd row
  for (int j = 0; j < 16; ++j) {
    low[2 * j] = static_cast<uint16_t>(j), low[2 * j + 1] = static_cast<uint16_t>(32 + j);
    high[2 * j] = static_cast<uint16_t>(16 + j), high[2 * j + 1] = static_cast<uint16_t>(48 + j);
  }
  const __m512i first = _mm512_load_si512(low), second = _mm512_load_si512(high);
  for (int64_t i = 0; i < k; i += 2, to += kColumns, src += stride * 4) {
    const __m512i even = _mm512_castps_si512(Two::load_units(src, columns).v);
    const __m512i odd = i + 1 < k ? _mm512_castps_si512(Two::load_units(src + stride * 2, columns).v) : _mm512_setzero_si512();
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(even, first, odd));
    _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(even, second, odd));
  }
}

void fast_a_pairs(const void* src_, int64_t stride, int64_t k, int rows, int tile, void* dst) {
  float* to = static_cast<float*>(dst);
  const char* src = static_cast<const char*>(src_);
  const __mmask16 m = static_cast<__mmask16>((1u << rows) - 1);
  for (int64_t i = 0; i < k; i += 2, to += tile, src += stride * 4) {
    const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, src));
    const __m256i odd = i + 1 < k ? _mm256_maskz_loadu_epi16(m, src + stride * 2) : _mm256_setzero_si256();
    _mm512_storeu_si512(to, _mm512_or_si512(even, _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16)));
  }
}
#endif
#endif

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
    g.copy_a = copy_a<T, E, kPair>;
    g.pack_b_t = pack_b_t<T, E, kPair>;
    g.pack_b = pack_b<T, E, kPair>;
    g.pack_a = pack_a<T, E, kPair>;
#if ATTUNE_LEVEL >= 3
    if constexpr (kPair == 2) {
      g.pack_b_t = fast_b_t<T, Two>;
      g.pack_b = fast_b_pairs;
      g.pack_a = fast_a_pairs;
    }
#endif
#if ATTUNE_LEVEL >= 1
    if constexpr (kPair == 1) {
      g.pack_b_t = fast_b_t<T, One<T>>;
      g.pack_b = fast_b<T>;
      g.pack_a = fast_a<T>;
    }
#endif
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
