// A device with memory of its own, such as a GPU, as a session sees it: memory, copies, and lists of calls that are recorded once
// and replayed. A device without one computes in host memory, call by call. Used by one thread at a time.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device.h"
#include "memory.h"
#include "status.h"

namespace attune {

struct Span {
  void* data;
  int64_t bytes;
};

// One instruction with its addresses: final, since a recording keeps them.
struct Call {
  uint32_t opcode;
  const void* args;    // the op's struct; lives as long as the recording
  void* scratch;
  const char* name;    // for messages
  std::vector<Span> changed;  // what it reads and writes anew, so that it cannot simply be repeated
};

// How the instructions of a run are timed: each as it comes, or among repeats of itself, where there is something that holds them together.
enum class Timing { none, once, repeats };

class Recording {
 public:
  virtual ~Recording() = default;
  // Queues every call, in order. Timed, it waits and adds what each took to `nanoseconds`, one per call.
  virtual Status run(Timing timing, double* nanoseconds) = 0;
};

// A moment in what was queued.
class Mark {
 public:
  virtual ~Mark() = default;
  virtual Status set() = 0;   // behind all that is queued by now
  virtual Status wait() = 0;  // until what lies before it is done, and no longer; says what went wrong. Never set: at once
};

class Machine {
 public:
  virtual ~Machine() = default;
  virtual Memory allocate(int64_t bytes) = 0;  // zeroed, 256-byte aligned; empty where the device has no room
  // Each ends before it returns, after everything that was asked for before it.
  virtual Status put(void* device, const void* host, int64_t bytes) = 0;
  virtual Status get(void* host, const void* device, int64_t bytes) = 0;
  virtual Status zero(void* device, int64_t bytes) = 0;
  // Queued: the host bytes must stay until a mark behind it, or `finish`, was waited for. `finish` waits for all and says what went wrong.
  virtual Status queue_put(void* device, const void* host, int64_t bytes) = 0;
  virtual Status queue_get(void* host, const void* device, int64_t bytes) = 0;
  virtual Status finish() = 0;
  virtual std::unique_ptr<Mark> mark() = 0;
  virtual std::unique_ptr<Recording> record(std::vector<Call> calls) = 0;
  // Host memory that queued copies read fastest from. Empty where there is none.
  virtual Memory staging(int64_t bytes) = 0;
  virtual int64_t total() const = 0;  // bytes of memory that the device has
  virtual bool fuses_head() const = 0;  // linear_logprob can sum up logits, and keep their shares, without writing them
  virtual Status refusal() const = 0;  // why the last memory that was asked for came back empty
  virtual Status name_calls() = 0;  // from now on calls are launched one by one and each is named to a profiler
  virtual Peak peak() = 0;
  // What a library chose for this session's calls, on which their bits depend, as text: a first line that names device and library, then what was
  // chosen. A session that goes on with another's work adopts it before its first run; false where device or library is not the one that chose.
  virtual std::string choices() const = 0;
  virtual bool adopt(const std::string& choices) = 0;
};

}  // namespace attune
