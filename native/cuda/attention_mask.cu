// The mask of attention summed up: end and pos padded, their bounds by 64 rows, and for each tile of one axis which tiles of the
// other hold visible pairs. math: native/cuda/attention.h. source: FlashMask (arXiv:2410.01359) keeps intervals by column; here
// one bound is enough, because documents and trees lie in pre-order. tiling: a warp sums up 64 rows; a warp tests 32 tiles.
// budget: under 40 registers, no shared memory. limits: fewer than 2^31 rows. measured: not yet.
#include <algorithm>
#include <climits>

#include "attention.h"
#include "common/reduce.h"

namespace attune::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlockWarps = kThreads / 32;


__device__ int32_t lowest_of_warp(int32_t x) { return __reduce_min_sync(kAllLanes, x); }
__device__ int32_t highest_of_warp(int32_t x) { return __reduce_max_sync(kAllLanes, x); }

__global__ void __launch_bounds__(kThreads)
    mask_bounds(const int32_t* end, const int32_t* pos, int32_t rows, int32_t padded, int32_t* end_out, int32_t* pos_out,
                Bounds* bounds) {
  const int lane = threadIdx.x % 32;
  const int32_t block = blockIdx.x * kBlockWarps + threadIdx.x / 32;
  if (block * kMaskBlock >= padded) return;
  Bounds b = {INT_MAX, INT_MIN, INT_MAX, INT_MIN};
  for (int half = 0; half < 2; ++half) {
    const int32_t row = block * kMaskBlock + half * 32 + lane;
    const bool inside = row < rows;
    const int32_t e = inside ? end[row] : 0;
    end_out[row] = e;
    b.end_low = min(b.end_low, e);
    b.end_high = max(b.end_high, e);
    if (pos) {
      const int32_t p = inside ? pos[row] : 0;
      pos_out[row] = p;
      if (inside) {
        b.pos_low = min(b.pos_low, p);
        b.pos_high = max(b.pos_high, p);
      }
    }
  }
  b.end_low = lowest_of_warp(b.end_low);
  b.end_high = highest_of_warp(b.end_high);
  b.pos_low = lowest_of_warp(b.pos_low);
  b.pos_high = highest_of_warp(b.pos_high);
  if (lane == 0) bounds[block] = b;
}

// Bounds of the tile's rows [first, first + count), clipped to the table.
__device__ Bounds bounds_of(const Bounds* bounds, int32_t blocks, int32_t first, int32_t count) {
  Bounds b = {INT_MAX, INT_MIN, INT_MAX, INT_MIN};
  const int32_t last = min(blocks, (first + count) / kMaskBlock);
  for (int32_t i = first / kMaskBlock; i < last; ++i) {
    const Bounds x = bounds[i];
    b.end_low = min(b.end_low, x.end_low);
    b.end_high = max(b.end_high, x.end_high);
    b.pos_low = min(b.pos_low, x.pos_low);
    b.pos_high = max(b.pos_high, x.pos_high);
  }
  return b;
}

__global__ void __launch_bounds__(kThreads)
    mask_tiles(TileTable table, AttentionMask mask, int32_t blocks, int32_t outer_tiles, int32_t words) {
  const int lane = threadIdx.x % 32;
  const int64_t at = int64_t{blockIdx.x} * kBlockWarps + threadIdx.x / 32;
  if (at >= int64_t{outer_tiles} * words) return;
  const int32_t outer = static_cast<int32_t>(at / words) * table.outer_rows;
  const int64_t inner = (at % words * 32 + lane) * table.inner_rows;
  bool any = false, all = false;
  if (inner < mask.rows) {
    const bool by_query = table.outer_is_query;
    const int32_t query = by_query ? outer : static_cast<int32_t>(inner);
    const int32_t key = by_query ? static_cast<int32_t>(inner) : outer;
    const int32_t query_rows = by_query ? table.outer_rows : table.inner_rows;
    const int32_t key_rows = by_query ? table.inner_rows : table.outer_rows;
    const int32_t query_end = min(mask.rows, query + query_rows);
    const Bounds k = bounds_of(mask.bounds, blocks, key, key_rows);
    any = key < query_end && k.end_high > query;
    all = key + key_rows - 1 <= query && k.end_low >= query_end;
    if (mask.window) {
      const Bounds q = bounds_of(mask.bounds, blocks, query, query_rows);
      any = any && q.pos_low - k.pos_high < mask.window;
      all = all && q.pos_high - k.pos_low < mask.window;
    }
  }
  const TileWord word = {__ballot_sync(kAllLanes, any), __ballot_sync(kAllLanes, all)};
  if (lane == 0) table.words[at] = word;
}

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
int64_t tiles_of(int64_t rows, int64_t tile) { return (rows + tile - 1) / tile; }
dim3 warps(int64_t count) { return dim3(static_cast<unsigned>((count + kBlockWarps - 1) / kBlockWarps)); }

// Scratch is handed out in order, each piece 256-byte aligned.
struct Pieces {
  uint8_t* base;
  int64_t used = 0;

  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(base + used);
    used = round_up(used + count * static_cast<int64_t>(sizeof(T)), 256);
    return piece;
  }
};

}  // namespace

int64_t tile_words(int64_t rows, int32_t inner_rows) { return tiles_of(tiles_of(rows, inner_rows), 32); }

AttentionPlan::AttentionPlan(const Attention& a, uint8_t* scratch)
    : rows(a.q.shape[0]), heads(a.q.shape[1]), kv_heads(a.k.shape[1]), size(a.q.shape[2]), scale(static_cast<float>(a.scale)),
      window(static_cast<int32_t>(std::min<double>(a.window, INT_MAX))) {
  lay_out(scratch, false);
}

AttentionPlan::AttentionPlan(const AttentionBackward& a, uint8_t* scratch)
    : rows(a.q.shape[0]), heads(a.q.shape[1]), kv_heads(a.k.shape[1]), size(a.q.shape[2]), scale(static_cast<float>(a.scale)),
      window(static_cast<int32_t>(std::min<double>(a.window, INT_MAX))) {
  lay_out(scratch, true);
}

void AttentionPlan::lay_out(uint8_t* scratch, bool backward) {
  scale2 = scale * 1.44269504f;
  padded = round_up(rows, kRowPadding);
  Pieces pieces{scratch};
  auto table = [&](int32_t outer, int32_t inner, bool outer_is_query) {
    return TileTable{pieces.take<TileWord>(tiles_of(rows, outer) * tile_words(rows, inner)), outer, inner, outer_is_query};
  };
  end = pieces.take<int32_t>(padded);
  pos = pieces.take<int32_t>(window ? padded : 0);
  bounds = pieces.take<Bounds>(padded / kMaskBlock);
  by_query = table(128, 128, true);
  by_key = backward ? table(128, 64, false) : TileTable{};
  stats = pieces.take<QueryStats>(backward ? heads * padded : 0);
  bytes = pieces.used;
}

void fill_mask(const AttentionPlan& plan, const Tensor& end, const Tensor& pos, Stream& stream) {
  stream.launch("attention_mask_bounds", mask_bounds, warps(plan.padded / kMaskBlock), kThreads, 0, end.as<const int32_t>(),
                plan.window ? pos.as<const int32_t>() : nullptr, static_cast<int32_t>(plan.rows),
                static_cast<int32_t>(plan.padded), plan.end, plan.pos, plan.bounds);
}

void fill_tiles(const AttentionPlan& plan, const TileTable& table, Stream& stream) {
  const int64_t outer_tiles = tiles_of(plan.rows, table.outer_rows), words = tile_words(plan.rows, table.inner_rows);
  stream.launch("attention_mask_tiles", mask_tiles, warps(outer_tiles * words), kThreads, 0, table, plan.mask(),
                static_cast<int32_t>(plan.padded / kMaskBlock), static_cast<int32_t>(outer_tiles),
                static_cast<int32_t>(words));
}

}  // namespace attune::cuda
