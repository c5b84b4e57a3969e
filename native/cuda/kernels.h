// Every op on CUDA: attune::cuda::NAME(args, stream) queues its launches. Shapes are capacities; rows that are not in use hold
// what harms nothing (index -1, end -1, zeros), so nothing here reads a count and a graph of the launches never changes.
// No atomics, no communication between blocks of a launch, no split that follows the number of SMs where it would change a sum.
#pragma once
#include "../runtime/ops.gen.h"
#include "common/launch.h"

namespace attune::cuda {

#define X(code, name, Struct) void name(const Struct&, Stream&);
ATTUNE_OPS(X)
#undef X

// The ops that need planned scratch: `int64_t NAME_scratch(const STRUCT&)` in the op's file. An op that comes to need it adds
// its line here.
#define ATTUNE_CUDA_SCRATCH(X)              \
  X(attention, Attention)                   \
  X(attention_backward, AttentionBackward)  \
  X(attention_decode, AttentionDecode)      \
  X(gemm, Gemm)                             \
  X(index_transpose, IndexTranspose)        \
  X(linear_logprob, LinearLogprob)          \
  X(qkv_rope_backward, QkvRopeBackward)     \
  X(rms_norm_backward, RmsNormBackward)     \
  X(sum_rows, SumRows)                      \
  X(sum_squares, SumSquares)

#define X(name, Struct) int64_t name##_scratch(const Struct&);
ATTUNE_CUDA_SCRATCH(X)
#undef X

// By opcode, as the device table wants them. native/cuda/table.cc
void run(uint32_t opcode, const void* args, Stream& stream);
int64_t scratch(uint32_t opcode, const void* args);

}  // namespace attune::cuda
