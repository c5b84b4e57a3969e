// Every PTX instruction that a kernel uses, behind one wrapper each: inline assembly here, the emulator's model of it in
// native/simt/include/simt_ptx.h. Source: PTX ISA 8.x, the section named beside each group. Nothing else holds assembly.
//
// Two proxies touch shared memory: plain loads and stores (generic) and TMA, wgmma (async). What a plain store wrote is seen by the
// async proxy only after fence_proxy_async() by the storing thread and then a barrier.
#pragma once
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#ifdef ATTUNE_SIMT
#include <simt_ptx.h>
#else
#include <cstdio>

#include "wgmma.h"

#define ATTUNE_PTX __device__ __forceinline__

namespace attune::cuda::ptx {

ATTUNE_PTX uint32_t shared_address(const void* shared) { return static_cast<uint32_t>(__cvta_generic_to_shared(shared)); }

// ---- mbarrier (9.7.13.15): a phase ends when `count` arrivals came and all announced bytes landed.

ATTUNE_PTX void mbarrier_init(uint64_t* barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}

// Makes the initialised barriers known to the async proxy; then __syncthreads().
ATTUNE_PTX void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

ATTUNE_PTX void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives, and announces that TMA loads will bring `bytes` in this phase.
ATTUNE_PTX void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}

// Whether the phase of this parity has ended; may sleep a moment before it answers no.
ATTUNE_PTX bool mbarrier_test(uint64_t* barrier, uint32_t parity) {
  uint32_t ended;
  asm volatile(
      "{ .reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p; }"
      : "=r"(ended)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return ended != 0;
}

// Waits for the end of the phase of this parity: 0 is the first. A fresh barrier lets a wait for parity 1 through.
ATTUNE_PTX void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
#ifdef ATTUNE_CHECK
  for (int tries = 0; !mbarrier_test(barrier, parity); ++tries)
    if (tries == 1 << 20) {
      printf("stuck: block (%u, %u, %u), thread %u waits at the barrier at %u for parity %u\n", blockIdx.x, blockIdx.y, blockIdx.z,
             threadIdx.x, shared_address(barrier), parity);
      __trap();
    }
#else
  while (!mbarrier_test(barrier, parity)) {
  }
#endif
}

// Orders this thread's plain stores to shared memory before what the async proxy does after the next barrier.
ATTUNE_PTX void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- TMA (9.7.9.27): a box of a tensor to or from shared memory, by one thread. Coordinates are elements, innermost first;
// outside the tensor reads are zero and writes are dropped. `map` is a kernel parameter: const __grid_constant__ CUtensorMap.

ATTUNE_PTX void tma_load_2d(void* shared, const CUtensorMap* map, uint64_t* barrier, int32_t c0, int32_t c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(c0), "r"(c1)
      : "memory");
}

ATTUNE_PTX void tma_load_3d(void* shared, const CUtensorMap* map, uint64_t* barrier, int32_t c0, int32_t c1, int32_t c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(
          shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}

// A store needs an inner extent of whole 16 bytes: it writes to the end of the last 16 (seen on an H200).
ATTUNE_PTX void tma_store_2d(const CUtensorMap* map, const void* shared, int32_t c0, int32_t c1) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
               "r"(shared_address(shared)), "r"(c0), "r"(c1)
               : "memory");
}

ATTUNE_PTX void tma_store_3d(const CUtensorMap* map, const void* shared, int32_t c0, int32_t c1, int32_t c2) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
               "r"(shared_address(shared)), "r"(c0), "r"(c1), "r"(c2)
               : "memory");
}

ATTUNE_PTX void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's groups of stores still read shared memory. A block ends with N = 0.
template <int N> ATTUNE_PTX void tma_store_wait() { asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory"); }

ATTUNE_PTX void prefetch_tensor_map(const CUtensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

// ---- wgmma (9.7.15): four warps multiply a tile of 64 rows; capability 9.0a only.

// Where a bf16 operand lies in shared memory, rows of 128 bytes swizzled as TMA's SWIZZLE_128B leaves them, panels 1024-byte aligned.
//   k contiguous (K-major): a panel is (rows, 64); sbo = 1024, bytes from 8 rows to the next 8; lbo unused (16); a k-step of 16 is +32 bytes.
//   m or n contiguous (MN-major, Transpose): a panel is (k, 64); sbo = 1024, bytes from 8 k to the next 8; lbo = bytes from one
//   panel of 64 to the next; a k-step of 16 is +2048 bytes.
ATTUNE_PTX uint64_t wgmma_descriptor(const void* shared, uint32_t lbo_bytes, uint32_t sbo_bytes) {
  constexpr uint64_t kSwizzle128 = 1ull << 62;
  return kSwizzle128 | (static_cast<uint64_t>(sbo_bytes >> 4) << 32) | (static_cast<uint64_t>(lbo_bytes >> 4) << 16) |
         ((shared_address(shared) & 0x3FFFF) >> 4);
}

// Before the first wgmma, and whenever plain code has touched an accumulator or A's registers since.
ATTUNE_PTX void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Computes x here and not later: the compiler may move plain code past a fence, and ptxas then adds waits of its own (C7517, C7519).
template <int N> ATTUNE_PTX void wgmma_settle(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
ATTUNE_PTX void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most N committed groups are unfinished.
template <int N> ATTUNE_PTX void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// d (64, N) = a (64, 16) b (16, N), plus d where `accumulate`. A thread's share of d, with lane = thread % 32, warp = thread / 32 % 4:
// d[4 j + 2 i + c] is row 16 warp + lane / 4 + 8 i, column 8 j + 2 (lane % 4) + c.
template <int N, bool TransposeB = false, bool TransposeA = false>
ATTUNE_PTX void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
  detail::wgmma_shared<TransposeA, TransposeB>(d, a, b, accumulate);
}

// a from registers: a[2 j + i] packs row 16 warp + lane / 4 + 8 i, columns 8 j + 2 (lane % 4) and the next.
template <int N, bool TransposeB = false>
ATTUNE_PTX void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  detail::wgmma_registers<TransposeB>(d, a, b, accumulate);
}

// Registers per thread move between warpgroups (9.7.19.5); all warps of a warpgroup execute it.
template <int N> ATTUNE_PTX void registers_increase() {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256, "registers: a multiple of 8 from 24 to 256");
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> ATTUNE_PTX void registers_decrease() {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256, "registers: a multiple of 8 from 24 to 256");
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// ---- mma.sync and ldmatrix (9.7.14): one warp; capability 8.0.

// Four 8 x 8 matrices of 16-bit elements: lane 8 m + r names row r of matrix m (16 bytes, 16-byte aligned); r[m] packs row lane / 4,
// columns 2 (lane % 4) and the next, of matrix m.
ATTUNE_PTX void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same, each matrix transposed.
ATTUNE_PTX void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// An 8 x 8 matrix of 16-bit elements, transposed: lane / 4 is the row, columns 2 (lane % 4) and the next are packed, before and after.
ATTUNE_PTX uint32_t transpose_8x8(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// d (16, 8) += a (16, 16) b (16, 8). d[2 i + c]: row lane / 4 + 8 i, column 2 (lane % 4) + c. a[2 j + i]: row lane / 4 + 8 i, columns
// 8 j + 2 (lane % 4) and the next. b[j]: rows 8 j + 2 (lane % 4) and the next, column lane / 4.
ATTUNE_PTX void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- cp.async (9.7.9.25.3): 16 bytes from global to shared memory, zeros when not `valid` (src is then not read). A thread waits
// for its own copies; __syncthreads() makes them known to others.

ATTUNE_PTX void cp_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)),
               "r"(valid ? 16 : 0)
               : "memory");
}
ATTUNE_PTX void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> ATTUNE_PTX void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// ---- Barriers of some of a block's threads (9.7.13.1): ids 1 to 15 (0 is __syncthreads), `threads` a multiple of 32.

ATTUNE_PTX void named_barrier_sync(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
ATTUNE_PTX void named_barrier_arrive(uint32_t id, uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- Arithmetic

// 2^x within 2 ulp; a subnormal result is zero.
ATTUNE_PTX float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- st (9.7.9.12): a vector to global memory in one access. The compiler may take an assignment apart into elements.

ATTUNE_PTX void store_global(void* to, uint4 v) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
ATTUNE_PTX void store_global(void* to, uint2 v) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(v.x), "r"(v.y) : "memory");
}

// Two floats rounded to bf16, `low` in the low half.
ATTUNE_PTX uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

}  // namespace attune::cuda::ptx

#undef ATTUNE_PTX
#endif
