// What the decoder must know of each op to fill its struct from a table: how many tensors, and the kinds of parameters.
#pragma once
#include <cstddef>
#include <cstdint>

#include "ops.gen.h"

namespace attune {

constexpr uint32_t kOpCount = sizeof(kOps) / sizeof(kOps[0]);

// The bytes of a struct of `tensors` Tensors followed by parameters: 'd' a double, 'l' a Doubles.
constexpr size_t struct_bytes(int tensors, const char* params) {
  size_t n = static_cast<size_t>(tensors) * sizeof(Tensor);
  for (; *params; ++params) n += *params == 'l' ? sizeof(Doubles) : sizeof(double);
  return n;
}

static_assert(sizeof(Tensor) == 48 && alignof(Tensor) == 8 && sizeof(Doubles) == 16 && sizeof(double) == 8);
#define X(code, name, Struct)                                                                             \
  static_assert(sizeof(Struct) == struct_bytes(kOps[code].inputs + kOps[code].optionals + kOps[code].outputs, \
                                               kOps[code].params));
ATTUNE_OPS(X)
#undef X

}  // namespace attune
