// One vector of fp32 lanes, written once for every instruction set (included by foreach_isa.h in each pass, so no guard).
//
//   V        lanes of float, V::W of them (baseline 4, avx2 8, avx512 16)    M        one truth value per lane
//   load(p) store(p, v)      p: float* or bf16* (store rounds to nearest even; NaN stays NaN); load also from int32_t* (as float)
//   load(p, m) store(p, v, m)  m: All{} or Some{n}: the first n lanes only; the others load 0 and are not written
//   zero() set(x)  + - * /  fma(a,b,c) = a*b+c  fnma(a,b,c) = c-a*b  max min (the second if either is NaN)  sqrt abs exp
//   less(a,b) equal(a,b) is_nan(a) both(m,m) either(m,m)  select(m,a,b) = m ? a : b  any(m)
//   sum(v) highest(v) lowest(v)      over the lanes, in one fixed order
//   mask_in(v, other, m)     v in the lanes of All or Some, else other
//   lanes(n, [&](int64_t i, auto m) {...})   i = 0, W, 2W, ...: whole vectors with All, then the rest with Some
//   typed(tensor, [&](auto* p) {...})        p: float* or bf16*, by the tensor's dtype
//
// exp: within 1 ulp on the normal range; 0 below about -104, inf above 88.73, NaN for NaN.

namespace attune::cpu::ISA {

struct All {};

#if ATTUNE_LEVEL >= 2

struct V {
  static constexpr int W = 16;
  __m512 v;
};
struct M {
  __mmask16 m;
};
struct Some {
  __mmask16 m;
  ATTUNE_INLINE explicit Some(int64_t n) : m(static_cast<__mmask16>((1u << n) - 1)) {}
};

ATTUNE_INLINE V zero() { return {_mm512_setzero_ps()}; }
ATTUNE_INLINE V set(float x) { return {_mm512_set1_ps(x)}; }
ATTUNE_INLINE V operator+(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
ATTUNE_INLINE V operator-(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
ATTUNE_INLINE V operator*(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
ATTUNE_INLINE V operator/(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
ATTUNE_INLINE V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
ATTUNE_INLINE V fnma(V a, V b, V c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
ATTUNE_INLINE V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
ATTUNE_INLINE V min(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
ATTUNE_INLINE V sqrt(V a) { return {_mm512_sqrt_ps(a.v)}; }
ATTUNE_INLINE V abs(V a) { return {_mm512_abs_ps(a.v)}; }
ATTUNE_INLINE M less(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
ATTUNE_INLINE M equal(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
ATTUNE_INLINE M is_nan(V a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
ATTUNE_INLINE M both(M a, M b) { return {static_cast<__mmask16>(a.m & b.m)}; }
ATTUNE_INLINE M either(M a, M b) { return {static_cast<__mmask16>(a.m | b.m)}; }
ATTUNE_INLINE bool any(M a) { return a.m != 0; }
ATTUNE_INLINE V select(M m, V a, V b) { return {_mm512_mask_blend_ps(m.m, b.v, a.v)}; }

ATTUNE_INLINE V from_bf16(__m256i h) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))}; }
ATTUNE_INLINE __m256i to_bf16(V x) {
#if ATTUNE_LEVEL >= 3
  return (__m256i)_mm512_cvtneps_pbh(x.v);
#else
  const __m512i u = _mm512_castps_si512(x.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  r = _mm512_mask_or_epi32(r, is_nan(x).m, u, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
#endif
}

ATTUNE_INLINE V load(const float* p) { return {_mm512_loadu_ps(p)}; }
ATTUNE_INLINE V load(const bf16* p) { return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
ATTUNE_INLINE V load(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
ATTUNE_INLINE void store(float* p, V x) { _mm512_storeu_ps(p, x.v); }
ATTUNE_INLINE void store(bf16* p, V x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(x)); }
ATTUNE_INLINE V load(const float* p, Some s) { return {_mm512_maskz_loadu_ps(s.m, p)}; }
ATTUNE_INLINE V load(const bf16* p, Some s) { return from_bf16(_mm256_maskz_loadu_epi16(s.m, p)); }
ATTUNE_INLINE V load(const int32_t* p, Some s) { return {_mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(s.m, p))}; }
ATTUNE_INLINE void store(float* p, V x, Some s) { _mm512_mask_storeu_ps(p, s.m, x.v); }
ATTUNE_INLINE void store(bf16* p, V x, Some s) { _mm256_mask_storeu_epi16(p, s.m, to_bf16(x)); }

ATTUNE_INLINE V round(V a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
ATTUNE_INLINE V scale2(V a, V n) { return {_mm512_scalef_ps(a.v, n.v)}; }  // a * 2^n, n whole

#else  // avx2 and baseline: the tail goes through a small array

#if ATTUNE_LEVEL == 1

struct V {
  static constexpr int W = 8;
  __m256 v;
};
struct M {
  __m256 m;
};

ATTUNE_INLINE V zero() { return {_mm256_setzero_ps()}; }
ATTUNE_INLINE V set(float x) { return {_mm256_set1_ps(x)}; }
ATTUNE_INLINE V operator+(V a, V b) { return {_mm256_add_ps(a.v, b.v)}; }
ATTUNE_INLINE V operator-(V a, V b) { return {_mm256_sub_ps(a.v, b.v)}; }
ATTUNE_INLINE V operator*(V a, V b) { return {_mm256_mul_ps(a.v, b.v)}; }
ATTUNE_INLINE V operator/(V a, V b) { return {_mm256_div_ps(a.v, b.v)}; }
ATTUNE_INLINE V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
ATTUNE_INLINE V fnma(V a, V b, V c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
ATTUNE_INLINE V max(V a, V b) { return {_mm256_max_ps(a.v, b.v)}; }
ATTUNE_INLINE V min(V a, V b) { return {_mm256_min_ps(a.v, b.v)}; }
ATTUNE_INLINE V sqrt(V a) { return {_mm256_sqrt_ps(a.v)}; }
ATTUNE_INLINE V abs(V a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
ATTUNE_INLINE M less(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
ATTUNE_INLINE M equal(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
ATTUNE_INLINE M is_nan(V a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
ATTUNE_INLINE M both(M a, M b) { return {_mm256_and_ps(a.m, b.m)}; }
ATTUNE_INLINE M either(M a, M b) { return {_mm256_or_ps(a.m, b.m)}; }
ATTUNE_INLINE bool any(M a) { return _mm256_movemask_ps(a.m) != 0; }
ATTUNE_INLINE V select(M m, V a, V b) { return {_mm256_blendv_ps(b.v, a.v, m.m)}; }

ATTUNE_INLINE V load(const float* p) { return {_mm256_loadu_ps(p)}; }
ATTUNE_INLINE V load(const bf16* p) {
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))};
}
ATTUNE_INLINE V load(const int32_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
ATTUNE_INLINE void store(float* p, V x) { _mm256_storeu_ps(p, x.v); }
ATTUNE_INLINE void store(bf16* p, V x) {
  const __m256i u = _mm256_castps_si256(x.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  const __m256i r = _mm256_srli_epi32(_mm256_blendv_epi8(up, nan, _mm256_castps_si256(is_nan(x).m)), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
ATTUNE_INLINE V round(V a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
ATTUNE_INLINE V scale2(V a, V n) {  // in two steps, so that results below the smallest normal round once
  const __m256i whole = _mm256_cvtps_epi32(n.v), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const __m256i x = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i y = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, _mm256_castsi256_ps(x)), _mm256_castsi256_ps(y))};
}

#else  // baseline: the compiler's own vectors of 4, on any machine

typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));
typedef uint32_t U4 __attribute__((vector_size(16)));

struct V {
  static constexpr int W = 4;
  F4 v;
};
struct M {
  I4 m;
};

ATTUNE_INLINE V set(float x) { return {F4{x, x, x, x}}; }
ATTUNE_INLINE V zero() { return set(0.0f); }
ATTUNE_INLINE V operator+(V a, V b) { return {a.v + b.v}; }
ATTUNE_INLINE V operator-(V a, V b) { return {a.v - b.v}; }
ATTUNE_INLINE V operator*(V a, V b) { return {a.v * b.v}; }
ATTUNE_INLINE V operator/(V a, V b) { return {a.v / b.v}; }
ATTUNE_INLINE V fma(V a, V b, V c) { return {a.v * b.v + c.v}; }
ATTUNE_INLINE V fnma(V a, V b, V c) { return {c.v - a.v * b.v}; }
ATTUNE_INLINE M less(V a, V b) { return {a.v < b.v}; }
ATTUNE_INLINE M equal(V a, V b) { return {a.v == b.v}; }
ATTUNE_INLINE M is_nan(V a) { return {a.v != a.v}; }
ATTUNE_INLINE M both(M a, M b) { return {a.m & b.m}; }
ATTUNE_INLINE M either(M a, M b) { return {a.m | b.m}; }
ATTUNE_INLINE bool any(M a) { return (a.m[0] | a.m[1] | a.m[2] | a.m[3]) != 0; }
ATTUNE_INLINE V select(M m, V a, V b) { return {m.m ? a.v : b.v}; }
ATTUNE_INLINE V max(V a, V b) { return select(less(b, a), a, b); }
ATTUNE_INLINE V min(V a, V b) { return select(less(a, b), a, b); }
ATTUNE_INLINE V sqrt(V a) {
  return {F4{__builtin_sqrtf(a.v[0]), __builtin_sqrtf(a.v[1]), __builtin_sqrtf(a.v[2]), __builtin_sqrtf(a.v[3])}};
}
ATTUNE_INLINE V abs(V a) { return {(F4)((U4)a.v & 0x7fffffffu)}; }

ATTUNE_INLINE V load(const float* p) {
  V r;
  std::memcpy(&r.v, p, sizeof r.v);
  return r;
}
ATTUNE_INLINE V load(const bf16* p) {
  return {(F4)(U4{p[0].bits, p[1].bits, p[2].bits, p[3].bits} << 16)};
}
ATTUNE_INLINE V load(const int32_t* p) { return {F4{float(p[0]), float(p[1]), float(p[2]), float(p[3])}}; }
ATTUNE_INLINE void store(float* p, V x) { std::memcpy(p, &x.v, sizeof x.v); }
ATTUNE_INLINE void store(bf16* p, V x) {
  const U4 u = (U4)x.v;
  const U4 r = (is_nan(x).m ? u | 0x400000u : u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  for (int i = 0; i < 4; ++i) p[i].bits = static_cast<uint16_t>(r[i]);
}
ATTUNE_INLINE V round(V a) {  // |a| < 2^22
  const F4 magic = set(12582912.0f).v;
  F4 t = a.v + magic;
  asm("" : "+m"(t));  // keeps the two additions apart under any floating-point flags
  return {t - magic};
}
ATTUNE_INLINE V scale2(V a, V n) {
  const I4 whole = __builtin_convertvector(select(is_nan(n), zero(), n).v, I4), half = whole >> 1;
  return {a.v * (F4)((half + 127) << 23) * (F4)((whole - half + 127) << 23)};
}

#endif

struct Some {
  int64_t n;
  ATTUNE_INLINE explicit Some(int64_t n) : n(n) {}
};
template <class T> ATTUNE_INLINE V load(const T* p, Some s) {
  T all[V::W] = {};
  for (int64_t i = 0; i < s.n; ++i) all[i] = p[i];
  return load(all);
}
template <class T> ATTUNE_INLINE void store(T* p, V x, Some s) {
  T all[V::W];
  store(all, x);
  for (int64_t i = 0; i < s.n; ++i) p[i] = all[i];
}

#endif

template <class T> ATTUNE_INLINE V load(const T* p, All) { return load(p); }
template <class T> ATTUNE_INLINE void store(T* p, V x, All) { store(p, x); }

ATTUNE_INLINE float sum(V x) {
  float a[V::W];
  store(a, x);
  for (int n = V::W / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) a[i] += a[i + n];
  return a[0];
}
ATTUNE_INLINE float highest(V x) {  // NaN lanes lose against numbers
  float a[V::W];
  store(a, x);
  float r = a[0];
  for (int i = 1; i < V::W; ++i) r = r >= a[i] || a[i] != a[i] ? r : a[i];
  return r;
}
ATTUNE_INLINE float lowest(V x) { return -highest(zero() - x); }

// exp(x) = 2^n exp(f), n = round(x log2 e), |f| <= ln2 / 2: a degree-6 fit of least maximum relative error.
ATTUNE_INLINE V exp(V x) {
  x = max(set(-104.0f), min(set(89.0f), x));  // both keep NaN
  const V n = round(x * set(1.44269504088896341f));
  const V f = fnma(n, set(1.42860682030941723e-6f), fnma(n, set(0.693145751953125f), x));
  V p = set(0.00138146132f);
  p = fma(p, f, set(0.00836870993f));
  p = fma(p, f, set(0.0416683874f));
  p = fma(p, f, set(0.166665207f));
  p = fma(p, f, set(0.499999935f));
  p = fma(p, f, set(1.0f));
  p = fma(p, f, set(1.0f));
  return scale2(p, n);
}

ATTUNE_INLINE V mask_in(V v, V, All) { return v; }
ATTUNE_INLINE V mask_in(V v, V other, Some m) {
#if ATTUNE_LEVEL >= 2
  return {_mm512_mask_blend_ps(m.m, other.v, v.v)};
#else
  float a[V::W], b[V::W];
  store(a, v);
  store(b, other);
  for (int64_t i = m.n; i < V::W; ++i) a[i] = b[i];
  return load(a);
#endif
}

template <class F> ATTUNE_INLINE void lanes(int64_t n, F f) {
  int64_t i = 0;
  for (; i + V::W <= n; i += V::W) f(i, All{});
  if (i < n) f(i, Some{n - i});
}

template <class F> ATTUNE_INLINE void typed(const Tensor& t, F f) {
  if (t.dtype == DType::bf16)
    f(static_cast<bf16*>(t.data));
  else
    f(static_cast<float*>(t.data));
}

// One number, as the vector code would load and store it.
ATTUNE_INLINE float get(const float* p) { return *p; }
ATTUNE_INLINE float get(const bf16* p) {
  const uint32_t u = static_cast<uint32_t>(p->bits) << 16;
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}
ATTUNE_INLINE void put(float* p, float x) { *p = x; }
ATTUNE_INLINE void put(bf16* p, float x) { store(p, set(x), Some{1}); }

}  // namespace attune::cpu::ISA
