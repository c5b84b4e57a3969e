// What each instruction needs beside its tensors, asked before a program runs: planned scratch, and the copy it keeps of a weight.
#include "kernels.h"

namespace attune::cpu {
namespace {

// Ops that are not in ATTUNE_SCRATCH need none.
template <class T> int64_t bytes(const T&) { return 0; }
#define X(name, Struct) \
  template <> int64_t bytes(const Struct& a) { return name##_scratch(a); }
ATTUNE_SCRATCH(X)
#undef X

template <class T> Copy copy(const T&) { return {}; }
#define X(name, Struct) \
  template <> Copy copy(const Struct& a) { return name##_derived(a); }
ATTUNE_DERIVED(X)
#undef X

}  // namespace

int64_t scratch(uint32_t opcode, const void* args) {
  switch (opcode) {
#define X(code, name, Struct) \
  case code:                  \
    return bytes(*static_cast<const Struct*>(args));
    ATTUNE_OPS(X)
#undef X
  }
  return 0;
}

Copy derived(uint32_t opcode, const void* args) {
  switch (opcode) {
#define X(code, name, Struct) \
  case code:                  \
    return copy(*static_cast<const Struct*>(args));
    ATTUNE_OPS(X)
#undef X
  }
  return {};
}

}  // namespace attune::cpu
