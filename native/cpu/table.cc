// The CPU's kernel table, in opcode order, from the generated list of ops.
#include "../runtime/device.h"
#include "common/pool.h"
#include "kernels.h"

namespace attune {

namespace {

#define X(code, name, Struct) \
  [](const void* args, Context& context) { cpu::name(*static_cast<const Struct*>(args), context); },
const Kernel kKernels[] = {ATTUNE_OPS(X)};
#undef X

}  // namespace

const Device kCpuDevice = {"cpu", kKernels, cpu::scratch, cpu::derived, cpu::make_pool, cpu::peak};

}  // namespace attune
