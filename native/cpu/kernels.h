// Every CPU kernel: attune::cpu::NAME(args, context), one per op of the generated table. Kernels never throw, never allocate
// in steady state, and give the same bits with any number of threads.
#pragma once
#include "../runtime/context.h"
#include "../runtime/ops.gen.h"

namespace attune {
struct Peak;
}

namespace attune::cpu {

#define X(code, name, Struct) void name(const Struct&, Context&);
ATTUNE_OPS(X)
#undef X

// The ops that need planned scratch. Each has `int64_t NAME_scratch(const STRUCT&)` in its own file: bytes enough for any counts
// up to the shapes it is given. An op that comes to need scratch adds its line here.
#define ATTUNE_SCRATCH(X)                        \
  X(attention, Attention)                        \
  X(attention_backward, AttentionBackward)       \
  X(gemm, Gemm)                                  \
  X(linear_logprob, LinearLogprob)               \
  X(qkv_rope_backward, QkvRopeBackward)          \
  X(rms_norm_backward, RmsNormBackward)          \
  X(sum_squares, SumSquares)

#define X(name, Struct) int64_t name##_scratch(const Struct&);
ATTUNE_SCRATCH(X)
#undef X

// The ops that keep a copy of an input that is a weight. Each has `Copy NAME_derived(const STRUCT&)` in its own file.
#define ATTUNE_DERIVED(X) \
  X(gemm, Gemm)           \
  X(linear_logprob, LinearLogprob)

#define X(name, Struct) Copy name##_derived(const Struct&);
ATTUNE_DERIVED(X)
#undef X

// Bytes of planned scratch, and the copy that is kept, for an instruction whose tensors hold capacity shapes, and non-null data
// where they are present.
int64_t scratch(uint32_t opcode, const void* args);
Copy derived(uint32_t opcode, const void* args);

// What the pool reaches on multiply-adds in registers and on copies. native/cpu/peak.cc
Peak peak(Pool& pool);

}  // namespace attune::cpu
