// A session: one device, named buffers shared between programs, one activation arena, and the loop that runs a program.
// It is used by one thread at a time (the addon's worker) and knows nothing of Node.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "convert.h"
#include "device.h"
#include "machine.h"
#include "memory.h"
#include "program.h"

namespace attune {

// A copy of a weight in another layout, filled when it is wanted and the weight has been written since.
struct Derived {
  int form = 0;
  Type type;  // how the instruction saw the weight: two views of it are two copies
  Memory memory;
  uint64_t version = 0;  // of the buffer when the copy was made
};

struct BufferState {
  std::string name;
  Type type;
  Memory memory;
  BufferState* whole = nullptr;  // of a part: what it lies in; a write to any of it counts as one to all
  uint64_t writes = 1;
  std::vector<Derived> derived;

  BufferState& root() { return whole ? *whole : *this; }
  uint64_t& version() { return root().writes; }
};

// Memory of a caller that an output goes to; it stays until the run is over.
struct Lent {
  uint8_t* data = nullptr;  // null: the output has memory of its own
  int64_t bytes = 0;
  DType dtype = DType::f32;
};

// Elements in host memory on their way in or out. `shape` is what is in use.
struct HostArray {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::unique_ptr<uint8_t[]> data;
  int64_t elements = 0;
  Lent lent;  // instead of data
  int64_t bytes() const { return elements * width(dtype); }
  uint8_t* at() const { return lent.data ? lent.data : data.get(); }
  // Becomes a copy of `from`; fails where there is no memory for it.
  Status take(const std::string& name, DType dtype, std::vector<int64_t> shape, const void* from);
  // Room for the elements, content undefined; where something is lent, that must be room enough.
  Status make(const std::string& name, DType dtype, std::vector<int64_t> shape);
};

// Rows [row, row + rows) of a buffer (first axis) and their place in a file. rows < 0: all that follow.
struct FileSlice {
  std::string buffer;
  int64_t row = 0;
  int64_t rows = -1;
  std::string path;  // empty: use fd
  int fd = -1;
  int64_t offset = 0;
  FileType type = FileType::f32;
};

struct RunRequest {
  uint32_t program = 0;
  std::vector<int64_t> counts;        // one per dim, in the program's order
  std::vector<HostArray> inputs;      // every inputs/ buffer, in-use elements
  std::vector<std::string> outputs;   // what to copy out, by name
  std::vector<Lent> into;             // and where to, one for each
  std::string overwrite;              // a buffer whose content counts as zeros; empty: none
  Timing timing = Timing::none;
  uint32_t turn = 0;  // set by `run`
};

using Cancel = std::atomic<bool>;

class Session {
 public:
  struct Options {
    std::string device = "auto";
    int threads = 0;  // 0: this process's share of the machine
    bool huge_pages = false;
    bool dry = false;  // programs load and are counted, no memory is taken, nothing runs
    bool named = false;  // on a device with memory of its own: launched call by call, each named to a profiler
  };
  static Status create(const Options& options, std::unique_ptr<Session>* out);
  ~Session();

  Status load(Program program, uint32_t* id);
  Status unload(uint32_t id);
  const Program* program(uint32_t id) const;
  // Runs a program. Where the device `queues`, it has only begun when this returns, and `end` waits for it and fills the outputs: in the order in
  // which they began, two of a program at a time.
  Status run(RunRequest& request, const Cancel& cancel, std::vector<HostArray>* outputs);
  Status end(const RunRequest& request, std::vector<HostArray>* outputs);
  bool queues() const { return machine_ != nullptr; }
  Status profile(uint32_t id, bool reset, std::vector<double>* nanoseconds) const;

  // Shared buffers, by name; rows as in FileSlice.
  Status write(const HostArray& from, int64_t row);
  Status read(const std::string& name, int64_t row, int64_t rows, HostArray* out) const;
  Status zero(const std::string& name);
  Status hash(const std::string& name, uint64_t* out) const;
  Status count_nonfinite(const std::string& name, int64_t* out) const;
  Status read_files(const std::vector<FileSlice>& slices, const Cancel& cancel);
  Status write_files(const std::vector<FileSlice>& slices, const Cancel& cancel) const;

  Peak peak() { return machine_ ? machine_->peak() : device_->peak(*pool_); }  // what the device can do at most, measured now

  // Of a device with memory of its own (machine.h); elsewhere there is nothing to choose.
  std::string choices() const { return machine_ ? machine_->choices() : ""; }
  bool adopt(const std::string& choices) { return machine_ ? machine_->adopt(choices) : choices.empty(); }

  const Device& device() const { return *device_; }
  int threads() const { return pool_->threads(); }
  int64_t arena_bytes() const { return arena_.bytes(); }
  int64_t derived_bytes() const { return derived_bytes_; }
  int64_t buffer_bytes() const { return buffer_bytes_; }  // shared and private
  int64_t device_bytes() const { return machine_ ? arena_.bytes() + buffer_bytes_ : 0; }  // in memory of the device's own
  int64_t device_total() const { return machine_ ? machine_->total() : 0; }  // what such a device has
  bool fuses_head() const { return machine_ && machine_->fuses_head(); }
  int64_t thread_bytes() const { return thread_scratch_.bytes(); }

 private:
  struct Loaded;
  struct Way;
  class RunContext;
  using Buffers = std::unordered_map<std::string, std::unique_ptr<BufferState>>;

  Session() = default;
  Memory allocate(int64_t bytes) const {
    if (dry_) return Memory::reserve(bytes);
    return machine_ ? machine_->allocate(bytes) : Memory::allocate(bytes, huge_);
  }
  // The error of an `allocate` that came back empty.
  Status no_room(const std::string& what, int64_t bytes, const char* mend) const;
  // Between host memory and a buffer's, from `offset` bytes on.
  Status put(BufferState& to, int64_t offset, const void* from, int64_t bytes) const;
  Status get(const BufferState& from, int64_t offset, void* to, int64_t bytes) const;
  Status reserve_copies(const Loaded& p, std::vector<std::pair<BufferState*, Derived>>* out) const;
  Status find(const std::string& name, BufferState** out) const;
  Status rows_of(const BufferState& b, int64_t row, int64_t* rows, int64_t* row_elements) const;
  Status copy_inputs(Loaded& p, RunRequest& request);
  Status make_output(const Loaded& p, const RunRequest& request, size_t index, HostArray* out) const;
  Status leave_out(const Loaded& p, const std::string& name, Way* way) const;
  Status way_of(Loaded& p, const std::string& overwrite, Way** out) const;
  void execute(Loaded& p, const Way& way, size_t index, const std::vector<int64_t>& counts);
  Status stage_inputs(Loaded& p, RunRequest& request, const std::vector<const HostArray*>& given);
  Status execute_recorded(Loaded& p, Way& way, Timing timing);
  Status queue_outputs(Loaded& p, const RunRequest& request, std::vector<HostArray>* outputs);

  const Device* device_ = nullptr;
  std::unique_ptr<Machine> machine_;  // outlives all memory below; null where the device computes in host memory
  std::unique_ptr<Pool> pool_;
  bool huge_ = false;
  bool dry_ = false;
  Memory arena_;
  Memory thread_scratch_;
  Buffers buffers_;
  std::unordered_map<uint32_t, std::unique_ptr<Loaded>> programs_;
  uint32_t next_program_ = 1;
  int64_t buffer_bytes_ = 0;
  int64_t derived_bytes_ = 0;
};

// The scratch bytes that `device` wants for an instruction whose places are not chosen yet.
int64_t scratch_bytes(const Device& device, const Instruction& code);

}  // namespace attune
