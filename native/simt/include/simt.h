// The emulator of a GPU that runs native/cuda on a CPU, for tests: what a kernel and its launch see. Kernels are compiled by g++ from
// the same files as nvcc compiles; each CUDA thread is a fiber, blocks run one at a time in a random order. A mistake of a kernel
// (a deadlock, lanes that diverge in a warp's collective, a barrier used before its initialisation, ...) is printed with the
// kernel, block and thread, and the device then answers every call with cudaErrorLaunchFailure, as a GPU does.
//
// Environment: ATTUNE_SIMT_SEED=n, ATTUNE_SIMT_TIMING=early|late|mixed (asynchronous operations complete when issued, when waited for,
// or one or the other by launch), ATTUNE_SIMT_ARCH=90|80, ATTUNE_SIMT_SMS=n, ATTUNE_SIMT_MEMORY=bytes,
// ATTUNE_SIMT_FAIL=malloc:n|launch:n|lost:n (the n-th one fails, from 1), ATTUNE_SIMT_KERNELS=1 (each
// kernel that runs is a line of stderr: `simt: kernel NAME BYTES`, of dynamic shared memory), ATTUNE_SIMT_SPARSE=n (tensors larger
// than the machine: of a large grid only the first n blocks and the last n run, and large allocations are not filled).
//
// Not modelled: bank conflicts, the memory model's reordering of plain accesses, the order of a tensor core's sums.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>

#include "driver_types.h"
#include "vector_types.h"

namespace simt {

using Site = std::source_location;  // where in a kernel a collective stands

struct Thread {
  uint3 thread, block;
  dim3 threads{1}, blocks{1};
};
extern Thread current;  // of the running fiber

enum class Timing { early, late, mixed };
struct Options {
  uint64_t seed = 1;
  Timing timing = Timing::mixed;
  uint64_t ends = 0;   // of a grid with more blocks than twice this, only so many first and last ones run; 0: all run
  uint64_t whole = 0;  // but all of a grid of up to so many
};
Options& options();  // for the launches to come; begins as the environment says

// Queues `body` for every thread of a grid.
cudaError_t launch(const char* name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, std::function<void()> body);

// Ends the kernel with a message; does not return.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));

uint8_t* dynamic_shared();
// The block's static array that `tag` stands for; NaN bytes at first.
void* static_shared(const void* tag, size_t bytes, size_t align, const char* name);

// What a warp's collectives share: every lane gives 8 bytes and sees all 32. `Op` names the operation.
struct Lanes {
  const uint64_t* values;  // 32, valid until this lane's next collective
  uint32_t present;        // the warp's lanes: all 32, fewer in a block's last warp
  int lane;
};
Lanes exchange(const char* op, uint32_t mask, uint64_t value, Site site);
void sync_warp(uint32_t mask, Site site);
void sync_threads(Site site);
// Barrier with a sum over the block of what its threads give.
int sync_threads_count(int value, Site site);

}  // namespace simt

#define threadIdx (simt::current.thread)
#define blockIdx (simt::current.block)
#define blockDim (simt::current.threads)
#define gridDim (simt::current.blocks)
constexpr int warpSize = 32;

#define ATTUNE_SHARED(T, name, n)     \
  static const char name##_simt_tag = 0; \
  T(&name)[n] = *static_cast<T(*)[n]>(simt::static_shared(&name##_simt_tag, sizeof(T) * (n), alignof(T), #name))
#define ATTUNE_DYNAMIC_SHARED(name) uint8_t* const name = simt::dynamic_shared()
