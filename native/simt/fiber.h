// Fibers: stacks of their own, switched by hand. One runs at a time; the scheduler runs on the host's stack.
// AddressSanitizer and ThreadSanitizer are told of every switch when the program has them. This folder is compiled without them.
#pragma once
#include <cstddef>

namespace simt {

struct Fiber {
  void* stack_pointer = nullptr;  // saved while it does not run
  char* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* tsan = nullptr;
};

constexpr size_t kStackBytes = 256 * 1024;

// A fiber that will run `fiber_main` (scheduler.cc) when first switched to. Kept for the process.
Fiber* new_fiber();
void fiber_main();

void switch_to(Fiber& fiber);        // from the scheduler
void switch_to_scheduler(Fiber& fiber);  // from the fiber that runs
void entered_fiber(Fiber& fiber);    // a fiber's first words
void forget(Fiber& fiber);           // abandoned where it stood: its stack may be used from its top again

bool under_tsan();
void begin_tsan(Fiber& fiber);  // a fresh thread in ThreadSanitizer's eyes
void end_tsan(Fiber& fiber);
void acquire(void* tag);  // happens-before edges, for ThreadSanitizer
void release(void* tag);
// While one lives, ThreadSanitizer takes no note of what the emulator itself does to the memory of threads.
struct Unwatched {
  Unwatched();
  ~Unwatched();
};

}  // namespace simt
