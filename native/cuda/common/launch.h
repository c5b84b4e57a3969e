// The one way a kernel is launched. An op's host function gets a Stream: where its launches go, what the device is, and the
// instruction's planned scratch. A failure is kept (the first one), with the kernel's name and CUDA's words; later launches do nothing.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <type_traits>

#ifdef ATTUNE_SIMT
#include <simt.h>
#endif

namespace attune::cuda {

struct Properties {
  int major = 0, minor = 0;  // compute capability
  int sms = 0;               // streaming multiprocessors
  int64_t shared = 0;        // bytes of shared memory that a block may opt in to
};

namespace lt {
class Choices;
}

class Stream {
 public:
  Stream(cudaStream_t handle, const Properties& device) : handle_(handle), device_(device) {}

  cudaStream_t handle() const { return handle_; }
  const Properties& device() const { return device_; }
  // The instruction's scratch, 256-byte aligned: what the op's scratch function asked for.
  template <class T> T* scratch() const { return static_cast<T*>(scratch_); }
  void use_scratch(void* data) { scratch_ = data; }
  // What was chosen for the session's products; null: what the process chose.
  lt::Choices* choices() const { return choices_; }
  void use_choices(lt::Choices* choices) { choices_ = choices; }
  // Each kernel is waited for, so that one that fails is known by its name. Slow; not during a capture.
  void wait_for_each(bool wanted) { waits_ = wanted; }

  bool ok() const { return failure_.empty(); }
  const std::string& failure() const { return failure_; }
  void fail(const std::string& what) {
    if (ok()) failure_ = what;
  }

  // Queues kernel(args...) on `grid` blocks of `block` threads with `shared` bytes of dynamic shared memory.
  // An empty grid is nothing to do.
  template <class... P>
  void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, std::type_identity_t<P>... args) {
    if (!ok() || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef ATTUNE_SIMT
    cudaError_t error = simt::launch(name, grid, block, shared, handle_, [=] { kernel(args...); });
#else
    const void* function = reinterpret_cast<const void*>(kernel);
    cudaError_t error = cudaSuccess;
    if (shared > 48 * 1024)
      error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    void* pointers[sizeof...(P) + 1] = {static_cast<void*>(&args)...};
    if (error == cudaSuccess) error = cudaLaunchKernel(function, grid, block, pointers, shared, handle_);
#endif
    if (error == cudaSuccess && waits_) error = cudaStreamSynchronize(handle_);
    if (error != cudaSuccess) fail(std::string(name) + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
  }

 private:
  cudaStream_t handle_;
  const Properties& device_;
  void* scratch_ = nullptr;
  lt::Choices* choices_ = nullptr;
  bool waits_ = false;
  std::string failure_;
};

}  // namespace attune::cuda
