// The device `cuda`, and in the tests' build `simt`, its twin on the emulator: memory, copies, and recordings as CUDA graphs.
// A recording's first run launches its list call by call, which loads every kernel and lets libraries choose; later runs replay a
// graph captured from the same list, so both give the same bits. Timed runs launch the list with an event after each call, or each call in a
// graph of repeats. After `name_calls` every run launches the list, each call in an NVTX range of its op and name, for Nsight Systems.
// A kernel fails after its launch has returned, so an error of a run names no kernel; with ATTUNE_CUDA_BLOCKING=1 each is waited for and
// the error names it. Most errors of a run lose the device for the whole process: every later call says so.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../runtime/machine.h"
#include "../runtime/op_info.h"
#include "common/cublaslt_choices.h"
#include "common/open.h"
#include "common/range.h"
#include "kernels.h"
#include "peak.h"

namespace attune {
namespace {

#ifdef ATTUNE_SIMT
constexpr const char* kName = "simt";
#else
constexpr const char* kName = "cuda";
#endif

// The stream that a session works on, and whether its device still answers.
struct Line {
  cuda::Properties device;
  cudaStream_t stream = nullptr;
  bool waits = false;  // for each kernel
  bool names = false;  // each call, to a profiler
  std::string lost;    // what it said when it was lost
  cuda::lt::Choices choices;

  ~Line() {
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
  Status alive() const {
    if (lost.empty()) return Status::good();
    return Status::bad(Fault::device, "session: its device was lost and what it held is gone; start a new process, which may resume (" + lost + ")");
  }
  // What CUDA answered, as a status. An error that stays with the stream has lost the device.
  Status told(const std::string& what, cudaError_t error) {
    if (error == cudaSuccess) return Status::good();
    const std::string said = what + ": " + kName + " says " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error);
    return looked_at(Status::bad(error == cudaErrorMemoryAllocation ? Fault::memory : Fault::device, said));
  }
  // A failure, with what it means for the device. Not during a capture, which may not be asked.
  Status looked_at(Status failure) {
    if (failure.ok()) return failure;
    cudaGetLastError();  // one that does not stay is forgotten
    const cudaError_t now = cudaStreamQuery(stream);
    if (now == cudaSuccess || now == cudaErrorNotReady) return failure;
    lost = failure.message;
    failure.message += "; the device is lost to this process";
    if (!waits) failure.message += " (ATTUNE_CUDA_BLOCKING=1 names the kernel)";
    return failure;
  }
};

void free_device(void* data, int64_t) { cudaFree(data); }
void free_pinned(void* data, int64_t) { cudaFreeHost(data); }

// A copy of what a call changes, on the device or, where that has no room for it, in host memory.
class Kept {
 public:
  Kept(const Call& call, Line& line) : line_(line), spans_(call.changed) {}
  Status keep() {
    for (const Span& s : spans_) {
      void* place = nullptr;
      const bool room = cudaMalloc(&place, static_cast<size_t>(s.bytes)) == cudaSuccess;
      if (!room) cudaGetLastError();
      copies_.push_back(room ? Memory::own(place, s.bytes, free_device) : Memory::allocate(s.bytes, false));
      if (!copies_.back()) return Status::bad(Fault::memory, "profile: no room for " + std::to_string(s.bytes) + " bytes, a copy of what an instruction changes");
      if (Status copied = copy(copies_.back().data(), s.data, s.bytes); !copied.ok()) return copied;
    }
    return Status::good();
  }
  Status put_back() {
    for (size_t i = 0; i < spans_.size(); ++i)
      if (Status s = copy(spans_[i].data, copies_[i].data(), spans_[i].bytes); !s.ok()) return s;
    return line_.told("run", cudaStreamSynchronize(line_.stream));
  }

 private:
  Status copy(void* to, const void* from, int64_t bytes) {
    return line_.told("copy", cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, line_.stream));
  }
  Line& line_;
  const std::vector<Span>& spans_;
  std::vector<Memory> copies_;
};

// Repeats of a call that are timed together: as many as take this long, within bounds.
constexpr float kRepeatsMs = 2;
constexpr int kFewest = 2, kMost = 100;

class CudaRecording final : public Recording {
 public:
  CudaRecording(std::vector<Call> calls, Line& line) : calls_(std::move(calls)), line_(line) {}
  ~CudaRecording() override {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    for (cudaEvent_t e : events_) cudaEventDestroy(e);
  }

  Status run(Timing timing, double* nanoseconds) override {
    if (Status s = line_.alive(); !s.ok()) return s;
    if (timing == Timing::once) return profile(nanoseconds);
    if (timing == Timing::repeats) {
      for (size_t i = 0; i < calls_.size(); ++i)
        if (Status s = repeat(calls_[i], &nanoseconds[i]); !s.ok()) return s;
      listed_ = true;
      return Status::good();
    }
    if (!listed_ || line_.waits || line_.names) {
      const Status listed = list(nullptr, line_.waits);
      listed_ = listed.ok();
      return line_.looked_at(listed);
    }
    if (graph_ == nullptr) {
      if (Status s = capture([&] { return list(nullptr); }, &graph_); !s.ok()) return s;
    }
    return line_.told("graph", cudaGraphLaunch(graph_, line_.stream));
  }

 private:
  Status launch(const Call& call, bool waits = false) {
    const char* const op = kOps[call.opcode].name;
    const cuda::Range range(line_.names, op, call.name);
    cuda::Stream launches(line_.stream, line_.device);
    launches.use_scratch(call.scratch);
    launches.use_choices(&line_.choices);
    launches.wait_for_each(waits);
    cuda::run(call.opcode, call.args, launches);
    return launches.ok() ? Status::good() : Status::bad(Fault::device, std::string(op) + " (" + call.name + "): " + launches.failure());
  }

  // Launches every call, with an event before the first and after each where there are any.
  Status list(const std::vector<cudaEvent_t>* events, bool waits = false) {
    if (events != nullptr) cudaEventRecord((*events)[0], line_.stream);
    for (size_t i = 0; i < calls_.size(); ++i) {
      if (Status s = launch(calls_[i], waits); !s.ok()) return s;
      if (events != nullptr) cudaEventRecord((*events)[i + 1], line_.stream);
    }
    const cudaError_t left = cudaGetLastError();
    return left == cudaSuccess ? Status::good() : Status::bad(Fault::device, std::string("launch: ") + cudaGetErrorName(left));
  }

  // The graph of what `work` launches.
  template <class F> Status capture(F work, cudaGraphExec_t* out) {
    if (cudaError_t e = cudaStreamBeginCapture(line_.stream, cudaStreamCaptureModeThreadLocal); e != cudaSuccess) return line_.told("capture", e);
    const Status listed = work();
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(line_.stream, &graph);
    if (!listed.ok()) {
      if (graph != nullptr) cudaGraphDestroy(graph);
      return line_.looked_at(listed);
    }
    if (ended != cudaSuccess) return line_.told("capture", ended);
    const cudaError_t made = cudaGraphInstantiate(out, graph, 0);
    cudaGraphDestroy(graph);
    return line_.told("graph", made);
  }

  Status make_events(size_t count) {
    while (events_.size() < count) {
      cudaEvent_t e = nullptr;
      if (cudaError_t error = cudaEventCreate(&e); error != cudaSuccess) return line_.told("event", error);
      events_.push_back(e);
    }
    return Status::good();
  }

  // Milliseconds that the device takes for what `work` queues.
  template <class F> Status timed(F work, float* milliseconds) {
    if (Status s = make_events(2); !s.ok()) return s;
    cudaEventRecord(events_[0], line_.stream);
    if (Status s = work(); !s.ok()) return s;
    cudaEventRecord(events_[1], line_.stream);
    if (cudaError_t e = cudaEventSynchronize(events_[1]); e != cudaSuccess) return line_.told("run", e);
    cudaEventElapsedTime(milliseconds, events_[0], events_[1]);
    return Status::good();
  }

  // Adds what the call takes among repeats of itself in one graph. What it changes is put back outside of the timed span, and before it is
  // launched as part of the run: whose bits are those of a run that was not timed.
  Status repeat(const Call& call, double* nanoseconds) {
    Kept kept(call, line_);
    float alone = 0, together = 0;
    Status s = kept.keep();
    if (s.ok()) s = timed([&] { return line_.looked_at(launch(call, line_.waits)); }, &alone);  // which also loads its kernels and lets libraries choose
    if (s.ok()) s = kept.put_back();
    const int repeats = static_cast<int>(std::clamp(kRepeatsMs / alone, float{kFewest}, float{kMost}));
    cudaGraphExec_t graph = nullptr;
    const auto launches = [&] {
      Status launched;
      for (int i = 0; i < repeats && launched.ok(); ++i) launched = launch(call);
      return launched;
    };
    if (s.ok()) s = capture(launches, &graph);
    if (s.ok()) s = line_.told("graph", cudaGraphUpload(graph, line_.stream));
    if (s.ok()) s = timed([&] { return line_.told("graph", cudaGraphLaunch(graph, line_.stream)); }, &together);
    if (graph != nullptr) cudaGraphExecDestroy(graph);
    if (s.ok()) s = kept.put_back();
    if (s.ok()) s = line_.looked_at(launch(call));
    *nanoseconds += 1e6 * static_cast<double>(together) / repeats;
    return s;
  }

  Status profile(double* nanoseconds) {
    if (Status s = make_events(calls_.size() + 1); !s.ok()) return s;
    listed_ = true;
    if (Status s = line_.looked_at(list(&events_)); !s.ok()) return s;
    if (cudaError_t e = cudaStreamSynchronize(line_.stream); e != cudaSuccess) return line_.told("run", e);
    for (size_t i = 0; i < calls_.size(); ++i) {
      float milliseconds = 0;
      cudaEventElapsedTime(&milliseconds, events_[i], events_[i + 1]);
      nanoseconds[i] += 1e6 * static_cast<double>(milliseconds);
    }
    return Status::good();
  }

  std::vector<Call> calls_;
  Line& line_;
  cudaGraphExec_t graph_ = nullptr;
  std::vector<cudaEvent_t> events_;
  bool listed_ = false;
};

class CudaMark final : public Mark {
 public:
  explicit CudaMark(Line& line) : line_(line) {}
  ~CudaMark() override {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  Status set() override {
    cudaError_t error = event_ ? cudaSuccess : cudaEventCreateWithFlags(&event_, cudaEventDisableTiming);
    if (error == cudaSuccess) error = cudaEventRecord(event_, line_.stream);
    return line_.told("event", error);
  }
  // Asks CUDA even of a device known to be lost, so that each run that was under way says what CUDA says.
  Status wait() override { return event_ ? line_.told("run", cudaEventSynchronize(event_)) : Status::good(); }

 private:
  Line& line_;
  cudaEvent_t event_ = nullptr;
};

class CudaMachine final : public Machine {
 public:
  static std::unique_ptr<Machine> open(std::string* why) {
    std::unique_ptr<CudaMachine> m(new CudaMachine());
    *why = cuda::open(0, &m->line_.device);
    if (!why->empty()) return nullptr;
    if (cudaError_t e = cudaStreamCreateWithFlags(&m->line_.stream, cudaStreamNonBlocking); e != cudaSuccess) {
      *why = std::string("no stream: ") + cudaGetErrorString(e);
      return nullptr;
    }
    const char* blocking = std::getenv("ATTUNE_CUDA_BLOCKING");
    m->line_.waits = blocking != nullptr && std::strcmp(blocking, "1") == 0;
    return m;
  }

  Memory allocate(int64_t bytes) override {
    void* place = nullptr;
    const size_t size = static_cast<size_t>(bytes < 1 ? 1 : bytes);
    if (refused(cudaMalloc(&place, size))) return {};
    Memory m = Memory::own(place, static_cast<int64_t>(size), free_device);
    if (refusal_ = zero(place, static_cast<int64_t>(size)); !refusal_.ok()) return {};
    return m;
  }
  Memory staging(int64_t bytes) override {
    void* place = nullptr;
    if (refused(cudaMallocHost(&place, static_cast<size_t>(bytes < 1 ? 1 : bytes)))) return {};
    return Memory::own(place, bytes, free_pinned);
  }
  int64_t total() const override {
    size_t free = 0, total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(total) : 0;
  }
  bool fuses_head() const override { return line_.device.major == 9; }
  Status refusal() const override { return refusal_; }
  Status put(void* to, const void* from, int64_t bytes) override {
    if (Status s = queue_put(to, from, bytes); !s.ok()) return s;
    return finish();
  }
  Status get(void* to, const void* from, int64_t bytes) override {
    if (Status s = queue_get(to, from, bytes); !s.ok()) return s;
    return finish();
  }
  Status zero(void* to, int64_t bytes) override {
    if (Status s = line_.alive(); !s.ok()) return s;
    if (cudaError_t e = cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), line_.stream); e != cudaSuccess) return line_.told("zero", e);
    return finish();
  }
  Status queue_put(void* to, const void* from, int64_t bytes) override { return copy(to, from, bytes, cudaMemcpyHostToDevice); }
  Status queue_get(void* to, const void* from, int64_t bytes) override { return copy(to, from, bytes, cudaMemcpyDeviceToHost); }
  Status finish() override {
    if (Status s = line_.alive(); !s.ok()) return s;
    return line_.told("run", cudaStreamSynchronize(line_.stream));
  }
  std::unique_ptr<Mark> mark() override { return std::make_unique<CudaMark>(line_); }
  std::string choices() const override { return line_.choices.text(); }
  bool adopt(const std::string& choices) override { return line_.choices.adopt(choices); }
  std::unique_ptr<Recording> record(std::vector<Call> calls) override { return std::make_unique<CudaRecording>(std::move(calls), line_); }
  Status name_calls() override {
    line_.names = cuda::kRanges;
    return line_.names ? Status::good() : Status::bad(Fault::device, "device cuda: to name calls it must be built with NVTX's headers (nvtx3/nvToolsExt.h, of CUDA's package cuda-nvtx), got a build without");
  }
  Peak peak() override {
#ifdef ATTUNE_SIMT
    return {};  // an emulator's speed says nothing
#else
    cuda::Stream launches(line_.stream, line_.device);
    return cuda::measure_peak(launches);
#endif
  }

 private:
  CudaMachine() = default;
  Status copy(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
    if (Status s = line_.alive(); !s.ok() || bytes == 0) return s;
    return line_.told("copy", cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, line_.stream));
  }
  // Whether memory was refused; why is kept, with what is free.
  bool refused(cudaError_t error) {
    if (error == cudaSuccess) return false;
    if (refusal_ = line_.alive(); !refusal_.ok()) return true;
    refusal_ = line_.told("memory", error);
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) == cudaSuccess)
      refusal_.message += "; " + std::to_string(free >> 20) + " of its " + std::to_string(total >> 20) + " MiB are free";
    cudaGetLastError();
    return true;
  }
  Line line_;
  Status refusal_;
};

#ifdef ATTUNE_SIMT
constexpr bool (*kPresent)() = nullptr;  // an emulator is asked for by name alone
#else
bool present() {
  cuda::Properties ignored;
  return cuda::look(0, &ignored).empty();
}
constexpr bool (*kPresent)() = present;
#endif

}  // namespace

const Device kMachineDevice = {
    kName,
    nullptr,
    cuda::scratch,
    [](uint32_t, const void*) -> Copy { return {}; },
    make_no_pool,
    [](Pool&) -> Peak { return {}; },
    CudaMachine::open,
    kPresent,
};

}  // namespace attune
