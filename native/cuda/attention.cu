// attention: y = softmax(scale q k^T) v per head over the visible keys; the op chooses the family of kernels (attention.h).
#include "attention.h"

namespace attune::cuda {

int64_t attention_scratch(const Attention& a) { return AttentionPlan(a, nullptr).bytes; }

void attention(const Attention& a, Stream& stream) {
  const AttentionPlan plan(a, stream.scratch<uint8_t>());
  if (!takes_head_size("attention", plan, stream)) return;
  fill_mask(plan, a.end, a.pos, {plan.by_query}, stream);
  if (takes_wgmma(plan, a.q.dtype, stream)) return attention_wgmma(a, plan, stream);
  if (takes_mma(plan, a.q.dtype, stream)) return attention_mma(a, plan, stream);
  attention_plain(a, plan, stream);
}

}  // namespace attune::cuda
