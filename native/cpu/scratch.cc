// What each instruction needs as planned scratch, asked by the planner before a program runs.
#include "kernels.h"

namespace attune::cpu {
namespace {

// Ops that are not in ATTUNE_SCRATCH need none.
template <class T> int64_t bytes(const T&) { return 0; }
#define X(name, Struct) \
  template <> int64_t bytes(const Struct& a) { return name##_scratch(a); }
ATTUNE_SCRATCH(X)
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

}  // namespace attune::cpu
