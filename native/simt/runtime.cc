// The device: what it says of itself, its memory, its errors. Memory is poisoned with NaN bytes when it is handed out and has guards on
// both sides, which AddressSanitizer knows of and which are looked at when it is freed.
#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "include/cuda.h"
#include "machine.h"

extern "C" {
void __asan_poison_memory_region(void const volatile* from, size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(void const volatile* from, size_t bytes) __attribute__((weak));
}

namespace simt {
namespace {

constexpr size_t kGuard = 256;  // also the alignment of an allocation
constexpr size_t kFilled = size_t{32} << 20;  // at either end, of what is sparse
constexpr uint8_t kGuardByte = 0xA5, kNan = 0xFF;

struct Memory {
  std::map<uintptr_t, size_t> device, host;  // first byte, bytes
  uint64_t used = 0, allocations = 0;
};
Memory& memory() {
  static Memory m;
  return m;
}

cudaError_t stuck_with = cudaSuccess;
thread_local cudaError_t last_error = cudaSuccess;

bool inside(const std::map<uintptr_t, size_t>& allocations, const void* at, size_t bytes) {
  const auto address = reinterpret_cast<uintptr_t>(at);
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return false;
  const auto& [first, size] = *--next;
  return address + bytes <= first + size;
}

bool whole(const uint8_t* guard) {
  for (size_t i = 0; i < kGuard; ++i)
    if (guard[i] != kGuardByte) return false;
  return true;
}

uint64_t number(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

Options first_options() {
  Options options;
  options.seed = number("ATTUNE_SIMT_SEED", 1);
  options.ends = number("ATTUNE_SIMT_SPARSE", 0);
  const char* timing = std::getenv("ATTUNE_SIMT_TIMING");
  if (timing && std::strcmp(timing, "early") == 0) options.timing = Timing::early;
  if (timing && std::strcmp(timing, "late") == 0) options.timing = Timing::late;
  return options;
}

Environment read_environment() {
  Environment e;
  e.capability = static_cast<int>(number("ATTUNE_SIMT_ARCH", 90));
  e.sms = static_cast<int>(number("ATTUNE_SIMT_SMS", 4));
  e.memory = number("ATTUNE_SIMT_MEMORY", e.memory);
  e.kernels = std::getenv("ATTUNE_SIMT_KERNELS") != nullptr;
  e.graphs = std::getenv("ATTUNE_SIMT_GRAPHS") != nullptr;
  const char* streams = std::getenv("ATTUNE_SIMT_STREAMS");
  e.eager = streams != nullptr && std::strcmp(streams, "early") == 0;
  if (const char* fail = std::getenv("ATTUNE_SIMT_FAIL")) {
    const char* colon = std::strchr(fail, ':');
    const uint64_t nth = colon ? std::strtoull(colon + 1, nullptr, 0) : 1;
    if (std::strncmp(fail, "malloc", 6) == 0) e.fail_malloc = nth;
    if (std::strncmp(fail, "launch", 6) == 0) e.fail_launch = nth;
    if (std::strncmp(fail, "lost", 4) == 0) e.fail_lost = nth;
  }
  return e;
}

}  // namespace

Options& options() {
  static Options o = first_options();
  return o;
}
const Environment& environment() {
  static const Environment e = read_environment();
  return e;
}
std::recursive_mutex& device_lock() {
  static std::recursive_mutex lock;
  return lock;
}

cudaError_t stuck() { return stuck_with; }
void get_stuck(cudaError_t error) {
  if (stuck_with == cudaSuccess) stuck_with = error;
}
cudaError_t answer(cudaError_t error) {
  if (stuck_with != cudaSuccess && (error == cudaSuccess || error == cudaErrorNotReady)) error = stuck_with;
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

bool in_device_memory(const void* at, size_t bytes) { return inside(memory().device, at, bytes); }
bool in_host_allocation(const void* at) { return inside(memory().host, at, 1); }
int device_capability() { return environment().capability; }
size_t shared_limit() { return environment().capability >= 90 ? 227 * 1024 : 163 * 1024; }

}  // namespace simt

using simt::answer;
using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return answer(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaSetDeviceFlags(unsigned) { return answer(cudaSuccess); }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return answer(cudaSuccess);
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return answer(cudaErrorInvalidDevice);
  const simt::Environment& e = simt::environment();
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "simt, an emulator");
  std::memcpy(properties->uuid.bytes, "attune emulator", 16);
  properties->totalGlobalMem = e.memory;
  properties->sharedMemPerBlock = 48 * 1024;
  properties->sharedMemPerBlockOptin = simt::shared_limit();
  properties->sharedMemPerMultiprocessor = simt::shared_limit() + 1024;
  properties->regsPerBlock = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->major = e.capability / 10;
  properties->minor = e.capability % 10;
  properties->multiProcessorCount = e.sms;
  properties->l2CacheSize = 50 << 20;
  return answer(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return answer(cudaErrorInvalidDevice);
  const simt::Environment& e = simt::environment();
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(simt::shared_limit()); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = static_cast<int>(simt::shared_limit()) + 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = e.sms; break;
    case cudaDevAttrL2CacheSize: *value = 50 << 20; break;
    case cudaDevAttrComputeCapabilityMajor: *value = e.capability / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = e.capability % 10; break;
    default: *value = 0;
  }
  return answer(cudaSuccess);
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  *function = known ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  if (result) *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return answer(cudaSuccess);
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return answer(cudaSuccess); }

cudaError_t cudaGetLastError() {
  const cudaError_t error = simt::stuck() != cudaSuccess ? simt::stuck() : simt::last_error;
  simt::last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return simt::stuck() != cudaSuccess ? simt::stuck() : simt::last_error; }

namespace {
struct ErrorText {
  const char *name, *text;
};
ErrorText describe(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return {"cudaSuccess", "no error"};
    case cudaErrorInvalidValue: return {"cudaErrorInvalidValue", "invalid argument"};
    case cudaErrorMemoryAllocation: return {"cudaErrorMemoryAllocation", "out of memory"};
    case cudaErrorInvalidConfiguration: return {"cudaErrorInvalidConfiguration", "invalid configuration argument"};
    case cudaErrorInvalidDevice: return {"cudaErrorInvalidDevice", "invalid device ordinal"};
    case cudaErrorNoDevice: return {"cudaErrorNoDevice", "no CUDA-capable device is detected"};
    case cudaErrorInvalidResourceHandle: return {"cudaErrorInvalidResourceHandle", "invalid resource handle"};
    case cudaErrorNotReady: return {"cudaErrorNotReady", "device not ready"};
    case cudaErrorIllegalAddress: return {"cudaErrorIllegalAddress", "an illegal memory access was encountered"};
    case cudaErrorLaunchOutOfResources: return {"cudaErrorLaunchOutOfResources", "too many resources requested for launch"};
    case cudaErrorLaunchFailure: return {"cudaErrorLaunchFailure", "unspecified launch failure"};
    case cudaErrorNotSupported: return {"cudaErrorNotSupported", "operation not supported"};
    case cudaErrorStreamCaptureUnsupported:
      return {"cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"};
    case cudaErrorStreamCaptureInvalidated:
      return {"cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"};
    default: return {"cudaErrorUnknown", "unknown error"};
  }
}
}  // namespace
const char* cudaGetErrorName(cudaError_t error) { return describe(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return describe(error).text; }

cudaError_t cudaMalloc(void** data, size_t bytes) {
  const Lock lock(simt::device_lock());
  *data = nullptr;
  if (simt::this_thread_captures()) return answer(cudaErrorStreamCaptureUnsupported);
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  simt::Memory& memory = simt::memory();
  if (++memory.allocations == simt::environment().fail_malloc || memory.used + bytes > simt::environment().memory)
    return answer(cudaErrorMemoryAllocation);
  if (bytes == 0) return cudaSuccess;
  void* found = nullptr;
  if (posix_memalign(&found, simt::kGuard, bytes + 2 * simt::kGuard) != 0) return answer(cudaErrorMemoryAllocation);
  auto* first = static_cast<uint8_t*>(found) + simt::kGuard;
  std::memset(found, simt::kGuardByte, simt::kGuard);
  const size_t filled = simt::options().ends > 0 ? std::min(bytes, simt::kFilled) : bytes;
  std::memset(first, simt::kNan, filled);
  std::memset(first + bytes - filled, simt::kNan, filled);
  std::memset(first + bytes, simt::kGuardByte, simt::kGuard);
  if (__asan_poison_memory_region) {
    __asan_poison_memory_region(found, simt::kGuard);
    __asan_poison_memory_region(first + bytes, simt::kGuard);
  }
  memory.device[reinterpret_cast<uintptr_t>(first)] = bytes;
  memory.used += bytes;
  *data = first;
  return cudaSuccess;
}

cudaError_t cudaFree(void* data) {
  const Lock lock(simt::device_lock());
  if (!data) return answer(cudaSuccess);
  if (simt::this_thread_captures()) return answer(cudaErrorStreamCaptureUnsupported);
  simt::drain_everything();
  simt::Memory& memory = simt::memory();
  const auto found = memory.device.find(reinterpret_cast<uintptr_t>(data));
  if (found == memory.device.end()) return answer(cudaErrorInvalidValue);
  auto* first = static_cast<uint8_t*>(data);
  const size_t bytes = found->second;
  if (__asan_unpoison_memory_region)
    __asan_unpoison_memory_region(first - simt::kGuard, bytes + 2 * simt::kGuard);
  const bool below = !simt::whole(first - simt::kGuard), above = !simt::whole(first + bytes);
  if (below || above) {
    std::fprintf(stderr, "simt: cudaFree: something wrote %s an allocation of %zu bytes\n", below ? "before" : "after", bytes);
    simt::get_stuck(cudaErrorIllegalAddress);
  }
  memory.used -= bytes;
  memory.device.erase(found);
  std::free(first - simt::kGuard);
  return answer(cudaSuccess);
}

cudaError_t cudaMallocHost(void** data, size_t bytes) {
  const Lock lock(simt::device_lock());
  *data = nullptr;
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  if (++simt::memory().allocations == simt::environment().fail_malloc || posix_memalign(data, simt::kGuard, bytes ? bytes : 1) != 0) {
    *data = nullptr;
    return answer(cudaErrorMemoryAllocation);
  }
  simt::memory().host[reinterpret_cast<uintptr_t>(*data)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) { return cudaMallocHost(data, bytes); }
cudaError_t cudaFreeHost(void* data) {
  const Lock lock(simt::device_lock());
  if (!data) return answer(cudaSuccess);
  simt::drain_everything();
  if (simt::memory().host.erase(reinterpret_cast<uintptr_t>(data)) == 0) return answer(cudaErrorInvalidValue);
  std::free(data);
  return answer(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Lock lock(simt::device_lock());
  *total = simt::environment().memory;
  *free = *total - simt::memory().used;
  return answer(cudaSuccess);
}
