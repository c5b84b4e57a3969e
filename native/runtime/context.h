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

class Context {
 public:
  virtual ~Context() = default;
  virtual Pool& pool() = 0;
  // This instruction's planned scratch (what the op's scratch function asked for), shared by all its tasks.
  virtual void* scratch() = 0;
  // `thread`'s own scratch: kThreadScratch bytes, 64-byte aligned, content undefined.
  static constexpr int64_t kThreadScratch = 2 << 20;
  virtual void* thread_scratch(int thread) = 0;
  // A place for a copy of a persistent buffer in another layout (packed GEMM panels of a weight): `bytes` that live as long as
  // the buffer. *valid says that the place already holds the copy of the present content. Null when `data` is no weight.
  // Called by the main thread of an instruction only, before its tasks start.
  virtual void* derived(const void* data, int form, int64_t bytes, bool* valid) = 0;

  template <class F> void parallel(int64_t count, F&& f) {
    auto call = [](void* arg, int64_t index, int thread) { (*static_cast<F*>(arg))(index, thread); };
    pool().run(count, call, &f);
  }
};

}  // namespace attune
