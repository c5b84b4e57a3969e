// Loading and running programs. Reads, writes and files of buffers stand in session_buffers.cc and session_files.cc, the run on a
// device with memory of its own in session_machine.cc.
#include "session.h"

#include <chrono>
#include <cstring>

#include "host.h"
#include "op_info.h"
#include "session_loaded.h"

namespace attune {

namespace {

constexpr int kMaxThreads = 1024;

Status no_program(uint32_t id) {
  return Status::bad(Fault::state, "program " + std::to_string(id) + ": not loaded in this session");
}

bool is(const Derived& d, const Copy& copy, const Type& seen) {
  return d.form == copy.form && d.type.same(seen) && d.memory.bytes() == copy.bytes;
}

std::string place_text(const BufferState* whole, int64_t offset) {
  return whole ? "byte " + std::to_string(offset) + " of " + whole->name : "by itself";
}

bool starts_with(const std::string& s, const char* prefix) { return s.rfind(prefix, 0) == 0; }

}  // namespace

class Session::RunContext final : public Context {
 public:
  RunContext(Session& session, const Loaded& program, const Instruction& code)
      : session_(session), program_(program), code_(code) {}
  Pool& pool() override { return *session_.pool_; }
  void* scratch() override { return code_.scratch_bytes > 0 ? session_.arena_.data() + code_.scratch_offset : nullptr; }
  void* thread_scratch(int thread) override {
    return session_.thread_scratch_.data() + static_cast<int64_t>(thread) * kThreadScratch;
  }
  void* derived(const Copy& copy, bool* valid) override {
    *valid = false;
    const Slot* seen = nullptr;
    BufferState* b = program_.weight_of(code_, copy.data, &seen);
    if (b == nullptr) return nullptr;
    for (Derived& place : b->derived) {
      if (!is(place, copy, seen->type)) continue;
      *valid = place.version == b->version();
      place.version = b->version();  // the kernel fills it now
      return place.memory.data();
    }
    return nullptr;
  }

 private:
  Session& session_;
  const Loaded& program_;
  const Instruction& code_;
};

Session::~Session() = default;

Status Session::no_room(const std::string& what, int64_t bytes, const char* mend) const {
  const std::string owner = machine_ ? std::string(device_->name) + " device" : "system";
  const std::string wanted = what + ": the " + owner + " has no room for " + std::to_string(bytes) + " bytes";
  const Status why = machine_ ? machine_->refusal() : Status::good();
  if (why.fault == Fault::device) return why;
  return Status::bad(Fault::memory, wanted + (why.ok() ? "" : "; " + why.message) + " (" + mend + ")");
}

Status Session::create(const Options& options, std::unique_ptr<Session>* out) {
  std::string why;
  const Device* device = find_device(options.device, &why);
  if (device == nullptr) return Status::bad(Fault::device, why);
  if (options.threads < 0 || options.threads > kMaxThreads)
    return Status::bad(Fault::config, "threads: must be 1 to " + std::to_string(kMaxThreads) + ", got " +
                                          std::to_string(options.threads));
  std::unique_ptr<Session> s(new Session());
  s->device_ = device;
  s->huge_ = options.huge_pages;
  s->dry_ = options.dry;
  if (device->open != nullptr && !options.dry) {
    s->machine_ = device->open(&why);
    if (!s->machine_) return Status::bad(Fault::device, "device " + options.device + ": " + why);
    if (options.named) {
      if (Status named = s->machine_->name_calls(); !named.ok()) return named;
    }
  }
  s->pool_ = device->make_pool(options.threads > 0 ? options.threads : cpu_share());
  const int64_t scratch = device->open ? 0 : s->pool_->threads() * Context::kThreadScratch;
  s->thread_scratch_ = s->allocate(scratch);
  if (!s->thread_scratch_) return s->no_room("session", scratch, "fewer threads take less");
  s->arena_ = s->allocate(0);
  if (!s->arena_) return s->no_room("session", 1, "less memory in use");
  *out = std::move(s);
  return Status::good();
}

Status Session::load(Program given, uint32_t* id) {
  auto p = std::make_unique<Loaded>();
  p->program = std::move(given);
  const Program& program = p->program;
  // Everything that can fail comes first: a program that does not load leaves the session as it was.
  std::vector<std::unique_ptr<BufferState>> fresh;
  std::unordered_map<std::string, BufferState*> seen;
  int64_t bytes = 0;
  for (const Buffer& b : program.buffers) {
    if (seen.count(b.name) > 0) return Status::bad(Fault::data, "program: two buffers are called " + b.name);
    BufferState* whole = b.whole < 0 ? nullptr : p->spaces[static_cast<size_t>(b.whole)];
    const auto shared = b.own ? buffers_.end() : buffers_.find(b.name);
    if (shared != buffers_.end()) {
      const BufferState& known = *shared->second;
      if (!known.type.same(b.type))
        return Status::bad(Fault::shape, "buffer " + b.name + ": must have the type it has in this session, " +
                                             known.type.text() + ", got " + b.type.text());
      const int64_t at = known.memory.data() - shared->second->root().memory.data();
      if (known.whole != whole || (whole != nullptr && at != b.offset))
        return Status::bad(Fault::shape, "buffer " + b.name + ": must lie where it lies in this session, " +
                                             place_text(known.whole, at) + ", got " + place_text(whole, b.offset));
      p->spaces.push_back(shared->second.get());
      seen[b.name] = shared->second.get();
      continue;
    }
    auto state = std::make_unique<BufferState>();
    state->name = b.name;
    state->type = b.type;
    state->whole = whole;
    if (b.own && device_->open != nullptr) {
      p->block_of(*state).take(b.type.bytes());
    } else if (whole) {
      state->memory = whole->memory.part(b.offset, b.type.bytes());
    } else {
      state->memory = allocate(b.type.bytes());
      if (!state->memory) return no_room("buffer " + b.name, b.type.bytes(), "a smaller model, or more memory");
      bytes += b.type.bytes();
    }
    p->spaces.push_back(state.get());
    seen[b.name] = state.get();
    (b.own ? p->own : fresh).push_back(std::move(state));
  }
  for (Loaded::Block* block : {&p->inputs, &p->outputs}) {
    if (block->bytes == 0) continue;
    block->device = allocate(block->bytes);
    if (!block->device) return no_room("inputs and outputs", block->bytes, "a smaller tokens_per_batch takes less");
    bytes += std::exchange(block->bytes, 0);
  }
  if (device_->open != nullptr) {
    for (auto& state : p->own) {
      Loaded::Block& block = p->block_of(*state);
      state->memory = block.device.part(block.take(state->type.bytes()), state->type.bytes());
    }
  }
  if (device_->kernels != nullptr) {
    for (const Instruction& code : program.code) {
      if (device_->kernels[code.opcode] == nullptr)
        return Status::bad(Fault::device, std::string(kOps[code.opcode].name) + ": the " + device_->name +
                                              " device has no kernel for it");
    }
  }
  std::vector<std::pair<BufferState*, Derived>> copies;
  if (Status s = reserve_copies(*p, &copies); !s.ok()) return s;
  if (program.arena > arena_.bytes()) {
    Memory larger = allocate(program.arena);
    if (!larger)
      return no_room("arena", program.arena, "a smaller tokens_per_batch takes less");
    arena_ = std::move(larger);
    for (auto& [other, loaded] : programs_)
      for (auto& [name, way] : loaded->ways) way.recording.reset();  // it kept addresses
  }
  for (auto& [buffer, copy] : copies) {
    derived_bytes_ += copy.memory.bytes();
    buffer->derived.push_back(std::move(copy));
  }
  for (auto& state : fresh) buffers_.emplace(state->name, std::move(state));
  buffer_bytes_ += bytes;
  p->own_bytes = p->inputs.bytes + p->outputs.bytes;
  if (device_->open == nullptr) {
    for (const auto& state : p->own) p->own_bytes += state->type.bytes();
  }
  p->nanoseconds.assign(program.code.size(), 0.0);
  *id = next_program_++;
  programs_.emplace(*id, std::move(p));
  return Status::good();
}

// Places for the copies that the program's instructions keep and the session does not have yet.
Status Session::reserve_copies(const Loaded& p, std::vector<std::pair<BufferState*, Derived>>* out) const {
  std::vector<int64_t> capacities;
  for (const Dim& d : p.program.dims) capacities.push_back(d.capacity);
  static uint64_t somewhere;  // of what lies in the arena, which is no weight
  for (const Instruction& code : p.program.code) {
    Tensor tensors[kMaxSlots];
    for (size_t i = 0; i < code.slots.size(); ++i) {
      const Slot& s = code.slots[i];
      if (s.space == Slot::kAbsent) continue;
      void* data = s.space == Slot::kArena ? static_cast<void*>(&somewhere)
                                           : p.spaces[s.space - Slot::kBuffers]->memory.data() + s.offset;
      tensors[i] = tensor_of(s.type, capacities, data);
    }
    alignas(64) uint8_t args[kMaxArgs];
    fill_args(code, tensors, args);
    const Copy copy = device_->derived(code.opcode, args);
    const Slot* seen = nullptr;
    BufferState* b = p.weight_of(code, copy.data, &seen);
    if (b == nullptr) continue;
    bool known = false;
    for (const Derived& d : b->derived) known |= is(d, copy, seen->type);
    for (const auto& [other, d] : *out) known |= other == b && is(d, copy, seen->type);
    if (known) continue;
    Derived made{copy.form, seen->type, allocate(copy.bytes), 0};
    if (!made.memory)
      return no_room("buffer " + b->name + ", its packed copy", copy.bytes, "a smaller model, or more memory");
    out->emplace_back(b, std::move(made));
  }
  return Status::good();
}

Status Session::unload(uint32_t id) {
  const auto it = programs_.find(id);
  if (it == programs_.end()) return no_program(id);
  buffer_bytes_ -= it->second->own_bytes;
  programs_.erase(it);
  return Status::good();
}

const Program* Session::program(uint32_t id) const {
  const auto it = programs_.find(id);
  return it == programs_.end() ? nullptr : &it->second->program;
}

Status Session::copy_inputs(Loaded& p, RunRequest& request) {
  const auto& buffers = p.program.buffers;
  std::vector<const HostArray*> given(buffers.size(), nullptr);
  for (const HostArray& x : request.inputs) {
    size_t i = 0;
    while (i < buffers.size() && !(buffers[i].own && buffers[i].name == x.name)) ++i;
    if (i == buffers.size()) return Status::bad(Fault::state, "input " + x.name + ": this program has no such input");
    const Tensor want = tensor_of(buffers[i].type, request.counts, nullptr);
    if (x.dtype != want.dtype || x.elements != want.size())
      return Status::bad(Fault::shape, "input " + x.name + ": must be " + dtype_name(want.dtype) + " with " +
                                           std::to_string(want.size()) + " elements (those in use of " +
                                           buffers[i].type.text() + "), got " + dtype_name(x.dtype) + " with " +
                                           std::to_string(x.elements));
    given[i] = &x;
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (buffers[i].own && given[i] == nullptr && starts_with(buffers[i].name, "inputs/"))
      return Status::bad(Fault::state, "input " + buffers[i].name + ": must be given with every run");
  }
  if (machine_) return stage_inputs(p, request, given);
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (given[i] != nullptr && given[i]->elements > 0)
      std::memcpy(p.spaces[i]->memory.data(), given[i]->data.get(), static_cast<size_t>(given[i]->bytes()));
  }
  return Status::good();
}

Status Session::make_output(const Loaded& p, const RunRequest& request, size_t index, HostArray* out) const {
  const std::string& name = request.outputs[index];
  const Tensor t = tensor_of(p.program.buffers[p.index_of(name)].type, request.counts, nullptr);
  out->lent = request.into[index];
  return out->make(name, t.dtype, std::vector<int64_t>(t.shape, t.shape + t.rank));
}

void Session::execute(Loaded& p, const Way& way, size_t index, const std::vector<int64_t>& counts) {
  const Instruction& code = p.program.code[index];
  Tensor tensors[kMaxSlots];
  const size_t slots = code.slots.size();
  const auto space_of = [&](const Slot& s) -> const Memory& {
    return s.space == Slot::kArena ? arena_ : p.spaces[s.space - Slot::kBuffers]->memory;
  };
  const auto whole_of = [&](const Slot& s) -> const Memory& {
    return s.space == Slot::kArena ? arena_ : p.spaces[s.space - Slot::kBuffers]->root().memory;
  };
  forbid(arena_.data(), arena_.bytes());  // a kernel may touch what its instruction names, and nothing else
  for (size_t i = 0; i < slots; ++i) {
    const Slot& s = code.slots[i];
    if (s.space == Slot::kAbsent || way.leaves_out(index, i)) continue;
    const Memory& space = space_of(s);
    tensors[i] = tensor_of(s.type, counts, space.data() + s.offset);
    forbid(whole_of(s).data(), whole_of(s).bytes());
  }
  if (device_->kernels != nullptr) {
    for (size_t i = 0; i < slots; ++i) allow(tensors[i].data, tensors[i].bytes());
    if (code.scratch_bytes > 0) allow(arena_.data() + code.scratch_offset, code.scratch_bytes);
    alignas(64) uint8_t args[kMaxArgs];
    fill_args(code, tensors, args);
    RunContext context(*this, p, code);
    device_->kernels[code.opcode](args, context);
  }
  allow(arena_.data(), arena_.bytes());
  for (const Slot& s : code.slots)
    if (s.space != Slot::kAbsent) allow(whole_of(s).data(), whole_of(s).bytes());
  const OpInfo& op = kOps[code.opcode];
  for (size_t i = static_cast<size_t>(op.inputs + op.optionals); i < slots; ++i) {
    if (code.slots[i].space >= Slot::kBuffers) p.spaces[code.slots[i].space - Slot::kBuffers]->version() += 1;
  }
}

Status Session::run(RunRequest& request, const Cancel& cancel, std::vector<HostArray>* outputs) {
  const auto it = programs_.find(request.program);
  if (it == programs_.end()) return no_program(request.program);
  if (dry_) return Status::bad(Fault::state, "run: must be in a session that has memory, got a dry one");
  Loaded& p = *it->second;
  const auto& dims = p.program.dims;
  if (request.counts.size() != dims.size())
    return Status::bad(Fault::shape, "counts: must have " + std::to_string(dims.size()) + " entries, one per dim, got " +
                                         std::to_string(request.counts.size()));
  for (size_t i = 0; i < dims.size(); ++i) {
    if (request.counts[i] < 0 || request.counts[i] > dims[i].capacity)
      return Status::bad(Fault::shape, "count " + dims[i].name + ": must be 0 to " + std::to_string(dims[i].capacity) +
                                           ", got " + std::to_string(request.counts[i]));
  }
  for (const std::string& name : request.outputs) {
    if (p.index_of(name) == p.spaces.size())
      return Status::bad(Fault::state, "output " + name + ": this program has no such buffer");
  }
  Way* way = nullptr;
  if (Status s = way_of(p, request.overwrite, &way); !s.ok()) return s;
  if (machine_ && cancel.load(std::memory_order_relaxed)) return Status::bad(Fault::cancelled, "run: cancelled before it began");
  if (Status s = copy_inputs(p, request); !s.ok()) return s;
  if (machine_) {
    Status begun = execute_recorded(p, *way, request.timing);
    if (begun.ok()) begun = queue_outputs(p, request, outputs);
    if (!begun.ok()) (void)machine_->finish();  // before host memory is written again that a queued copy may still read
    return begun;
  }
  for (size_t i = 0; i < p.program.code.size(); ++i) {
    if (cancel.load(std::memory_order_relaxed))
      return Status::bad(Fault::cancelled, "run: cancelled before instruction " + std::to_string(i));
    if (request.timing == Timing::none) {
      execute(p, *way, i, request.counts);
    } else {
      const auto start = std::chrono::steady_clock::now();
      execute(p, *way, i, request.counts);
      p.nanoseconds[i] += std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
    }
  }
  outputs->resize(request.outputs.size());
  for (size_t i = 0; i < request.outputs.size(); ++i) {
    HostArray& out = (*outputs)[i];
    if (Status s = make_output(p, request, i, &out); !s.ok()) return s;
    if (Status s = get(*p.spaces[p.index_of(request.outputs[i])], 0, out.at(), out.bytes()); !s.ok()) return s;
  }
  return Status::good();
}

Status Session::profile(uint32_t id, bool reset, std::vector<double>* nanoseconds) const {
  const auto it = programs_.find(id);
  if (it == programs_.end()) return no_program(id);
  *nanoseconds = it->second->nanoseconds;
  if (reset) it->second->nanoseconds.assign(it->second->nanoseconds.size(), 0.0);
  return Status::good();
}

int64_t scratch_bytes(const Device& device, const Instruction& code) {
  Tensor tensors[kMaxSlots];
  static uint64_t somewhere;  // present tensors have an address; a scratch function looks at shapes alone
  for (size_t i = 0; i < code.slots.size(); ++i) {
    if (code.slots[i].space != Slot::kAbsent) tensors[i] = tensor_of(code.slots[i].type, {}, &somewhere);
  }
  alignas(64) uint8_t args[kMaxArgs];
  fill_args(code, tensors, args);
  return device.scratch(code.opcode, args);
}

}  // namespace attune
