// Runs a grid: blocks one after another in a random order, a block's threads as fibers in random turns until all have ended. In the
// late timing a random warp or thread is kept from running at times, which is what shows a release that came too early.
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <string>

#include "machine.h"

namespace simt {

Thread current;
Block block;

namespace {

// Where a fault on the scheduler's own stack goes on (a copy that lands has no fiber).
std::jmp_buf after_fault;

char launch_tag, end_tag;  // ThreadSanitizer: the launch happens before all threads, all threads before its end

constexpr int kRoundsStarved = 12;
constexpr uint64_t kSeldom = 64, kLongestSleep = 64;  // one wait of so many, rounds

bool starved(int thread) { return thread >= block.starved_from && thread < block.starved_to; }

// A warp, or one thread of it: lanes are not in step unless something keeps them so.
void starve_some() {
  const auto count = static_cast<int>(block.count);
  const int thread = static_cast<int>(block.random.below(block.count));
  const bool whole_warp = block.warps.size() > 1 && block.random.below(2) == 0;
  block.starved_from = whole_warp ? thread / 32 * 32 : thread;
  block.starved_to = whole_warp ? std::min(count, block.starved_from + 32) : thread + 1;
}
void starve_none() { block.starved_from = block.starved_to = 0; }

// The thread whose turn is next, if it has not begun: it can run on the fiber of the one that just ended.
int next_fresh() {
  if (under_tsan() || block.cursor >= block.order.size()) return -1;
  const int thread = block.order[block.cursor];
  if (block.threads[thread].started || starved(thread)) return -1;
  ++block.cursor;
  return thread;
}

void enter(int thread) {
  block.running = thread;
  current.thread = block.threads[thread].index;
}

void resume(int thread) {
  ThreadState& state = block.threads[thread];
  enter(thread);
  if (!state.fiber) {
    if (block.free_fibers.empty()) block.free_fibers.push_back(new_fiber());
    state.fiber = block.free_fibers.back();
    block.free_fibers.pop_back();
    begin_tsan(*state.fiber);
  }
  state.spinning = false;
  state.started = true;
  switch_to(*state.fiber);
  ThreadState& last = block.thread();  // a fiber may have gone on to other threads
  if (last.done) {
    (under_tsan() ? block.retired_fibers : block.free_fibers).push_back(last.fiber);
    last.fiber = nullptr;
  }
  block.running = -1;
}

// Under ThreadSanitizer every thread is one of its own, and its stack serves no other before the block has ended.
void reclaim_retired() {
  for (Fiber* fiber : block.retired_fibers) {
    end_tsan(*fiber);
    block.free_fibers.push_back(fiber);
  }
  block.retired_fibers.clear();
}

// Turns: warps in random order, the lanes of each from a random one on.
void new_round() {
  const auto warps = static_cast<unsigned>(block.warps.size());
  static std::vector<unsigned> shuffled;
  shuffled.resize(warps);
  std::iota(shuffled.begin(), shuffled.end(), 0u);
  for (unsigned i = warps; i > 1; --i) std::swap(shuffled[i - 1], shuffled[block.random.below(i)]);
  block.order.clear();
  for (unsigned warp : shuffled) {
    const unsigned first = warp * 32, lanes = std::min(32u, block.count - first);
    const auto start = static_cast<unsigned>(block.random.below(lanes));
    for (unsigned i = 0; i < lanes; ++i) {
      const unsigned lane = start + i < lanes ? start + i : start + i - lanes;
      if (!block.threads[first + lane].done) block.order.push_back(static_cast<int>(first + lane));
    }
  }
  block.cursor = 0;
}

[[noreturn]] void report_deadlock() {
  std::map<std::string, std::vector<int>> waiting;
  for (unsigned i = 0; i < block.count; ++i) {
    const ThreadState& state = block.threads[i];
    if (!state.done)
      waiting[std::string(state.wait.what) + " at line " + std::to_string(state.wait.site.line())].push_back(static_cast<int>(i));
  }
  std::string text = "deadlock:";
  for (const auto& [what, threads] : waiting) {
    text += " " + std::to_string(threads.size()) + " threads (" + std::to_string(threads.front()) + " to " +
            std::to_string(threads.back()) + ") wait for " + what + ";";
  }
  text.pop_back();
  fault("%s", text.c_str());
}

void wake_all() {
  for (ThreadState& state : block.threads) state.asleep_until = 0;
  block.sleepers = false;
}

void run_block() {
  while (block.alive > 0) {
    if (block.late && block.count > 1 && block.round % kRoundsStarved == 0) starve_some();
    ++block.round;
    new_round();
    bool progress = false;
    while (block.cursor < block.order.size()) {
      const int thread = block.order[block.cursor++];
      ThreadState& state = block.threads[thread];
      if (state.done || state.asleep_until > block.round || starved(thread) || !state.wait.over()) continue;
      resume(thread);
      if (block.failed) return;
      progress |= !state.spinning;
      if (!block.pending.empty() && (!block.late || block.random.below(4096) == 0)) run_pending_copy();
    }
    if (progress) continue;
    if (!block.pending.empty())
      run_pending_copy();
    else if (block.starved_to > 0)
      starve_none();
    else if (block.sleepers)
      wake_all();
    else
      report_deadlock();
  }
}

void begin_block() {
  block.threads.assign(block.count, {});
  for (unsigned i = 0; i < block.count; ++i)
    block.threads[i].index = {i % current.threads.x, i / current.threads.x % current.threads.y,
                              i / (current.threads.x * current.threads.y)};
  block.warps.resize((block.count + 31) / 32);
  for (size_t i = 0; i < block.warps.size(); ++i) {
    Warp& warp = block.warps[i];
    const unsigned lanes = std::min<unsigned>(32, block.count - static_cast<unsigned>(i) * 32);
    warp.present = lanes == 32 ? 0xFFFFFFFFu : (1u << lanes) - 1;
    warp.ended = 0;
    warp.arrived = warp.threads_arrived = 0;
    warp.generation = 0;
  }
  for (NamedBarrier& barrier : block.named) barrier = {};
  block.mbarriers.clear();
  block.copies.clear();
  reset_warpgroups();
  block.pending.clear();
  block.alive = block.count;
  block.round = 0;
  block.sleepers = false;
  starve_none();
  block.running = -1;
  block.failed = false;
  begin_shared(block.dynamic_bytes);
}

// False after a fault, on a fiber or here.
bool run_to_end() {
  if (setjmp(after_fault) == 0) {
    run_block();
    if (!block.failed) {
      check_barriers_at_end();
      check_copies_at_end();
      check_warpgroups_at_end();
    }
  }
  return !block.failed;
}

void abandon_block() {
  for (ThreadState& state : block.threads) {
    if (!state.fiber) continue;
    end_tsan(*state.fiber);
    forget(*state.fiber);
    block.free_fibers.push_back(state.fiber);
    state.fiber = nullptr;
  }
  block.running = -1;
}

}  // namespace

void fiber_main() {
  Fiber& fiber = *block.thread().fiber;
  entered_fiber(fiber);
  for (;;) {
    acquire(&launch_tag);
    (*block.body)();
    release(&end_tag);
    ThreadState& state = block.thread();
    state.done = true;
    --block.alive;
    thread_ended(block.running);
    if (const int next = next_fresh(); next >= 0) {
      state.fiber = nullptr;
      enter(next);
      block.thread().fiber = &fiber;
      block.thread().started = true;
    } else {
      switch_to_scheduler(fiber);
    }
  }
}

void wait_until(const Wait& wait) {
  ThreadState& state = block.thread();
  if (wait.over()) {
    if (!block.late || block.random.below(kSeldom) != 0) return;
    state.asleep_until = block.round + block.random.below(kLongestSleep);
    block.sleepers = true;
  }
  state.wait = wait;
  switch_to_scheduler(*state.fiber);
  block.thread().wait.word = nullptr;
}

void yield_spinning() {
  ThreadState& state = block.thread();
  state.spinning = true;
  state.wait.what = "a barrier that it asks again and again";
  switch_to_scheduler(*state.fiber);
}

void fault(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const uint3 b = current.block;
  if (block.running >= 0)
    fprintf(stderr, "simt: %s: block (%u, %u, %u), thread %d: %s\n", block.kernel, b.x, b.y, b.z, block.running, text);
  else
    fprintf(stderr, "simt: %s: block (%u, %u, %u): %s\n", block.kernel, b.x, b.y, b.z, text);
  if (std::getenv("ATTUNE_SIMT_ABORT")) std::abort();
  block.failed = true;
  if (block.running < 0) std::longjmp(after_fault, 1);
  switch_to_scheduler(*block.thread().fiber);
  std::abort();  // a failed block is never resumed
}

void need_capability(int capability, const char* what) {
  if (device_capability() < capability) fault("%s needs compute capability %d.%d", what, capability / 10, capability % 10);
}

bool run_grid(const char* kernel, dim3 grid, dim3 threads, size_t shared_bytes, uint64_t launch, const std::function<void()>& body) {
  block.kernel = kernel;
  block.body = &body;
  block.count = threads.x * threads.y * threads.z;
  block.dynamic_bytes = shared_bytes;
  block.random.state = (options().seed * 0x9E3779B97F4A7C15ull + launch * 0xD1B54A32D192ED03ull) | 1;
  for (int i = 0; i < 8; ++i) block.random.next();
  block.late = options().timing == Timing::late || (options().timing == Timing::mixed && block.random.below(2) == 1);
  current.blocks = grid;
  current.threads = threads;

  // A walk over all blocks by a random step that shares no factor with their number.
  const uint64_t all = uint64_t{grid.x} * grid.y * grid.z, ends = options().ends;
  const uint64_t blocks = ends > 0 && all > options().whole ? std::min(all, 2 * ends) : all;
  uint64_t step = blocks > 2 ? block.random.below(blocks - 1) + 1 : 1, at = block.random.below(blocks);
  while (std::gcd(step, blocks) != 1) ++step;
  bool ok = true;
  for (uint64_t i = 0; ok && i < blocks; ++i, at = (at + step) % blocks) {
    const uint64_t index = at < blocks - ends ? at : at + all - blocks;
    current.block = {static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y),
                     static_cast<unsigned>(index / (uint64_t{grid.x} * grid.y))};
    begin_block();
    release(&launch_tag);
    ok = run_to_end();
    if (!ok) abandon_block();
    acquire(&end_tag);
    reclaim_retired();
    end_shared();
  }
  return ok;
}

}  // namespace simt
