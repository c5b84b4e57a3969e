// Streams, events, graphs. Nothing runs when it is queued: a stream's work is done when someone waits for it, and then only as far as the wait
// needs, so that a copy reads its source as late as the order allows. With ATTUNE_SIMT_STREAMS=early all is done when it is queued, so that a copy
// overwrites its destination as early as the order allows.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "machine.h"
#include "runtime.h"

namespace simt {
namespace {

struct Streams {
  std::vector<SimtStream*> all;
  SimtStream legacy;  // the default stream
  Streams() { all.push_back(&legacy); }
};
Streams& streams() {
  static Streams s;
  return s;
}
SimtStream& stream_of(cudaStream_t stream) { return stream ? *stream : streams().legacy; }

thread_local int captures_begun = 0;  // by this thread, in a mode that forbids unsafe calls

uint64_t launches = 0, runs = 0;

void run_until(SimtStream& stream, uint64_t ticket) {
  while (stream.done < ticket && !stream.tasks.empty()) {
    const Task task = std::move(stream.tasks.front());
    stream.tasks.pop_front();
    if (stuck() == cudaSuccess) task();
    ++stream.done;
  }
}

void push(SimtStream& stream, Task task) {
  stream.tasks.push_back(std::move(task));
  ++stream.issued;
}

// Queues a task, or records it where the stream captures. The default stream and the blocking ones wait for each other.
void enqueue(SimtStream& stream, Task task) {
  if (stream.capture) {
    stream.capture->graph->tasks.push_back(std::move(task));
    return;
  }
  if (&stream == &streams().legacy) {
    for (SimtStream* other : streams().all)
      if (other != &stream && other->blocking && other->issued > other->done)
        push(stream, [other, ticket = other->issued] { run_until(*other, ticket); });
  } else if (stream.blocking && streams().legacy.issued > streams().legacy.done) {
    push(stream, [ticket = streams().legacy.issued] { run_until(streams().legacy, ticket); });
  }
  push(stream, std::move(task));
  if (environment().eager) run_until(stream, stream.issued);
}

cudaError_t unsafe_in_capture(SimtStream& stream) {
  if (stream.capture) stream.capture->invalid = true;
  return answer(cudaErrorStreamCaptureUnsupported);
}

void run_kernel(const char* name, dim3 grid, dim3 threads, size_t shared_bytes, const std::function<void()>& body) {
  if (++runs == environment().fail_lost) {
    std::fprintf(stderr, "simt: %s: the device is lost, as ATTUNE_SIMT_FAIL asks\n", name);
    get_stuck(cudaErrorLaunchFailure);
    return;
  }
  if (environment().kernels) std::fprintf(stderr, "simt: kernel %s %zu\n", name, shared_bytes);
  if (!run_grid(name, grid, threads, shared_bytes, runs, body)) get_stuck(cudaErrorLaunchFailure);
}

}  // namespace

bool this_thread_captures() { return captures_begun > 0; }

void drain_everything() {
  for (size_t i = 0; i < streams().all.size(); ++i) run_until(*streams().all[i], streams().all[i]->issued);
}

cudaError_t launch(const char* name, dim3 grid, dim3 threads, size_t shared_bytes, cudaStream_t stream, std::function<void()> body) {
  const std::lock_guard lock(device_lock());
  if (stuck() != cudaSuccess) return answer(stuck());
  const auto refuse = [&](cudaError_t error, const char* why) {
    std::fprintf(stderr, "simt: %s: not launched: %s; grid (%u, %u, %u), block (%u, %u, %u), %zu bytes of shared memory\n", name, why,
                 grid.x, grid.y, grid.z, threads.x, threads.y, threads.z, shared_bytes);
    return answer(error);
  };
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || threads.x == 0 || threads.y == 0 || threads.z == 0)
    return refuse(cudaErrorInvalidConfiguration, "empty");
  if (grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535) return refuse(cudaErrorInvalidConfiguration, "the grid is too large");
  if (threads.z > 64 || uint64_t{threads.x} * threads.y * threads.z > 1024)
    return refuse(cudaErrorInvalidConfiguration, "more than 1024 threads");
  if (shared_bytes > shared_limit()) return refuse(cudaErrorInvalidValue, "too much shared memory");
  if (++launches == environment().fail_launch) return refuse(cudaErrorLaunchOutOfResources, "as ATTUNE_SIMT_FAIL asks");
  enqueue(stream_of(stream), [name = std::string(name), grid, threads, shared_bytes, body = std::move(body)] {
    run_kernel(name.c_str(), grid, threads, shared_bytes, body);
  });
  return cudaSuccess;
}

}  // namespace simt

using simt::answer;
using simt::stream_of;
using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(simt::device_lock());
  if (simt::this_thread_captures()) return answer(cudaErrorStreamCaptureUnsupported);
  simt::drain_everything();
  return answer(cudaSuccess);
}
cudaError_t cudaDeviceReset() { return cudaDeviceSynchronize(); }

namespace {

// Each side must be where the kind says; device memory is an allocation of ours.
bool right_sides(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = simt::in_device_memory(to, bytes), from_device = simt::in_device_memory(from, bytes);
  const bool want_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool want_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind == cudaMemcpyDefault || (to_device == want_to && from_device == want_from)) return true;
  std::fprintf(stderr, "simt: a copy of %zu bytes: %s is %s\n", bytes, to_device != want_to ? "its destination" : "its source",
               (to_device != want_to ? to_device : from_device) ? "on the device" : "not in the device's memory");
  return false;
}

}  // namespace

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock(simt::device_lock());
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  if (bytes == 0) return cudaSuccess;
  if (!to || !from || !right_sides(to, from, bytes, kind)) return answer(cudaErrorInvalidValue);
  simt::enqueue(stream_of(stream), [=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}
// From pageable memory it returns when the bytes are staged: they arrive later, and a stream that does not block is not behind them.
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(simt::device_lock());
  if (simt::this_thread_captures()) return answer(cudaErrorStreamCaptureUnsupported);
  if (kind == cudaMemcpyHostToDevice && from && bytes > 0 && !simt::in_host_allocation(from)) {
    if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
    if (!to || !right_sides(to, from, bytes, kind)) return answer(cudaErrorInvalidValue);
    const auto* const first = static_cast<const uint8_t*>(from);
    simt::enqueue(stream_of(nullptr), [to, staged = std::vector<uint8_t>(first, first + bytes)] { std::memcpy(to, staged.data(), staged.size()); });
    return cudaSuccess;
  }
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return error != cudaSuccess ? error : cudaStreamSynchronize(nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(simt::device_lock());
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  if (bytes == 0) return cudaSuccess;
  if (!simt::in_device_memory(to, bytes)) return answer(cudaErrorInvalidValue);
  simt::enqueue(stream_of(stream), [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  const Lock lock(simt::device_lock());
  if (simt::this_thread_captures()) return answer(cudaErrorStreamCaptureUnsupported);
  return cudaMemsetAsync(to, value, bytes, nullptr);  // not waited for either
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const Lock lock(simt::device_lock());
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  *stream = new SimtStream;
  (*stream)->blocking = (flags & cudaStreamNonBlocking) == 0;
  simt::streams().all.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(simt::device_lock());
  auto& all = simt::streams().all;
  const auto found = std::find(all.begin(), all.end(), stream);
  if (!stream || found == all.end()) return answer(cudaErrorInvalidResourceHandle);
  simt::drain_everything();
  all.erase(found);
  delete stream;
  return answer(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(simt::device_lock());
  SimtStream& queue = stream_of(stream);
  if (queue.capture) return simt::unsafe_in_capture(queue);
  simt::run_until(queue, queue.issued);
  return answer(cudaSuccess);
}
// Being asked is a moment too: one task of the stream is done for each time.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(simt::device_lock());
  SimtStream& queue = stream_of(stream);
  if (queue.capture) return simt::unsafe_in_capture(queue);
  if (queue.done == queue.issued) return answer(cudaSuccess);
  simt::run_until(queue, queue.done + 1);
  return answer(cudaErrorNotReady);
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  const Lock lock(simt::device_lock());
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  simt::enqueue(stream_of(stream), [=] { function(data); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  *event = new SimtEvent;
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(simt::device_lock());
  if (!event) return answer(cudaErrorInvalidResourceHandle);
  simt::drain_everything();
  delete event;
  return answer(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(simt::device_lock());
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  SimtStream& queue = stream_of(stream);
  event->capture = queue.capture;
  if (queue.capture) return cudaSuccess;
  simt::enqueue(queue, [event] { event->when = std::chrono::steady_clock::now(); });
  event->stream = &queue;
  event->ticket = queue.issued;
  event->recorded = true;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(simt::device_lock());
  if (event->capture) return answer(cudaErrorStreamCaptureUnsupported);
  if (event->recorded) simt::run_until(*event->stream, event->ticket);
  return answer(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(simt::device_lock());
  if (event->capture) return answer(cudaErrorStreamCaptureUnsupported);
  if (!event->recorded || event->stream->done >= event->ticket) return answer(cudaSuccess);
  simt::run_until(*event->stream, event->stream->done + 1);
  return answer(cudaErrorNotReady);
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  const Lock lock(simt::device_lock());
  if (!from->recorded || !to->recorded || !from->timed || !to->timed) return answer(cudaErrorInvalidResourceHandle);
  if (from->stream->done < from->ticket || to->stream->done < to->ticket) return answer(cudaErrorNotReady);
  *ms = std::chrono::duration<float, std::milli>(to->when - from->when).count();
  return answer(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(simt::device_lock());
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  SimtStream& queue = stream_of(stream);
  if (event->capture) {
    queue.capture = event->capture;  // joins the capture; its tasks are in order already
    return cudaSuccess;
  }
  if (event->recorded)
    simt::enqueue(queue, [other = event->stream, ticket = event->ticket] { simt::run_until(*other, ticket); });
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Lock lock(simt::device_lock());
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  if (!stream) return answer(cudaErrorStreamCaptureUnsupported);
  if (stream->capture) return answer(cudaErrorIllegalState);
  stream->capture = std::make_shared<SimtCapture>(SimtCapture{new SimtGraph, mode, false});
  stream->captures_here = true;
  if (mode != cudaStreamCaptureModeRelaxed) ++simt::captures_begun;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(simt::device_lock());
  *graph = nullptr;
  if (!stream || !stream->capture || !stream->captures_here) return answer(cudaErrorIllegalState);
  const std::shared_ptr<SimtCapture> capture = stream->capture;
  if (capture->mode != cudaStreamCaptureModeRelaxed) --simt::captures_begun;
  for (SimtStream* other : simt::streams().all)
    if (other->capture == capture) other->capture = nullptr;
  stream->captures_here = false;
  if (capture->invalid || simt::stuck() != cudaSuccess) {
    delete capture->graph;
    return answer(cudaErrorStreamCaptureInvalidated);
  }
  *graph = capture->graph;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const Lock lock(simt::device_lock());
  const SimtStream& queue = stream_of(stream);
  *status = !queue.capture          ? cudaStreamCaptureStatusNone
            : queue.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                     : cudaStreamCaptureStatusActive;
  return answer(cudaSuccess);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  const Lock lock(simt::device_lock());
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  if (!graph) return answer(cudaErrorInvalidValue);
  *exec = new SimtGraphExec{std::make_shared<const std::vector<simt::Task>>(graph->tasks)};
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return answer(cudaSuccess); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock lock(simt::device_lock());
  if (simt::stuck() != cudaSuccess) return answer(simt::stuck());
  if (!exec) return answer(cudaErrorInvalidValue);
  const bool told = simt::environment().graphs;
  if (told) std::fprintf(stderr, "simt: graph queued\n");
  simt::enqueue(stream_of(stream), [tasks = exec->tasks, told] {
    for (const simt::Task& task : *tasks)
      if (simt::stuck() == cudaSuccess) task();
    if (told) std::fprintf(stderr, "simt: graph done\n");
  });
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return answer(cudaSuccess);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return answer(cudaSuccess);
}
