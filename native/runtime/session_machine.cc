// Running a program on a device with memory of its own. Its instructions see capacities, never counts, so that their calls can be
// recorded once and replayed: the rows that are not in use hold what harms nothing, index -1 and zeros (DESIGN section 2).
#include <cstring>

#include "op_info.h"
#include "session_loaded.h"

namespace attune {

namespace {

// In use are the first rows alone: counts of other axes would move elements.
bool counted_by_rows(const Type& t) {
  for (int i = 1; i < t.rank; ++i)
    if (t.dim[i] >= 0) return false;
  return true;
}

int64_t padded(int64_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

// Every input at capacity, through one piece of staging memory.
Status Session::stage_inputs(Loaded& p, const std::vector<const HostArray*>& given) {
  int64_t total = 0;
  for (size_t i = 0; i < given.size(); ++i)
    if (given[i] != nullptr) total += padded(p.spaces[i]->type.bytes());
  if (p.staging.bytes() < total) p.staging = machine_->staging(total);
  if (p.staging.bytes() < total) return no_room("inputs, pinned host memory", total, "less memory in use, or a smaller tokens_per_batch");
  int64_t at = 0;
  for (size_t i = 0; i < given.size(); ++i) {
    if (given[i] == nullptr) continue;
    const Type& type = p.spaces[i]->type;
    if (!counted_by_rows(type))
      return Status::bad(Fault::shape, "input " + p.spaces[i]->name + ": only its first axis may be counted on this device, got " + type.text());
    uint8_t* to = p.staging.data() + at;
    const size_t used = static_cast<size_t>(given[i]->bytes()), all = static_cast<size_t>(type.bytes());
    if (used > 0) std::memcpy(to, given[i]->data.get(), used);
    std::memset(to + used, type.dtype == DType::i32 ? 0xff : 0, all - used);
    if (Status s = machine_->queue_put(p.spaces[i]->memory.data(), to, type.bytes()); !s.ok()) return s;
    at += padded(type.bytes());
  }
  return Status::good();
}

// Every wanted buffer, in use, through another piece; with one wait, which ends the run.
Status Session::unstage_outputs(Loaded& p, const RunRequest& request, std::vector<HostArray>* outputs) {
  int64_t total = 0;
  outputs->resize(request.outputs.size());
  for (size_t i = 0; i < outputs->size(); ++i) {
    if (Status s = make_output(p, request.outputs[i], request.counts, &(*outputs)[i]); !s.ok()) return s;
    total += padded((*outputs)[i].bytes());
  }
  if (p.unstaging.bytes() < total) p.unstaging = machine_->staging(total);
  if (p.unstaging.bytes() < total) return no_room("outputs, pinned host memory", total, "less memory in use, or a smaller tokens_per_batch");
  int64_t at = 0;
  for (const HostArray& out : *outputs) {
    const BufferState& from = *p.spaces[p.index_of(out.name)];
    if (!counted_by_rows(from.type))
      return Status::bad(Fault::shape, "output " + out.name + ": only its first axis may be counted on this device, got " + from.type.text());
    if (Status s = machine_->queue_get(p.unstaging.data() + at, from.memory.data(), out.bytes()); !s.ok()) return s;
    at += padded(out.bytes());
  }
  if (Status s = machine_->finish(); !s.ok()) return s;
  at = 0;
  for (HostArray& out : *outputs) {
    if (out.bytes() > 0) std::memcpy(out.data.get(), p.unstaging.data() + at, static_cast<size_t>(out.bytes()));
    at += padded(out.bytes());
  }
  return Status::good();
}

Status Session::execute_recorded(Loaded& p, bool profile) {
  const Program& program = p.program;
  if (!p.recording) {
    std::vector<int64_t> capacities;
    for (const Dim& d : program.dims) capacities.push_back(d.capacity);
    p.args.clear();
    std::vector<Call> calls;
    for (const Instruction& code : program.code) {
      Tensor tensors[kMaxSlots];
      for (size_t i = 0; i < code.slots.size(); ++i) {
        const Slot& s = code.slots[i];
        if (s.space == Slot::kAbsent) continue;
        const Memory& space = s.space == Slot::kArena ? arena_ : p.spaces[s.space - Slot::kBuffers]->memory;
        tensors[i] = tensor_of(s.type, capacities, space.data() + s.offset);
      }
      p.args.emplace_back(new uint8_t[kMaxArgs]);
      fill_args(code, tensors, p.args.back().get());
      void* scratch = code.scratch_bytes > 0 ? arena_.data() + code.scratch_offset : nullptr;
      calls.push_back({code.opcode, p.args.back().get(), scratch, code.name.c_str()});
    }
    p.recording = machine_->record(std::move(calls));
  }
  for (const Instruction& code : program.code) {
    const OpInfo& op = kOps[code.opcode];
    for (size_t i = static_cast<size_t>(op.inputs + op.optionals); i < code.slots.size(); ++i)
      if (code.slots[i].space >= Slot::kBuffers) p.spaces[code.slots[i].space - Slot::kBuffers]->version += 1;
  }
  return p.recording->run(profile ? p.nanoseconds.data() : nullptr);
}

}  // namespace attune
