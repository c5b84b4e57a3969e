// Columns of the vocabulary that share a top: the tile of linear_logprob's shares (lib/ops/softmax_shares.ts).
#pragma once
#include <cstdint>

namespace attune {

constexpr int64_t kTopColumns = 192;

}  // namespace attune
