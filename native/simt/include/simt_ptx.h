// native/cuda/common/ptx.h for the emulator: the same names, each with the machine's behaviour. What they mean stands there.
#pragma once
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace simt {

uint32_t shared_address(const void* shared);

void mbarrier_init(uint64_t* barrier, uint32_t count);
void mbarrier_arrive(uint64_t* barrier, uint32_t bytes, bool expect);
bool mbarrier_test(uint64_t* barrier, uint32_t parity);
void mbarrier_wait(uint64_t* barrier, uint32_t parity, Site site);
void named_barrier(uint32_t id, uint32_t threads, bool wait, Site site);
void fence_proxy_async();

void tma_load(void* shared, const CUtensorMap* map, uint64_t* barrier, int rank, int32_t c0, int32_t c1, int32_t c2);
void tma_store(const CUtensorMap* map, const void* shared, int rank, int32_t c0, int32_t c1, int32_t c2);
void tma_store_commit();
void tma_store_wait(int pending);

struct Wgmma {
  int n;
  bool transpose_a, transpose_b, accumulate;
  bool from_registers;
  uint64_t a, b;         // descriptors
  uint32_t registers[4]; // a's, when from_registers
};
void wgmma(float* d, const Wgmma& op, Site site);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int pending, Site site);
void set_registers(int count, bool increase);

void ldmatrix_x4(uint32_t* r, const void* row, bool transposed, Site site);
void mma_16x8x16(float* d, const uint32_t* a, const uint32_t* b, Site site);
void cp_async_16(void* shared, const void* global, bool valid);
void cp_async_commit();
void cp_async_wait(int pending);

}  // namespace simt

namespace attune::cuda::ptx {

using simt::Site;

inline uint32_t shared_address(const void* shared) { return simt::shared_address(shared); }

inline void mbarrier_init(uint64_t* barrier, uint32_t count) { simt::mbarrier_init(barrier, count); }
inline void fence_barrier_init() {}
inline void mbarrier_arrive(uint64_t* barrier) { simt::mbarrier_arrive(barrier, 0, false); }
inline void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) { simt::mbarrier_arrive(barrier, bytes, true); }
inline bool mbarrier_test(uint64_t* barrier, uint32_t parity) { return simt::mbarrier_test(barrier, parity); }
inline void mbarrier_wait(uint64_t* barrier, uint32_t parity, Site site = Site::current()) {
  simt::mbarrier_wait(barrier, parity, site);
}
inline void fence_proxy_async() { simt::fence_proxy_async(); }

inline void tma_load_2d(void* shared, const CUtensorMap* map, uint64_t* barrier, int32_t c0, int32_t c1) {
  simt::tma_load(shared, map, barrier, 2, c0, c1, 0);
}
inline void tma_load_3d(void* shared, const CUtensorMap* map, uint64_t* barrier, int32_t c0, int32_t c1, int32_t c2) {
  simt::tma_load(shared, map, barrier, 3, c0, c1, c2);
}
inline void tma_store_2d(const CUtensorMap* map, const void* shared, int32_t c0, int32_t c1) {
  simt::tma_store(map, shared, 2, c0, c1, 0);
}
inline void tma_store_3d(const CUtensorMap* map, const void* shared, int32_t c0, int32_t c1, int32_t c2) {
  simt::tma_store(map, shared, 3, c0, c1, c2);
}
inline void tma_store_commit() { simt::tma_store_commit(); }
template <int N> void tma_store_wait() { simt::tma_store_wait(N); }
inline void prefetch_tensor_map(const CUtensorMap*) {}

inline uint64_t wgmma_descriptor(const void* shared, uint32_t lbo_bytes, uint32_t sbo_bytes) {
  constexpr uint64_t kSwizzle128 = 1ull << 62;
  return kSwizzle128 | (static_cast<uint64_t>(sbo_bytes >> 4) << 32) | (static_cast<uint64_t>(lbo_bytes >> 4) << 16) |
         ((shared_address(shared) & 0x3FFFF) >> 4);
}
inline void wgmma_fence() { simt::wgmma_fence(); }
template <int N> void wgmma_settle(float (&)[N]) {}
inline void wgmma_commit() { simt::wgmma_commit(); }
template <int N> void wgmma_wait(Site site = Site::current()) { simt::wgmma_wait(N, site); }
template <int N, bool TransposeB = false, bool TransposeA = false>
void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate, Site site = Site::current()) {
  simt::wgmma(d, {N, TransposeA, TransposeB, accumulate, false, a, b, {}}, site);
}
template <int N, bool TransposeB = false>
void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, Site site = Site::current()) {
  simt::wgmma(d, {N, false, TransposeB, accumulate, true, 0, b, {a[0], a[1], a[2], a[3]}}, site);
}
template <int N> void registers_increase() {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256, "registers: a multiple of 8 from 24 to 256");
  simt::set_registers(N, true);
}
template <int N> void registers_decrease() {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256, "registers: a multiple of 8 from 24 to 256");
  simt::set_registers(N, false);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Site site = Site::current()) {
  simt::ldmatrix_x4(r, row, false, site);
}
inline void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row, Site site = Site::current()) {
  simt::ldmatrix_x4(r, row, true, site);
}
inline uint32_t transpose_8x8(uint32_t x, Site site = Site::current()) {
  const simt::Lanes lanes = simt::exchange("movmatrix", 0xffffffffu, x, site);
  const int row = lanes.lane / 4, column = lanes.lane % 4 * 2;
  auto element = [&](int r, int c) { return static_cast<uint32_t>(lanes.values[4 * r + c / 2]) >> (c % 2 * 16) & 0xffff; };
  return element(column, row) | element(column + 1, row) << 16;
}
inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site::current()) {
  simt::mma_16x8x16(d, a, b, site);
}
inline void cp_async_16(void* shared, const void* global, bool valid) { simt::cp_async_16(shared, global, valid); }
inline void cp_async_commit() { simt::cp_async_commit(); }
template <int N> void cp_async_wait() { simt::cp_async_wait(N); }

inline void named_barrier_sync(uint32_t id, uint32_t threads, Site site = Site::current()) {
  simt::named_barrier(id, threads, true, site);
}
inline void named_barrier_arrive(uint32_t id, uint32_t threads, Site site = Site::current()) {
  simt::named_barrier(id, threads, false, site);
}

inline float exp2(float x) {
  const float y = ::exp2f(x);
  return y < 0x1p-126f ? 0.f : y;  // NaN stays
}
inline void store_global(void* to, uint4 v) { std::memcpy(to, &v, sizeof v); }
inline void store_global(void* to, uint2 v) { std::memcpy(to, &v, sizeof v); }
inline uint32_t pack_bf16(float low, float high) {
  return __nv_bfloat16(low).bits | static_cast<uint32_t>(__nv_bfloat16(high).bits) << 16;
}

}  // namespace attune::cuda::ptx
