// Derived from ops.gen.h; goes away when ops.gen.h carries kOps and kTableHash itself (and defines ATTUNE_OP_INFO).
#pragma once
#include "ops.gen.h"

namespace attune {

constexpr uint32_t kTableHash = 0;

struct OpInfo {
  const char* name;
  int inputs, optionals, outputs;
  const char* params;  // one letter each: 'd' double, 'l' list
};

constexpr OpInfo kOps[] = {
    {"adamw", 7, 2, 5, "dddd"},
    {"add", 2, 0, 1, ""},
    {"attention", 4, 1, 2, "dd"},
    {"attention_backward", 7, 1, 3, "dd"},
    {"attention_decode", 4, 0, 1, "dd"},
    {"broadcast", 1, 0, 1, ""},
    {"cache_write", 4, 0, 1, ""},
    {"cast", 1, 0, 1, ""},
    {"div", 2, 0, 1, ""},
    {"dpo_loss", 4, 0, 1, "dd"},
    {"dpo_loss_backward", 5, 0, 2, "dd"},
    {"equal", 2, 0, 1, ""},
    {"exp", 1, 0, 1, ""},
    {"fill", 0, 0, 1, "d"},
    {"gather_rows", 2, 0, 1, ""},
    {"gather_rows_backward", 5, 1, 1, ""},
    {"gemm", 2, 2, 1, "dd"},
    {"index_transpose", 1, 0, 3, ""},
    {"iota", 0, 0, 1, ""},
    {"less", 2, 0, 1, ""},
    {"linear_logprob", 3, 0, 4, ""},
    {"log", 1, 0, 1, ""},
    {"log_sigmoid", 1, 0, 1, ""},
    {"log_softmax_gather", 2, 0, 4, ""},
    {"log_softmax_gather_backward", 4, 0, 1, ""},
    {"max", 2, 0, 1, ""},
    {"mul", 2, 0, 1, ""},
    {"qkv_rope", 3, 2, 4, "d"},
    {"qkv_rope_backward", 5, 6, 3, "d"},
    {"reduce_sum", 1, 0, 1, "l"},
    {"rms_norm", 2, 0, 2, "d"},
    {"rms_norm_backward", 4, 2, 2, "d"},
    {"rope_table", 1, 0, 2, "l"},
    {"rsqrt", 1, 0, 1, ""},
    {"segment_gather", 2, 0, 1, ""},
    {"segment_sum", 2, 0, 1, ""},
    {"select", 3, 0, 1, ""},
    {"sum_rows", 1, 1, 1, ""},
    {"sum_squares", 1, 1, 1, ""},
    {"swiglu", 1, 0, 1, ""},
    {"swiglu_backward", 2, 0, 1, ""},
};

}  // namespace attune
