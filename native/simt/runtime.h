// The emulated device's state, behind one lock: its memory, its streams, the error that it is stuck with.
#pragma once
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "include/cuda_runtime.h"

namespace simt {

using Task = std::function<void()>;

struct Environment {
  int capability = 90, sms = 4;
  uint64_t memory = uint64_t{16} << 30;
  bool kernels = false;  // each kernel that runs is a line of stderr
  bool graphs = false;   // and so is each graph, when it is queued and when it is done
  bool eager = false;    // streams do at once what they are given
  uint64_t fail_malloc = 0, fail_launch = 0, fail_lost = 0;  // the n-th from 1; 0 never
};
const Environment& environment();

// One lock for all of the device: host threads take turns.
std::recursive_mutex& device_lock();

// What every later call answers, once a kernel has failed.
cudaError_t stuck();
void get_stuck(cudaError_t error);
// Remembers an error for cudaGetLastError.
cudaError_t answer(cudaError_t error);

void drain_everything();
bool this_thread_captures();
bool in_host_allocation(const void* at);

}  // namespace simt

struct SimtGraph {
  std::vector<simt::Task> tasks;  // in the order of the calls, which respects every edge
};
struct SimtGraphExec {
  std::shared_ptr<const std::vector<simt::Task>> tasks;
};
struct SimtCapture {
  SimtGraph* graph;
  cudaStreamCaptureMode mode;
  bool invalid = false;
};
struct SimtStream {
  std::deque<simt::Task> tasks;
  uint64_t issued = 0, done = 0;
  bool blocking = true;  // ordered with the default stream
  std::shared_ptr<SimtCapture> capture;
  bool captures_here = false;  // this stream began the capture
};
struct SimtEvent {
  SimtStream* stream = nullptr;
  uint64_t ticket = 0;  // the stream's `done` when it has happened
  bool recorded = false, timed = true;
  std::shared_ptr<SimtCapture> capture;
  std::chrono::steady_clock::time_point when;
};
