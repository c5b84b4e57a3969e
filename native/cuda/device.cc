// The device `cuda`, and in the tests' build `simt`, its twin on the emulator: memory, copies, and recordings as CUDA graphs.
// A recording's first run launches its list call by call, which loads every kernel and lets libraries choose; later runs replay a
// graph captured from the same list, so both give the same bits. Profiled runs launch the list with an event after each call.
#include <cuda_runtime.h>

#include <cstring>
#include <string>
#include <vector>

#include "../runtime/machine.h"
#include "../runtime/op_info.h"
#include "common/cublaslt.h"
#include "common/open.h"
#include "kernels.h"
#include "peak.h"

namespace attune {
namespace {

#ifdef ATTUNE_SIMT
constexpr const char* kName = "simt";
#else
constexpr const char* kName = "cuda";
#endif

Status failed(const std::string& what, cudaError_t error) {
  if (error == cudaSuccess) return Status::good();
  const Fault fault = error == cudaErrorMemoryAllocation ? Fault::memory : Fault::device;
  return Status::bad(fault, what + ": " + kName + " says " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

void free_device(void* data, int64_t) { cudaFree(data); }
void free_pinned(void* data, int64_t) { cudaFreeHost(data); }

class CudaRecording final : public Recording {
 public:
  CudaRecording(std::vector<Call> calls, cudaStream_t stream, const cuda::Properties& device)
      : calls_(std::move(calls)), stream_(stream), device_(device) {}
  ~CudaRecording() override {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    for (cudaEvent_t e : events_) cudaEventDestroy(e);
  }

  Status run(double* nanoseconds) override {
    if (nanoseconds != nullptr) return profile(nanoseconds);
    if (!listed_) {
      listed_ = true;
      return list(nullptr);
    }
    if (graph_ == nullptr) {
      if (Status s = capture(); !s.ok()) return s;
    }
    return failed("graph", cudaGraphLaunch(graph_, stream_));
  }

 private:
  // Launches every call, with an event before the first and after each where there are any.
  Status list(const std::vector<cudaEvent_t>* events) {
    if (events != nullptr) cudaEventRecord((*events)[0], stream_);
    for (size_t i = 0; i < calls_.size(); ++i) {
      cuda::Stream launches(stream_, device_);
      launches.use_scratch(calls_[i].scratch);
      cuda::run(calls_[i].opcode, calls_[i].args, launches);
      if (!launches.ok())
        return Status::bad(Fault::device, std::string(kOps[calls_[i].opcode].name) + " (" + calls_[i].name + "): " + launches.failure());
      if (events != nullptr) cudaEventRecord((*events)[i + 1], stream_);
    }
    return failed("launch", cudaGetLastError());
  }

  Status capture() {
    if (cudaError_t e = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal); e != cudaSuccess) return failed("capture", e);
    const Status listed = list(nullptr);
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
    if (!listed.ok()) {
      if (graph != nullptr) cudaGraphDestroy(graph);
      return listed;
    }
    if (ended != cudaSuccess) return failed("capture", ended);
    const cudaError_t made = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    return failed("graph", made);
  }

  Status profile(double* nanoseconds) {
    while (events_.size() < calls_.size() + 1) {
      cudaEvent_t e = nullptr;
      if (cudaError_t error = cudaEventCreate(&e); error != cudaSuccess) return failed("event", error);
      events_.push_back(e);
    }
    listed_ = true;
    if (Status s = list(&events_); !s.ok()) return s;
    if (cudaError_t e = cudaStreamSynchronize(stream_); e != cudaSuccess) return failed("run", e);
    for (size_t i = 0; i < calls_.size(); ++i) {
      float milliseconds = 0;
      cudaEventElapsedTime(&milliseconds, events_[i], events_[i + 1]);
      nanoseconds[i] += 1e6 * static_cast<double>(milliseconds);
    }
    return Status::good();
  }

  std::vector<Call> calls_;
  cudaStream_t stream_;
  const cuda::Properties& device_;
  cudaGraphExec_t graph_ = nullptr;
  std::vector<cudaEvent_t> events_;
  bool listed_ = false;
};

class CudaMachine final : public Machine {
 public:
  static std::unique_ptr<Machine> open(std::string* why) {
    std::unique_ptr<CudaMachine> m(new CudaMachine());
    *why = cuda::open(0, &m->device_);
    if (!why->empty()) return nullptr;
    if (cudaError_t e = cudaStreamCreateWithFlags(&m->stream_, cudaStreamNonBlocking); e != cudaSuccess) {
      *why = std::string("no stream: ") + cudaGetErrorString(e);
      return nullptr;
    }
    return m;
  }
  ~CudaMachine() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  Memory allocate(int64_t bytes) override {
    void* place = nullptr;
    const size_t size = static_cast<size_t>(bytes < 1 ? 1 : bytes);
    if (cudaMalloc(&place, size) != cudaSuccess) {
      cudaGetLastError();  // the refusal is told by what we return
      return {};
    }
    Memory m = Memory::own(place, static_cast<int64_t>(size), free_device);
    if (!zero(place, static_cast<int64_t>(size)).ok()) return {};
    return m;
  }
  Memory staging(int64_t bytes) override {
    void* place = nullptr;
    if (cudaMallocHost(&place, static_cast<size_t>(bytes < 1 ? 1 : bytes)) != cudaSuccess) {
      cudaGetLastError();
      return {};
    }
    return Memory::own(place, bytes, free_pinned);
  }
  Status put(void* to, const void* from, int64_t bytes) override {
    if (Status s = queue_put(to, from, bytes); !s.ok()) return s;
    return finish();
  }
  Status get(void* to, const void* from, int64_t bytes) override {
    if (Status s = queue_get(to, from, bytes); !s.ok()) return s;
    return finish();
  }
  Status zero(void* to, int64_t bytes) override {
    if (cudaError_t e = cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream_); e != cudaSuccess) return failed("zero", e);
    return finish();
  }
  Status queue_put(void* to, const void* from, int64_t bytes) override {
    if (bytes == 0) return Status::good();
    return failed("copy", cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_));
  }
  Status queue_get(void* to, const void* from, int64_t bytes) override {
    if (bytes == 0) return Status::good();
    return failed("copy", cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_));
  }
  Status finish() override { return failed("run", cudaStreamSynchronize(stream_)); }
  std::unique_ptr<Recording> record(std::vector<Call> calls) override {
    return std::make_unique<CudaRecording>(std::move(calls), stream_, device_);
  }
  Peak peak() override {
#ifdef ATTUNE_SIMT
    return {};  // an emulator's speed says nothing
#else
    cuda::Stream launches(stream_, device_);
    return cuda::measure_peak(launches);
#endif
  }

 private:
  CudaMachine() = default;
  cuda::Properties device_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

const Device kMachineDevice = {
    kName,
    nullptr,
    cuda::scratch,
    [](uint32_t, const void*) -> Copy { return {}; },
    make_no_pool,
    [](Pool&) -> Peak { return {}; },
    CudaMachine::open,
};

}  // namespace attune
