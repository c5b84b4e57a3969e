// The flat program as the machine sees it: dims, buffers and instructions, decoded from bytes and checked.
// The bytes are written by lib/program/encode.ts; the layout stands in program.cc.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "status.h"
#include "tensor.h"

namespace attune {

// A capacity whose count in use comes with each run.
struct Dim {
  std::string name;
  int64_t capacity = 0;
};

struct Type {
  DType dtype = DType::f32;
  int32_t rank = 0;
  int64_t size[4] = {1, 1, 1, 1};   // capacities
  int32_t dim[4] = {-1, -1, -1, -1};  // which Dim counts this axis, -1: none

  int64_t elements() const;
  int64_t bytes() const { return elements() * width(dtype); }
  bool same(const Type& other) const;  // dtype and capacities
  std::string text() const;            // float32[512, 64]
};

const char* dtype_name(DType t);

struct Buffer {
  std::string name;
  Type type;
  bool own = false;     // belongs to this program alone (inputs/, outputs/)
  bool weight = false;  // may have derived copies
  int32_t whole = -1;   // the buffer before this one that it is a part of, from `offset` bytes on; -1: none
  int64_t offset = 0;
};

struct Slot {
  static constexpr uint32_t kAbsent = 0, kArena = 1, kBuffers = 2;
  uint32_t space = kAbsent;  // kBuffers + i: buffer i
  int64_t offset = 0;
  Type type;
};

struct Instruction {
  uint32_t opcode = 0;
  int64_t scratch_offset = 0;
  int64_t scratch_bytes = 0;
  std::vector<Slot> slots;         // in the struct's order: inputs, optionals, outputs
  std::vector<uint64_t> params;    // 8-byte words, as encoded
  std::string name;                // scope path, for profiles and messages
};

struct Program {
  int64_t arena = 0;
  std::vector<Dim> dims;
  std::vector<Buffer> buffers;
  std::vector<Instruction> code;
};

// Reads and checks a program. Any bytes whatever give either a sound program or an error.
Status decode(const uint8_t* bytes, size_t size, Program* out);
// One instruction by itself, without dims or buffers: the planner asks its scratch before places are chosen, so offsets
// are not looked at.
Status decode_instruction(const uint8_t* bytes, size_t size, Instruction* out);

// Lays out an instruction's parameter struct (its tensors, then its parameters) in `args`, which must hold
// args_bytes(opcode) bytes. `tensors` has one entry per slot.
void fill_args(const Instruction& code, const Tensor* tensors, void* args);
size_t args_bytes(uint32_t opcode);
constexpr int kMaxSlots = 24;
constexpr size_t kMaxArgs = kMaxSlots * sizeof(Tensor) + 16 * 16;

}  // namespace attune
