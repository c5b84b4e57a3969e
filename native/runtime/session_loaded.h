// A program bound to a session's buffers. Private to session*.cc.
#pragma once
#include "session.h"

namespace attune {

struct Session::Loaded {
  Program program;
  std::vector<BufferState*> spaces;                // one per program buffer: shared or own
  std::vector<std::unique_ptr<BufferState>> own;   // inputs/, outputs/
  int64_t own_bytes = 0;
  std::vector<double> nanoseconds;                 // per instruction, over profiled runs

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
