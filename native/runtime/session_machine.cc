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

// Of the tensors, `inputs` first: what lies where an input lies.
std::vector<Span> written_over(const Tensor* tensors, size_t inputs, size_t all) {
  std::vector<Span> spans;
  for (size_t o = inputs; o < all; ++o) {
    const auto* const to = static_cast<const uint8_t*>(tensors[o].data);
    const int64_t bytes = tensors[o].bytes();
    bool over = false;
    for (size_t i = 0; i < inputs; ++i) {
      const auto* const from = static_cast<const uint8_t*>(tensors[i].data);
      over |= from && from < to + bytes && to < from + tensors[i].bytes();
    }
    if (over && bytes > 0) spans.push_back({tensors[o].data, bytes});
  }
  return spans;
}

bool is_output(const BufferState& b) { return b.name.rfind("outputs/", 0) == 0; }

}  // namespace

// Every input at capacity, in one copy, from the host memory of the run before the last, which has ended.
Status Session::stage_inputs(Loaded& p, RunRequest& request, const std::vector<const HostArray*>& given) {
  request.turn = p.runs++ % 2;
  Loaded::Turn& turn = p.turns[request.turn];
  if (!turn.ended) {
    turn.inputs = machine_->staging(p.inputs.bytes);
    turn.outputs = machine_->staging(p.outputs.bytes);
    if (!turn.inputs || !turn.outputs)
      return no_room("inputs and outputs, pinned host memory", p.inputs.bytes + p.outputs.bytes, "less memory in use, or a smaller tokens_per_batch");
    turn.ended = machine_->mark();
  }
  for (size_t i = 0; i < given.size(); ++i) {
    if (given[i] == nullptr) continue;
    const Type& type = p.spaces[i]->type;
    if (!counted_by_rows(type))
      return Status::bad(Fault::shape, "input " + p.spaces[i]->name + ": only its first axis may be counted on this device, got " + type.text());
    uint8_t* to = turn.inputs.data() + p.place_of(*p.spaces[i]);
    const size_t used = static_cast<size_t>(given[i]->bytes()), all = static_cast<size_t>(type.bytes());
    if (used > 0) std::memcpy(to, given[i]->data.get(), used);
    std::memset(to + used, type.dtype == DType::i32 ? 0xff : 0, all - used);
  }
  return machine_->queue_put(p.inputs.device.data(), turn.inputs.data(), p.inputs.bytes);
}

// What is wanted, in use: outputs in one copy, and other buffers each in its own.
Status Session::queue_outputs(Loaded& p, const RunRequest& request, std::vector<HostArray>* outputs) {
  Loaded::Turn& turn = p.turns[request.turn];
  outputs->resize(request.outputs.size());
  bool any = false;
  for (size_t i = 0; i < outputs->size(); ++i) {
    HostArray& out = (*outputs)[i];
    if (Status s = make_output(p, request, i, &out); !s.ok()) return s;
    const BufferState& from = *p.spaces[p.index_of(out.name)];
    if (!counted_by_rows(from.type))
      return Status::bad(Fault::shape, "output " + out.name + ": only its first axis may be counted on this device, got " + from.type.text());
    any |= is_output(from);
    if (is_output(from)) continue;
    if (Status s = machine_->queue_get(out.at(), from.memory.data(), out.bytes()); !s.ok()) return s;
  }
  if (any) {
    if (Status s = machine_->queue_get(turn.outputs.data(), p.outputs.device.data(), p.outputs.bytes); !s.ok()) return s;
  }
  return turn.ended->set();
}

Status Session::end(const RunRequest& request, std::vector<HostArray>* outputs) {
  Loaded& p = *programs_.at(request.program);
  const Loaded::Turn& turn = p.turns[request.turn];
  if (Status s = turn.ended->wait(); !s.ok()) return s;
  for (HostArray& out : *outputs) {
    const BufferState& from = *p.spaces[p.index_of(out.name)];
    if (is_output(from) && out.bytes() > 0) std::memcpy(out.at(), turn.outputs.data() + p.place_of(from), static_cast<size_t>(out.bytes()));
  }
  return Status::good();
}

Status Session::execute_recorded(Loaded& p, Way& way, Timing timing) {
  const Program& program = p.program;
  if (!way.recording) {
    std::vector<int64_t> capacities;
    for (const Dim& d : program.dims) capacities.push_back(d.capacity);
    way.args.clear();
    std::vector<Call> calls;
    for (size_t index = 0; index < program.code.size(); ++index) {
      const Instruction& code = program.code[index];
      Tensor tensors[kMaxSlots];
      for (size_t i = 0; i < code.slots.size(); ++i) {
        const Slot& s = code.slots[i];
        if (s.space == Slot::kAbsent || way.leaves_out(index, i)) continue;
        const Memory& space = s.space == Slot::kArena ? arena_ : p.spaces[s.space - Slot::kBuffers]->memory;
        tensors[i] = tensor_of(s.type, capacities, space.data() + s.offset);
      }
      way.args.emplace_back(new uint8_t[kMaxArgs]);
      fill_args(code, tensors, way.args.back().get());
      void* scratch = code.scratch_bytes > 0 ? arena_.data() + code.scratch_offset : nullptr;
      const size_t inputs = static_cast<size_t>(kOps[code.opcode].inputs + kOps[code.opcode].optionals);
      calls.push_back({code.opcode, way.args.back().get(), scratch, code.name.c_str(), written_over(tensors, inputs, code.slots.size())});
    }
    way.recording = machine_->record(std::move(calls));
  }
  for (const Instruction& code : program.code) {
    const OpInfo& op = kOps[code.opcode];
    for (size_t i = static_cast<size_t>(op.inputs + op.optionals); i < code.slots.size(); ++i)
      if (code.slots[i].space >= Slot::kBuffers) p.spaces[code.slots[i].space - Slot::kBuffers]->version() += 1;
  }
  return way.recording->run(timing, p.nanoseconds.data());
}

}  // namespace attune
