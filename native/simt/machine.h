// The block that runs: its threads, what they wait for, its shared memory, what it has in flight. One at a time, under the
// runtime's lock.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "fiber.h"
#include "include/cuda.h"
#include "include/simt.h"

namespace simt {

// Shared addresses are 18 bits. The first kilobyte is the system's, as on a GPU, so that no address is zero; then dynamic shared
// memory, then the static arrays with gaps between them.
constexpr size_t kSharedBytes = 256 * 1024;
constexpr size_t kSharedReserved = 1024;

struct Random {
  uint64_t state = 1;
  uint64_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  }
  uint64_t below(uint64_t n) { return next() % n; }
};

// A thread goes on when the masked word differs from `value`.
struct Wait {
  const uint64_t* word = nullptr;
  uint64_t value = 0, mask = ~uint64_t{0};
  const char* what = "";
  Site site;
  bool over() const { return word == nullptr || ((*word ^ value) & mask) != 0; }
};

struct ThreadState {
  uint3 index{};
  Fiber* fiber = nullptr;
  Wait wait;
  bool started = false, done = false;
  bool spinning = false;  // asked a barrier and was told no: no progress by itself
  uint64_t asleep_until = 0;  // a round: held up although it could go on
};

struct Warp {
  uint64_t values[2][32];  // alternate collectives: a lane is at most one ahead
  uint64_t generation = 0;
  uint32_t present = 0, ended = 0;
  int arrived = 0;
  const char* op = "";
  Site site;
  Site threads_site;  // where its first lane stands in __syncthreads
  int threads_arrived = 0;
  struct {
    void* out;
    const void *a, *b;
  } operands[32];
};

// Barriers by number; 0 is __syncthreads.
struct NamedBarrier {
  uint64_t generation = 0;
  unsigned arrived = 0, expected = 0;
  int sum = 0, result[2] = {0, 0};
  char tag = 0;  // ThreadSanitizer's
};

struct Mbarrier {
  uint64_t* at = nullptr;
  uint64_t phase = 0;
  uint32_t count = 0, missing = 0;
  int64_t bytes = 0;  // announced, not landed
  char tag = 0;
};

// A copy in flight, not yet begun.
struct Pending {
  std::function<void()> run;
};

struct Copy16 {
  uint8_t* to;
  const uint8_t* from;  // null: zeros
};
// What one thread has in flight by cp.async and by TMA stores; groups are ends in the lists.
struct ThreadCopies {
  std::deque<Copy16> copies;
  std::deque<size_t> groups;  // sizes of committed groups
  size_t open = 0;            // copies since the last commit
  std::deque<std::function<void()>> stores;
  std::deque<size_t> store_groups;
  size_t open_stores = 0;
};

struct WarpgroupState;  // wgmma.cc

struct StaticArray {
  const void* tag;
  size_t offset, bytes;
};

struct Block {
  const char* kernel = "";
  const std::function<void()>* body = nullptr;
  unsigned count = 0;  // threads
  size_t dynamic_bytes = 0;
  bool late = false;
  Random random;

  std::vector<ThreadState> threads;
  std::vector<Warp> warps;
  NamedBarrier named[16];
  std::deque<Mbarrier> mbarriers;
  std::vector<ThreadCopies> copies;          // sized when first used
  std::vector<WarpgroupState*> warpgroups;   // the same
  std::deque<Pending> pending;               // TMA loads
  std::vector<StaticArray> statics;
  size_t static_top = 0;

  // The scheduler's round.
  std::vector<int> order;
  size_t cursor = 0;
  uint64_t round = 0;
  bool sleepers = false;  // some thread may be asleep
  int starved_from = 0, starved_to = 0;  // threads that may not run
  int running = -1;  // a thread; -1 is the scheduler
  unsigned alive = 0;
  bool failed = false;
  std::vector<Fiber*> free_fibers, retired_fibers;

  ThreadState& thread() { return threads[running]; }
  Warp& warp() { return warps[running / 32]; }
  int lane() const { return running % 32; }
  ThreadCopies& thread_copies() {
    if (copies.empty()) copies.resize(count);
    return copies[running];
  }
};
extern Block block;

// The running thread stops until `wait` is over; at times it stops for a while although it is.
void wait_until(const Wait& wait);
void yield_spinning();
bool same_site(const Site& a, const Site& b);
// The running lane joins the others of its warp in `op`; faults when they are elsewhere. True for the last one, which does the work
// and calls `leave`; the others wait for the warp's generation to change.
bool join(Warp& warp, const char* op, uint32_t mask, Site site);
void leave(Warp& warp);
constexpr uint32_t kFullWarp = 0xFFFFFFFFu;

// Shared memory. shared.cc
extern uint8_t* const shared_memory;  // the byte at shared address 0
void begin_shared(size_t dynamic_bytes);
void end_shared();
// The offset of `bytes` that lie wholly inside the block's shared memory; faults otherwise.
size_t shared_offset(const void* at, size_t bytes, const char* what);
void publish_stores();  // what plain stores wrote up to a fence is known to the async proxy
void async_write(size_t offset, const void* from, size_t bytes);
void check_async_read(size_t offset, size_t bytes, const char* what);

void thread_ended(int thread);     // barriers.cc: __syncthreads waits for those that are left
void mbarrier_landed(uint64_t* at, size_t bytes);  // of a TMA load
void check_barriers_at_end();
void run_pending_copy();           // copies.cc
void check_copies_at_end();
void reset_warpgroups();           // wgmma.cc
void check_warpgroups_at_end();

// The runtime's side.
bool in_device_memory(const void* at, size_t bytes);
int device_capability();  // 90 or 80
size_t shared_limit();     // bytes of shared memory that a block may have
void need_capability(int capability, const char* what);
// Runs a whole grid; false after a fault.
bool run_grid(const char* kernel, dim3 grid, dim3 threads, size_t shared_bytes, uint64_t launch, const std::function<void()>& body);

}  // namespace simt
