// What the kernels of attention share: the mask, summed up by tiles so that whole tiles can be skipped or left unmasked, the
// plan of the scratch, and the families of kernels that the two ops choose from.
//   plain   attention_plain.cu, attention_backward_plain.cu   fp32 FMA, every head size, both dtypes
//   mma     attention_mma.cu, attention_backward_mma.cu       bf16 tensor cores of sm_80 and later, every head size
//   wgmma   attention_wgmma.cu, attention_backward_wgmma.cu,
//           attention_dq_wgmma.cu, attention_dq_kept_wgmma.cu   bf16, wgmma and TMA of sm_90a, head sizes to 128
#pragma once
#include <initializer_list>

#include "common/prelude.h"

namespace attune::cuda {

constexpr int kMaskBlock = 64;    // rows that one Bounds sums up
constexpr int kRowPadding = 384;  // tables by row are padded to a multiple: no kernel checks before it reads them

// Queries of a block of the wgmma family's forward.
constexpr int32_t forward_queries(int64_t head_size) { return head_size <= 64 ? 192 : 128; }

struct alignas(16) Bounds {
  int32_t end_low, end_high, pos_low, pos_high;
};

// Key j is visible to query i iff j <= i < end[j], and pos[i] - pos[j] < window where there is one. Rows of the padding have end 0.
struct AttentionMask {
  const int32_t* end;    // (padded rows)
  const int32_t* pos;    // (padded rows), null without a window
  const Bounds* bounds;  // (padded rows / kMaskBlock)
  int32_t rows;          // N
  int32_t window;        // 0: none

  __device__ bool visible(int32_t query, int32_t key) const {
    return key <= query && query < end[key] && (window == 0 || pos[query] - pos[key] < window);
  }
  // Of the mask blocks of these two rows, at or below the diagonal: may any pair be visible; is every one, whose keys are the `keys`
  // from `key` on.
  __device__ bool any_visible(int32_t query, int32_t key) const {
    const Bounds k = bounds[key / kMaskBlock];
    return k.end_high > query && (window == 0 || bounds[query / kMaskBlock].pos_low - k.pos_high < window);
  }
  __device__ bool all_visible(int32_t query, int32_t key, int32_t keys) const {
    const Bounds k = bounds[key / kMaskBlock];
    const int32_t query_end = min(rows, (query / kMaskBlock + 1) * kMaskBlock);
    return key + keys - 1 <= query && k.end_low >= query_end &&
           (window == 0 || bounds[query / kMaskBlock].pos_high - k.pos_low < window);
  }
};

// Of 32 inner tiles beside one outer tile, a bit each: is any pair visible; is every pair (so that no element is tested).
struct alignas(8) TileWord {
  uint32_t any, all;
};

// Walks the inner tiles with visible pairs beside one outer tile, from the last to the first. Every role of a block walks the
// same way, so nothing needs to be passed between them.
class TileWalk {
 public:
  __device__ TileWalk(const TileWord* words, int32_t inner_tiles) : words_(words), word_((inner_tiles + 31) / 32) {}

  __device__ bool next() {
    if (ended()) return false;
    const int bit = 31 - __clz(static_cast<int>(left_.any));
    left_.any ^= 1u << bit;
    tile_ = word_ * 32 + bit;
    all_ = left_.all >> bit & 1;
    return true;
  }
  // Whether there is no tile after this one. What it looks up, next() needs not.
  __device__ bool ended() {
    while (left_.any == 0) {
      if (word_ == 0) return true;
      left_ = words_[--word_];
    }
    return false;
  }
  __device__ int32_t tile() const { return tile_; }
  __device__ bool all_visible() const { return all_; }

 private:
  const TileWord* words_;
  int32_t word_, tile_ = 0;
  TileWord left_ = {0, 0};
  bool all_ = false;
};

// What the backward knows of 32 neighbouring queries: their log-sum-exps in base 2 (inf: it sees nothing, and rows of the padding),
// then their dy . y.
struct alignas(16) QueryStats {
  static constexpr int kQueries = 32;
  float lse2[kQueries], delta[kQueries];

  static __device__ float lse2_of(const QueryStats* of_head, int32_t query) {
    return of_head[query / kQueries].lse2[query % kQueries];
  }
  static __device__ float delta_of(const QueryStats* of_head, int32_t query) {
    return of_head[query / kQueries].delta[query % kQueries];
  }
};

// Outer tiles beside inner ones, and which axis is outer.
struct TileTable {
  TileWord* words;   // (outer tiles, words of a row)
  int32_t* visible;  // (outer tiles): how many inner tiles hold a visible pair
  int32_t* order;    // (outer tiles): those with most of them first
  int32_t outer_rows, inner_rows;
  bool outer_is_query;
  bool never_empty;  // of queries: the tile on the diagonal is walked even where it holds no visible pair
};

// dS (queries, keys) in bf16, kept for the tiles of 64 queries at or beyond the diagonal of tiles of 128 keys. In a tile the 16
// queries x 16 keys that a warp computes lie together: (query group of 16, key group of 16, lane), 16 bytes a lane, as its registers
// hold them.
struct KeptTiles {
  static constexpr int kQueries = 64, kKeys = 128, kBytes = kQueries * kKeys * 2;
  uint8_t* data;  // (heads, tiles of a head)
  int64_t query_tiles, of_head;

  KeptTiles() = default;
  explicit KeptTiles(int64_t rows) : data(nullptr), query_tiles((rows + kQueries - 1) / kQueries) {
    const int64_t key_tiles = (rows + kKeys - 1) / kKeys;
    of_head = key_tiles * query_tiles - key_tiles * (key_tiles - 1);
  }
  // Which one it is. head: of those that are kept; query_tile >= 2 key_tile.
  __device__ int64_t at(int64_t head, int64_t key_tile, int64_t query_tile) const {
    return head * of_head + key_tile * query_tiles - key_tile * (key_tile - 1) + query_tile - 2 * key_tile;
  }
};

// Sizes and scratch of one call, forward or backward.
struct AttentionPlan {
  int64_t rows, padded, heads, kv_heads, size;
  float scale, scale2;  // scale2: with log2(e), for exponentials in base 2
  int32_t window;
  int32_t *end, *pos;
  Bounds* bounds;
  TileTable by_query, by_key;
  TileTable by_narrow_query;  // tiles of 64 queries
  QueryStats* stats;  // (heads, padded / 32), of the backward alone
  int32_t splits;     // blocks that share a tile of dk and dv in the wgmma family, each with some heads of the group
  float* partials;    // (2, splits, rows, kv_heads, size): their dk, then their dv; where there is more than one
  // What dk and dv computed of dS and dq would have to compute again, for so many kv heads at a time; none: it is not worth its room.
  int64_t kept_kv_heads;
  KeptTiles kept;
  int64_t bytes;

  AttentionPlan(const Attention& a, uint8_t* scratch);
  AttentionPlan(const AttentionBackward& a, uint8_t* scratch);

  int64_t group() const { return heads / kv_heads; }
  int64_t head_stats() const { return padded / QueryStats::kQueries; }
  AttentionMask mask() const { return {end, window ? pos : nullptr, bounds, static_cast<int32_t>(rows), window}; }

 private:
  void lay_out(uint8_t* scratch, bool backward, bool backward_wgmma);
};

// Fills the plan's end, pos and bounds, and these of its tables. attention_mask.cu
void fill_mask(const AttentionPlan& plan, const Tensor& end, const Tensor& pos, std::initializer_list<TileTable> tables,
               Stream& stream);

// Which kernels run what.
inline bool takes_head_size(const char* op, const AttentionPlan& plan, Stream& stream) {
  const bool good = plan.size % 8 == 0 && plan.size >= 8 && plan.size <= 256;
  if (!good)
    stream.fail(std::string(op) + ": the head size must be a multiple of 8 from 8 to 256, got " + std::to_string(plan.size));
  return good && plan.rows > 0;
}
inline bool takes_mma(const AttentionPlan& plan, DType dtype, const Stream& stream) {
  return stream.device().major >= 8 && dtype == DType::bf16 && plan.scale > 0;
}
inline bool takes_wgmma(const AttentionPlan& plan, DType dtype, const Stream& stream) {
  return stream.device().major == 9 && takes_mma(plan, dtype, stream) && plan.size <= 128;
}

void attention_plain(const Attention& a, const AttentionPlan& plan, Stream& stream);
void attention_backward_plain(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream);
void attention_mma(const Attention& a, const AttentionPlan& plan, Stream& stream);
void attention_backward_mma(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream);
void attention_wgmma(const Attention& a, const AttentionPlan& plan, Stream& stream);
void attention_backward_wgmma(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream);
// Its dq: with dS computed once more; of so many heads from `first_head` on, from the dS that is kept of them.
void launch_dq_wgmma(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream);
void launch_dq_kept_wgmma(const AttentionBackward& a, const AttentionPlan& plan, int64_t first_head, int64_t heads, Stream& stream);

}  // namespace attune::cuda
