// The fused head of capability 9.0: linear_logprob_wgmma.cu.
#pragma once
#include "common/launch.h"
#include "../runtime/ops.gen.h"
#include "../runtime/top_columns.h"

namespace attune::cuda {

// Whether it can run these shapes on this device: bf16, C a multiple of 8.
bool linear_logprob_wgmma_takes(const LinearLogprob& a, const Properties& device);
int64_t linear_logprob_wgmma_scratch(const LinearLogprob& a);
void linear_logprob_wgmma(const LinearLogprob& a, Stream& stream);

}  // namespace attune::cuda
