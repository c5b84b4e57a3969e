// What a kernel may use besides its tensors: threads and scratch. Kernels never allocate, throw or keep globals.
#pragma once
#include <cstdint>
#include <utility>

namespace attune {

// Runs tasks 0..count-1, each exactly once, on the pool's threads and the caller. Tasks are cut by shape alone, never by
// the number of threads: that is what keeps results independent of it.
class Pool {
 public:
  virtual ~Pool() = default;
  virtual int threads() const = 0;  // including the caller
  virtual void run(int64_t count, void (*task)(void* arg, int64_t index, int thread), void* arg) = 0;
};

// A copy of one tensor in another layout that an instruction would keep between runs: packed GEMM panels of a weight.
// `data` is the tensor's; null: no copy is wanted. Known from the shapes alone, so a plan can count it.
struct Copy {
  const void* data = nullptr;
  int form = 0;  // the layout: instructions that want the same form of a weight share one copy
  int64_t bytes = 0;
};

class Context {
 public:
  virtual ~Context() = default;
  virtual Pool& pool() = 0;
  // This instruction's planned scratch (what the op's scratch function asked for), shared by all its tasks.
  virtual void* scratch() = 0;
  // `thread`'s own scratch: kThreadScratch bytes, 64-byte aligned, content undefined.
  static constexpr int64_t kThreadScratch = 2 << 20;
  virtual void* thread_scratch(int thread) = 0;
  // The place of the copy that the op's `derived` function declared, which lives as long as the weight. *valid says that it
  // already holds the copy of the present content. Null where the tensor is no weight.
  // Called by the main thread of an instruction only, before its tasks start.
  virtual void* derived(const Copy& copy, bool* valid) = 0;

  template <class F> void parallel(int64_t count, F&& f) {
    auto call = [](void* arg, int64_t index, int thread) { (*static_cast<F*>(arg))(index, thread); };
    pool().run(count, call, &f);
  }
};

}  // namespace attune
