// The switch between stacks and what the sanitizers must hear of it.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

extern "C" {
// Present when the program is built with a sanitizer.
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size) __attribute__((weak));
void __asan_unpoison_memory_region(void const volatile* from, size_t bytes) __attribute__((weak));
void* __tsan_get_current_fiber() __attribute__((weak));
void* __tsan_create_fiber(unsigned flags) __attribute__((weak));
void __tsan_destroy_fiber(void* fiber) __attribute__((weak));
void __tsan_switch_to_fiber(void* fiber, unsigned flags) __attribute__((weak));
void __tsan_acquire(void* tag) __attribute__((weak));
void __tsan_release(void* tag) __attribute__((weak));
void __tsan_ignore_thread_begin() __attribute__((weak));
void __tsan_ignore_thread_end() __attribute__((weak));

// Saves the callee-saved registers and the stack pointer at `from`, goes on at `to`.
void simt_switch(void** from, void* to);
}

#if !defined(__x86_64__)
#error "the emulator's switch of stacks is written for x86-64"
#endif
asm(R"(
.text
.globl simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
)");

namespace simt {
namespace {

constexpr unsigned kNoSynchronisation = 1;
constexpr size_t kPage = 4096;

// The scheduler, while a fiber runs.
void* scheduler_pointer;
void* scheduler_fake_stack;
void* scheduler_tsan;
const void* scheduler_bottom;
size_t scheduler_size;

// The first frame of a stack: fiber_main with the return address of nobody, six registers to pop.
void rewind(Fiber& fiber) {
  auto* top = reinterpret_cast<void**>(fiber.stack + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
  fiber.fake_stack = nullptr;
}

}  // namespace

Fiber* new_fiber() {
  // A guard page below: a kernel's frame that is too large is a crash, not a neighbour's stack.
  void* memory = mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  mprotect(memory, kPage, PROT_NONE);
  auto* fiber = new Fiber;
  fiber->stack = static_cast<char*>(memory) + kPage;
  rewind(*fiber);
  return fiber;
}

void switch_to(Fiber& fiber) {
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack, kStackBytes);
  if (__tsan_switch_to_fiber) {
    scheduler_tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber.tsan, kNoSynchronisation);
  }
  simt_switch(&scheduler_pointer, fiber.stack_pointer);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
}

void switch_to_scheduler(Fiber& fiber) {
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&fiber.fake_stack, scheduler_bottom, scheduler_size);
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(scheduler_tsan, kNoSynchronisation);
  simt_switch(&fiber.stack_pointer, scheduler_pointer);
  entered_fiber(fiber);
}

void entered_fiber(Fiber& fiber) {
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_bottom, &scheduler_size);
}

void forget(Fiber& fiber) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(fiber.stack, kStackBytes);
  rewind(fiber);
}

bool under_tsan() { return __tsan_create_fiber != nullptr; }
void begin_tsan(Fiber& fiber) {
  end_tsan(fiber);
  if (under_tsan()) fiber.tsan = __tsan_create_fiber(0);
}
void end_tsan(Fiber& fiber) {
  if (under_tsan() && fiber.tsan) __tsan_destroy_fiber(fiber.tsan);
  fiber.tsan = nullptr;
}
void acquire(void* tag) {
  if (__tsan_acquire) __tsan_acquire(tag);
}
void release(void* tag) {
  if (__tsan_release) __tsan_release(tag);
}

Unwatched::Unwatched() {
  if (__tsan_ignore_thread_begin) __tsan_ignore_thread_begin();
}
Unwatched::~Unwatched() {
  if (__tsan_ignore_thread_end) __tsan_ignore_thread_end();
}

}  // namespace simt
