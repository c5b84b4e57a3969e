// A program bound to a session's buffers. Private to session*.cc.
#pragma once
#include <map>
#include <utility>

#include "session.h"

namespace attune {

// A value of this type at `data`, with the shape in use given the counts of the program's dims.
inline Tensor tensor_of(const Type& type, const std::vector<int64_t>& counts, void* data) {
  Tensor t;
  t.data = data;
  t.dtype = type.dtype;
  t.rank = type.rank;
  for (int i = 0; i < 4; ++i)
    t.shape[i] = i < type.rank && type.dim[i] >= 0 ? counts[static_cast<size_t>(type.dim[i])] : type.size[i];
  return t;
}

// How a program runs: as it stands, or with a buffer's content counted as zeros, so that its instructions write over it what they would add.
struct Session::Way {
  std::vector<uint32_t> left_out;  // per instruction, a bit for each slot that is left out
  // On a device with memory of its own: the instructions' structs, and their calls.
  std::vector<std::unique_ptr<uint8_t[]>> args;
  std::unique_ptr<Recording> recording;

  bool leaves_out(size_t instruction, size_t slot) const { return left_out[instruction] >> slot & 1; }
};

struct Session::Loaded {
  Program program;
  std::vector<BufferState*> spaces;                // one per program buffer: shared or own
  std::vector<std::unique_ptr<BufferState>> own;   // inputs/, outputs/
  int64_t own_bytes = 0;
  std::vector<double> nanoseconds;                 // per instruction, over profiled runs
  std::map<std::string, Way> ways;                 // by the name of what they overwrite
  // On a device with memory of its own: all inputs in one block, all outputs in another, so that each travels in one copy, from and to host
  // memory that is laid out alike.
  struct Block {
    Memory device;
    int64_t bytes = 0;
    int64_t take(int64_t more) { return std::exchange(bytes, bytes + (more + 255) / 256 * 256); }
  };
  Block inputs, outputs;
  // That host memory, of two runs that take turns: while the device works on one, the inputs of the other are written.
  struct Turn {
    Memory inputs, outputs;
    std::unique_ptr<Mark> ended;
  };
  Turn turns[2];
  uint32_t runs = 0;  // begun so far

  Block& block_of(const BufferState& b) { return b.name.rfind("inputs/", 0) == 0 ? inputs : outputs; }
  int64_t place_of(const BufferState& b) { return b.memory.data() - block_of(b).device.data(); }

  // spaces.size() where there is none.
  size_t index_of(const std::string& name) const {
    size_t i = 0;
    while (i < spaces.size() && program.buffers[i].name != name) ++i;
    return i;
  }

  // The weight that an instruction sees whole at `data`, and as what; null where that is none.
  BufferState* weight_of(const Instruction& code, const void* data, const Slot** seen) const {
    if (data == nullptr) return nullptr;
    for (const Slot& s : code.slots) {
      if (s.space < Slot::kBuffers || s.offset != 0) continue;
      const Buffer& buffer = program.buffers[s.space - Slot::kBuffers];
      BufferState* b = spaces[s.space - Slot::kBuffers];
      if (!buffer.weight || buffer.own || b->memory.data() != data) continue;
      *seen = &s;
      return b;
    }
    return nullptr;
  }
};

}  // namespace attune
