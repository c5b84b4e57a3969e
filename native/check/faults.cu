// Kernels that are wrong on purpose, each beside the words that the emulator must say. The right form of each is among the probes.
#include "faults.h"

#include "../cuda/common/prelude.h"
#include "../cuda/common/ptx.h"

namespace attune::faults {
namespace {

using namespace cuda;

constexpr uint32_t kAll = 0xFFFFFFFFu;

int thread() { return static_cast<int>(threadIdx.x); }
int lane() { return thread() % 32; }

// ---- Warps

void diverging_lanes(const Map&, Arguments a) {
  float x = 1;
  if (lane() < 7)
    x = __shfl_xor_sync(kAll, x, 1);
  else
    x = __shfl_xor_sync(kAll, x, 1) + 1;
  a.out[thread()] = x;
}
void narrow_mask(const Map&, Arguments a) { a.out[thread()] = __shfl_xor_sync(0xFFFFu, 1.f, 1); }
void ended_lane(const Map&, Arguments a) {
  if (lane() == 3) return;
  a.out[thread()] = __shfl_xor_sync(kAll, 1.f, 1);
}

// ---- Barriers of the block

void half_a_warp_at_a_barrier(const Map&, Arguments a) {
  if (lane() < 16)
    __syncthreads();
  else
    __syncthreads();
  a.out[thread()] = 1;
}
void missing_warp(const Map&, Arguments) {
  if (thread() >= 32) ptx::named_barrier_sync(1, 128);
}
void uneven_counts(const Map&, Arguments) { ptx::named_barrier_sync(1, thread() < 64 ? 128 : 64); }
void arrivals_left(const Map&, Arguments) {
  if (thread() < 64) ptx::named_barrier_arrive(3, 128);
}
void missing_syncthreads(const Map&, Arguments a) {
  ATTUNE_SHARED(float, words, kThreads);
  words[thread()] = 1;
  a.out[thread()] = words[kThreads - 1 - thread()];
}
void word_never_written(const Map&, Arguments a) {
  ATTUNE_SHARED(float, words, kThreads);
  if (thread() != 5) words[thread()] = 1;
  __syncthreads();
  a.out[thread()] = words[thread()];
}

// ---- mbarriers

uint64_t* new_barrier(uint32_t count) {
  ATTUNE_SHARED(uint64_t, barrier, 1);
  if (thread() == 0) ptx::mbarrier_init(barrier, count);
  __syncthreads();
  return barrier;
}
void barrier_not_initialised(const Map&, Arguments) {
  ATTUNE_SHARED(uint64_t, barrier, 1);
  ptx::mbarrier_arrive(barrier);
}
void barrier_initialised_twice(const Map&, Arguments) {
  ATTUNE_SHARED(uint64_t, barrier, 1);
  if (thread() < 2) ptx::mbarrier_init(barrier, 1);
}
void barrier_overwritten(const Map&, Arguments) {
  uint64_t* barrier = new_barrier(kThreads);
  if (thread() == 0) *barrier = 7;
  __syncthreads();
  ptx::mbarrier_arrive(barrier);
}
void too_few_arrivals(const Map&, Arguments) {
  uint64_t* barrier = new_barrier(kThreads);
  if (thread() > 0) ptx::mbarrier_arrive(barrier);
  ptx::mbarrier_wait(barrier, 0);
}
void wrong_parity(const Map&, Arguments) {
  uint64_t* barrier = new_barrier(kThreads);
  ptx::mbarrier_arrive(barrier);
  ptx::mbarrier_wait(barrier, 0);
  ptx::mbarrier_arrive(barrier);
  ptx::mbarrier_wait(barrier, 0);  // must be 1: this one has not ended, or will never
  ptx::mbarrier_wait(barrier, 1);
  ptx::mbarrier_wait(barrier, 0);
}
// One lane says that its warp is done with a tile; nothing keeps the other lanes in step.
void lane_speaks_for_its_warp(const Map&, Arguments a) {
  ATTUNE_SHARED(float, word, 1);
  uint64_t* barrier = new_barrier(3);
  if (thread() == 0) word[0] = 1;
  __syncthreads();
  if (thread() < 32) {  // waits for three warps, then overwrites
    ptx::mbarrier_wait(barrier, 0);
    if (thread() == 0) word[0] = 2;
  } else {
    __syncwarp();
    a.out[thread()] = word[0];
    if (lane() == 0) ptx::mbarrier_arrive(barrier);
  }
}

// ---- TMA

uint8_t* load(const Map& map, uint64_t* barrier, uint32_t bytes) {
  ATTUNE_DYNAMIC_SHARED(tile);
  if (thread() == 0) {
    ptx::mbarrier_arrive_expect(barrier, bytes);
    ptx::tma_load_2d(tile, &map, barrier, 0, 0);
  }
  return tile;
}
float bf16_at(const uint8_t* tile, int i) { return reinterpret_cast<const __nv_bfloat16*>(tile)[i]; }

void tile_not_waited_for(const Map& map, Arguments a) {
  const uint8_t* tile = load(map, new_barrier(1), kTileBytes);
  a.out[thread()] = bf16_at(tile, thread());
}
void too_many_bytes(const Map& map, Arguments) {
  uint64_t* barrier = new_barrier(1);
  load(map, barrier, 2 * kTileBytes);
  ptx::mbarrier_wait(barrier, 0);
}
void too_few_bytes(const Map& map, Arguments) {
  uint64_t* barrier = new_barrier(1);
  load(map, barrier, kTileBytes / 2);
  ptx::mbarrier_wait(barrier, 0);
}
void tile_at_an_odd_place(const Map& map, Arguments) {
  ATTUNE_DYNAMIC_SHARED(tile);
  uint64_t* barrier = new_barrier(1);
  if (thread() == 0) ptx::tma_load_2d(tile + 128, &map, barrier, 0, 0);
}
void tile_outside(const Map& map, Arguments) {
  ATTUNE_DYNAMIC_SHARED(tile);
  uint64_t* barrier = new_barrier(1);
  if (thread() == 0) ptx::tma_load_2d(tile + kSharedBytes - 1024, &map, barrier, 0, 0);
}
void block_ends_before_its_load(const Map& map, Arguments) { load(map, new_barrier(1), kTileBytes); }

void fill(uint8_t* tile) {
  for (int i = thread(); i < static_cast<int>(kTileBytes) / 4; i += kThreads) reinterpret_cast<uint32_t*>(tile)[i] = 0x40004000u;
}
void store_not_fenced(const Map& map, Arguments) {
  ATTUNE_DYNAMIC_SHARED(tile);
  fill(tile);
  __syncthreads();
  if (thread() != 0) return;
  ptx::tma_store_2d(&map, tile, 0, 0);
  ptx::tma_store_commit();
  ptx::tma_store_wait<0>();
}
void tile_reused_under_its_store(const Map& map, Arguments) {
  ATTUNE_DYNAMIC_SHARED(tile);
  fill(tile);
  ptx::fence_proxy_async();
  __syncthreads();
  if (thread() != 0) return;
  ptx::tma_store_2d(&map, tile, 0, 0);
  ptx::tma_store_commit();
  reinterpret_cast<uint32_t*>(tile)[5] = 0;
  ptx::tma_store_wait<0>();
}
void store_not_waited_for(const Map& map, Arguments) {
  ATTUNE_DYNAMIC_SHARED(tile);
  fill(tile);
  ptx::fence_proxy_async();
  __syncthreads();
  if (thread() == 0) {
    ptx::tma_store_2d(&map, tile, 0, 0);
    ptx::tma_store_commit();
  }
}

void store_at(const Map& map, int column, int row) {
  ATTUNE_DYNAMIC_SHARED(tile);
  fill(tile);
  ptx::fence_proxy_async();
  __syncthreads();
  if (thread() != 0) return;
  ptx::tma_store_2d(&map, tile, column, row);
  ptx::tma_store_commit();
  ptx::tma_store_wait<0>();
}
void tile_stored_into_odd_rows(const Map& map, Arguments) { store_at(map, 0, 0); }
void tile_stored_before_the_beginning(const Map& map, Arguments) { store_at(map, 0, -8); }

// ---- wgmma

void multiply(float (&d)[32], const uint8_t* a, const uint8_t* b) {
  ptx::wgmma<64>(d, ptx::wgmma_descriptor(a, 16, 1024), ptx::wgmma_descriptor(b, 16, 1024), false);
  ptx::wgmma_commit();
}
// What every form does right, for the ones below to do wrong.
uint8_t* loaded(const Map& map) {
  uint64_t* barrier = new_barrier(1);
  uint8_t* tile = load(map, barrier, kTileBytes);
  ptx::mbarrier_wait(barrier, 0);
  return tile;
}
void registers_not_fenced(const Map& map, Arguments a) {
  uint8_t* tile = loaded(map);
  float d[32] = {};
  multiply(d, tile, tile);
  ptx::wgmma_wait<0>();
  a.out[thread()] = d[0] / 16;
}
void product_not_waited_for(const Map& map, Arguments a) {
  uint8_t* tile = loaded(map);
  float d[32] = {};
  ptx::wgmma_fence();
  multiply(d, tile, tile);
  a.out[thread()] = d[0] / 16;
  ptx::wgmma_wait<0>();
}
void product_never_waited_for(const Map& map, Arguments) {
  uint8_t* tile = loaded(map);
  float d[32] = {};
  ptx::wgmma_fence();
  multiply(d, tile, tile);
}
void product_of_three_warps(const Map& map, Arguments) {
  uint8_t* tile = loaded(map);
  float d[32] = {};
  if (thread() >= 96) return;
  ptx::wgmma_fence();
  multiply(d, tile, tile);
  ptx::wgmma_wait<0>();
}
void descriptors_differ(const Map& map, Arguments) {
  uint8_t* tile = loaded(map);
  float d[32] = {};
  ptx::wgmma_fence();
  multiply(d, tile + (thread() >= 64 ? 32 : 0), tile);
  ptx::wgmma_wait<0>();
}
void operand_not_fenced(const Map&, Arguments) {
  ATTUNE_DYNAMIC_SHARED(tile);
  fill(tile);
  __syncthreads();
  float d[32] = {};
  ptx::wgmma_fence();
  multiply(d, tile, tile);
  ptx::wgmma_wait<0>();
}
void operand_within_a_panel(const Map& map, Arguments) {
  uint8_t* tile = loaded(map);
  float d[32] = {};
  ptx::wgmma_fence();
  multiply(d, tile, tile + 128);
  ptx::wgmma_wait<0>();
}

// ---- cp.async, ldmatrix

void copy_not_waited_for(const Map&, Arguments a) {
  ATTUNE_SHARED(float4, tile, kThreads);
  ptx::cp_async_16(&tile[thread()], a.out, true);
  ptx::cp_async_commit();
  ptx::cp_async_wait<1>();
  a.out[thread()] = tile[thread()].x + 1;
}
void copy_from_nowhere(const Map&, Arguments a) {
  ATTUNE_SHARED(float4, tile, kThreads);
  ptx::cp_async_16(&tile[thread()], a.out + kFloats, true);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
}
void copy_to_an_odd_place(const Map&, Arguments a) {
  ATTUNE_SHARED(float4, tile, kThreads + 1);
  ptx::cp_async_16(reinterpret_cast<uint8_t*>(&tile[thread()]) + 8, a.out, true);
}
void row_at_an_odd_place(const Map&, Arguments a) {
  ATTUNE_SHARED(float4, tile, kThreads + 1);
  uint32_t r[4];
  ptx::ldmatrix_x4(r, reinterpret_cast<uint8_t*>(&tile[thread()]) + 4);
  a.out[thread()] = static_cast<float>(r[0]);
}

// ---- Memory

void store_after_the_end(const Map&, Arguments a) { a.out[kFloats] = 1; }
void store_before_the_beginning(const Map&, Arguments a) { a.out[-1] = 1; }
void trapped(const Map&, Arguments) {
  if (thread() == 77) __trap();
}

}  // namespace

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"diverging_lanes", diverging_lanes, "others of its warp in __shfl_xor_sync"},
      {"narrow_mask", narrow_mask, "lacks lanes of the warp"},
      {"ended_lane", ended_lane, "ended"},
      {"half_a_warp_at_a_barrier", half_a_warp_at_a_barrier, "__syncthreads: this lane is at line"},
      {"missing_warp", missing_warp, "deadlock: 96 threads"},
      {"uneven_counts", uneven_counts, "where others arrived"},
      {"arrivals_left", arrivals_left, "ended with 64 of 128 arrivals"},
      {"missing_syncthreads", missing_syncthreads, nullptr},
      {"word_never_written", word_never_written, nullptr},
      {"barrier_not_initialised", barrier_not_initialised, "not initialised"},
      {"barrier_initialised_twice", barrier_initialised_twice, "holds a barrier already"},
      {"barrier_overwritten", barrier_overwritten, "overwritten"},
      {"too_few_arrivals", too_few_arrivals, "deadlock: 128 threads"},
      {"wrong_parity", wrong_parity, "deadlock"},
      {"lane_speaks_for_its_warp", lane_speaks_for_its_warp, nullptr},
      {"tile_not_waited_for", tile_not_waited_for, nullptr},
      {"too_many_bytes", too_many_bytes, "deadlock"},
      {"too_few_bytes", too_few_bytes, "deadlock"},
      {"tile_at_an_odd_place", tile_at_an_odd_place, "not a multiple of 1024"},
      {"tile_outside", tile_outside, "outside of the block's shared memory"},
      {"block_ends_before_its_load", block_ends_before_its_load, "loads in flight"},
      {"store_not_fenced", store_not_fenced, "no fence_proxy_async"},
      {"tile_reused_under_its_store", tile_reused_under_its_store, "no fence_proxy_async"},
      {"store_not_waited_for", store_not_waited_for, "did not wait for"},
      {"tile_stored_into_odd_rows", tile_stored_into_odd_rows, "multiple of 16 bytes", 90, 60},
      {"tile_stored_before_the_beginning", tile_stored_before_the_beginning, "at least 0"},
      {"registers_not_fenced", registers_not_fenced, "no wgmma_fence()"},
      {"product_not_waited_for", product_not_waited_for, nullptr},
      {"product_never_waited_for", product_never_waited_for, "not waited for"},
      {"product_of_three_warps", product_of_three_warps, "issued fewer"},
      {"descriptors_differ", descriptors_differ, "differs from another lane's"},
      {"operand_not_fenced", operand_not_fenced, "no fence_proxy_async"},
      {"operand_within_a_panel", operand_within_a_panel, "does not begin in row 0"},
      {"copy_not_waited_for", copy_not_waited_for, nullptr},
      {"copy_from_nowhere", copy_from_nowhere, "were not allocated"},
      {"copy_to_an_odd_place", copy_to_an_odd_place, "not a multiple of 16"},
      {"row_at_an_odd_place", row_at_an_odd_place, "16-byte aligned"},
      {"store_after_the_end", store_after_the_end, "wrote after an allocation"},
      {"store_before_the_beginning", store_before_the_beginning, "wrote before an allocation"},
      {"trapped", trapped, "__trap"},
      {"on_an_older_device", registers_not_fenced, "needs compute capability 9.0", 80},
  };
  return all;
}

}  // namespace attune::faults
