// The CUDA ops by opcode, from the generated list.
#include "kernels.h"

namespace attune::cuda {
namespace {

template <class T> int64_t bytes(const T&) { return 0; }
#define X(name, Struct) \
  template <> int64_t bytes(const Struct& a) { return name##_scratch(a); }
ATTUNE_CUDA_SCRATCH(X)
#undef X

}  // namespace

void run(uint32_t opcode, const void* args, Stream& stream) {
  switch (opcode) {
#define X(code, name, Struct) \
  case code:                  \
    return name(*static_cast<const Struct*>(args), stream);
    ATTUNE_OPS(X)
#undef X
  }
}

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

}  // namespace attune::cuda
