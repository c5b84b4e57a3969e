// Barriers of a block: __syncthreads, the named ones, and mbarriers. An mbarrier's eight bytes in shared memory hold a mark and its
// number, so that one never initialised, or overwritten by a tile, is found out.
#include "include/simt_ptx.h"
#include "machine.h"

namespace simt {
namespace {

constexpr uint64_t kMark = 0xBA221E2ull << 32;
constexpr uint64_t kMarkBits = ~uint64_t{0xFFFFFFFF};

void complete(NamedBarrier& barrier) {
  publish_stores();
  barrier.result[barrier.generation & 1] = barrier.sum;
  barrier.sum = 0;
  barrier.arrived = 0;
  ++barrier.generation;
}

Mbarrier& find(uint64_t* at, const char* what) {
  shared_offset(at, 8, what);
  const uint64_t bits = *at;
  const uint64_t number = bits & 0xFFFFFFFF;
  if ((bits & kMarkBits) != kMark || number >= block.mbarriers.size() || block.mbarriers[number].at != at)
    fault("%s: no barrier at shared address %u: not initialised, or overwritten", what, shared_address(at));
  return block.mbarriers[number];
}

void finish_phase(Mbarrier& barrier) {
  if (barrier.missing != 0 || barrier.bytes != 0) return;
  publish_stores();
  ++barrier.phase;
  barrier.missing = barrier.count;
}

}  // namespace

void sync_threads(Site site) { sync_threads_count(0, site); }

int sync_threads_count(int value, Site site) {
  Warp& warp = block.warp();
  if (warp.threads_arrived == 0)
    warp.threads_site = site;
  else if (!same_site(warp.threads_site, site))
    fault("__syncthreads: this lane is at line %u, another of its warp at line %u", site.line(), warp.threads_site.line());
  warp.threads_arrived += 1;
  if (warp.threads_arrived == __builtin_popcount(warp.present & ~warp.ended)) warp.threads_arrived = 0;

  NamedBarrier& barrier = block.named[0];
  release(&barrier.tag);
  const uint64_t generation = barrier.generation;
  barrier.sum += value;
  if (++barrier.arrived == block.alive)
    complete(barrier);
  else
    wait_until({&barrier.generation, generation, ~uint64_t{0}, "__syncthreads", site});
  acquire(&barrier.tag);
  return barrier.result[generation & 1];
}

void thread_ended(int thread) {
  Warp& warp = block.warps[thread / 32];
  warp.ended |= 1u << (thread % 32);
  if (warp.arrived > 0) fault("this lane has ended while others of its warp wait in %s at line %u", warp.op, warp.site.line());
  NamedBarrier& barrier = block.named[0];
  if (barrier.arrived > 0 && barrier.arrived == block.alive) complete(barrier);
}

void named_barrier(uint32_t id, uint32_t threads, bool wait, Site site) {
  if (id < 1 || id > 15) fault("named barrier %u: the ids are 1 to 15", id);
  if (threads == 0 || threads % 32 != 0 || threads > block.warps.size() * 32)
    fault("named barrier %u: %u threads; it must be a multiple of 32, at most the block's", id, threads);
  NamedBarrier& barrier = block.named[id];
  if (barrier.arrived == 0)
    barrier.expected = threads;
  else if (barrier.expected != threads)
    fault("named barrier %u: %u threads here, %u where others arrived", id, threads, barrier.expected);
  release(&barrier.tag);
  const uint64_t generation = barrier.generation;
  if (++barrier.arrived == threads) complete(barrier);
  if (!wait) return;
  wait_until({&barrier.generation, generation, ~uint64_t{0}, "a named barrier", site});
  acquire(&barrier.tag);
}

void mbarrier_init(uint64_t* at, uint32_t count) {
  const Unwatched unwatched;
  need_capability(80, "an mbarrier");
  shared_offset(at, 8, "mbarrier_init");
  if (reinterpret_cast<uintptr_t>(at) % 8 != 0) fault("mbarrier_init: a barrier must be 8-byte aligned");
  if (count == 0 || count >= 1u << 20) fault("mbarrier_init: %u arrivals", count);
  for (const Mbarrier& barrier : block.mbarriers)
    if (barrier.at == at) fault("mbarrier_init: shared address %u holds a barrier already", shared_address(at));
  *at = kMark | block.mbarriers.size();
  block.mbarriers.push_back({at, 0, count, count, 0, 0});
}

void mbarrier_arrive(uint64_t* at, uint32_t bytes, bool expect) {
  if (expect) need_capability(90, "mbarrier.arrive.expect_tx");
  Mbarrier& barrier = find(at, "mbarrier_arrive");
  release(&barrier.tag);
  if (barrier.missing == 0) fault("mbarrier_arrive: more arrivals than the %u of a phase", barrier.count);
  --barrier.missing;
  barrier.bytes += bytes;
  finish_phase(barrier);
}

// Bytes of a TMA load have landed.
void mbarrier_landed(uint64_t* at, size_t bytes) {
  Mbarrier& barrier = find(at, "a TMA load's barrier");
  release(&barrier.tag);
  barrier.bytes -= static_cast<int64_t>(bytes);
  finish_phase(barrier);
}

bool mbarrier_test(uint64_t* at, uint32_t parity) {
  Mbarrier& barrier = find(at, "mbarrier_test");
  if ((barrier.phase & 1) == parity) yield_spinning();
  if ((barrier.phase & 1) == parity) return false;
  acquire(&barrier.tag);
  return true;
}

void mbarrier_wait(uint64_t* at, uint32_t parity, Site site) {
  if (parity > 1) fault("mbarrier_wait: parity %u", parity);
  Mbarrier& barrier = find(at, "mbarrier_wait");
  wait_until({&barrier.phase, parity, 1, parity ? "an mbarrier, parity 1" : "an mbarrier, parity 0", site});
  acquire(&barrier.tag);
}

void check_barriers_at_end() {
  for (int id = 1; id < 16; ++id)
    if (block.named[id].arrived > 0)
      fault("the block ended with %u of %u arrivals at named barrier %d", block.named[id].arrived, block.named[id].expected, id);
}

}  // namespace simt
