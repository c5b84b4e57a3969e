// The mask of attention summed up: end and pos padded, their bounds by 64 rows, and for each tile of one axis which tiles of the
// other hold visible pairs, and which tile of it has most work. math: native/cuda/attention.h. source: FlashMask (arXiv:2410.01359)
// keeps intervals by column; here one bound is enough, because documents and trees lie in pre-order. tiling: a warp sums up 64 rows;
// a warp tests the tiles beside one, 32 at a time; a thread ranks a tile by its work; short rows go to one block that does it all.
// budget: under 64 registers, no shared memory. limits: fewer than 2^31 rows. measured: H200, under ncu, 4k: 7 us.
#include <algorithm>
#include <climits>

#include "attention.h"
#include "common/grid.h"
#include "common/reduce.h"

namespace attune::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlockWarps = kThreads / 32;
constexpr int kLoneThreads = 1024;
constexpr int64_t kLoneRows = 4096;  // up to here one block does all: launches would cost more than it takes

// What is to be filled: outputs are the plan's, `mask` reads them.
struct MaskWork {
  const int32_t *end, *pos;  // of the op; pos is null without a window
  int32_t *padded_end, *padded_pos;
  Bounds* bounds;
  AttentionMask mask;
  int32_t blocks;  // of kMaskBlock rows
  int32_t tables;
  TileTable table[3];
};

__device__ int32_t lowest_of_warp(int32_t x) { return __reduce_min_sync(kAllLanes, x); }
__device__ int32_t highest_of_warp(int32_t x) { return __reduce_max_sync(kAllLanes, x); }
__device__ int32_t tiles_of(int32_t rows, int32_t tile) { return (rows + tile - 1) / tile; }

// By a warp: rows [64 block, 64 block + 64), padded and summed up.
__device__ void sum_up(const MaskWork& w, int32_t block) {
  const int lane = threadIdx.x % 32;
  Bounds b = {INT_MAX, INT_MIN, INT_MAX, INT_MIN};
  for (int half = 0; half < 2; ++half) {
    const int32_t row = block * kMaskBlock + half * 32 + lane;
    const bool inside = row < w.mask.rows;
    const int32_t end = inside ? w.end[row] : 0;
    w.padded_end[row] = end;
    b.end_low = min(b.end_low, end);
    b.end_high = max(b.end_high, end);
    if (w.pos) {
      const int32_t pos = inside ? w.pos[row] : 0;
      w.padded_pos[row] = pos;
      if (inside) {
        b.pos_low = min(b.pos_low, pos);
        b.pos_high = max(b.pos_high, pos);
      }
    }
  }
  b.end_low = lowest_of_warp(b.end_low);
  b.end_high = highest_of_warp(b.end_high);
  b.pos_low = lowest_of_warp(b.pos_low);
  b.pos_high = highest_of_warp(b.pos_high);
  if (lane == 0) w.bounds[block] = b;
}

// Bounds of rows [first, first + count), clipped to the table.
__device__ Bounds bounds_of(const MaskWork& w, int32_t first, int32_t count) {
  Bounds b = {INT_MAX, INT_MIN, INT_MAX, INT_MIN};
  const int32_t last = min(w.blocks, (first + count) / kMaskBlock);
  for (int32_t i = first / kMaskBlock; i < last; ++i) {
    const Bounds x = w.bounds[i];
    b.end_low = min(b.end_low, x.end_low);
    b.end_high = max(b.end_high, x.end_high);
    b.pos_low = min(b.pos_low, x.pos_low);
    b.pos_high = max(b.pos_high, x.pos_high);
  }
  return b;
}

// By a warp: the words of one outer tile, a lane to an inner tile, and how many inner tiles hold a visible pair.
__device__ void fill_row(const MaskWork& w, const TileTable& table, int32_t tile) {
  const int lane = threadIdx.x % 32;
  const int32_t outer = tile * table.outer_rows, words = tiles_of(tiles_of(w.mask.rows, table.inner_rows), 32);
  int32_t visible = 0;
  for (int32_t i = 0; i < words; ++i) {
    const int64_t inner = (int64_t{i} * 32 + lane) * table.inner_rows;
    bool any = false, all = false;
    if (inner < w.mask.rows) {
      const bool by_query = table.outer_is_query;
      const int32_t query = by_query ? outer : static_cast<int32_t>(inner), key = by_query ? static_cast<int32_t>(inner) : outer;
      const int32_t query_rows = by_query ? table.outer_rows : table.inner_rows;
      const int32_t key_rows = by_query ? table.inner_rows : table.outer_rows;
      const int32_t query_end = min(w.mask.rows, query + query_rows);
      const Bounds k = bounds_of(w, key, key_rows);
      any = key < query_end && k.end_high > query;
      all = key + key_rows - 1 <= query && k.end_low >= query_end;
      if (w.mask.window) {
        const Bounds q = bounds_of(w, query, query_rows);
        any = any && q.pos_low - k.pos_high < w.mask.window;
        all = all && q.pos_high - k.pos_low < w.mask.window;
      }
      any = any || (table.never_empty && key <= outer && outer < key + key_rows);
    }
    const TileWord word = {__ballot_sync(kAllLanes, any), __ballot_sync(kAllLanes, all)};
    visible += __popc(word.any);
    if (lane == 0) table.words[int64_t{tile} * words + i] = word;
  }
  if (lane == 0) table.visible[tile] = visible;
}

// By a thread: the tile's place in the order, tiles with most work first, of equal ones the later.
__device__ void rank(const MaskWork& w, const TileTable& table, int32_t tile) {
  const int32_t tiles = tiles_of(w.mask.rows, table.outer_rows), own = table.visible[tile];
  int32_t place = 0;
  for (int32_t other = 0; other < tiles; ++other) {
    const int32_t visible = table.visible[other];
    place += visible > own || (visible == own && other > tile);
  }
  table.order[place] = tile;
}

__global__ void __launch_bounds__(kThreads) attention_mask_bounds(MaskWork w) {
  const int32_t block = blockIdx.x * kBlockWarps + threadIdx.x / 32;
  if (block < w.blocks) sum_up(w, block);
}
__global__ void __launch_bounds__(kThreads) attention_mask_tiles(MaskWork w) {
  const TileTable table = w.table[blockIdx.y];
  const int32_t tile = blockIdx.x * kBlockWarps + threadIdx.x / 32;
  if (tile < tiles_of(w.mask.rows, table.outer_rows)) fill_row(w, table, tile);
}
__global__ void __launch_bounds__(kThreads) attention_mask_order(MaskWork w) {
  const TileTable table = w.table[blockIdx.y];
  const int32_t tile = blockIdx.x * kThreads + threadIdx.x;
  if (tile < tiles_of(w.mask.rows, table.outer_rows)) rank(w, table, tile);
}

// The three of them, one after the other.
__global__ void __launch_bounds__(kLoneThreads) attention_mask(MaskWork w) {
  constexpr int kWarpsHere = kLoneThreads / 32;
  for (int32_t block = threadIdx.x / 32; block < w.blocks; block += kWarpsHere) sum_up(w, block);
  __syncthreads();
  for (int t = 0; t < w.tables; ++t)
    for (int32_t tile = threadIdx.x / 32; tile < tiles_of(w.mask.rows, w.table[t].outer_rows); tile += kWarpsHere)
      fill_row(w, w.table[t], tile);
  __syncthreads();
  for (int t = 0; t < w.tables; ++t)
    for (int32_t tile = threadIdx.x; tile < tiles_of(w.mask.rows, w.table[t].outer_rows); tile += kLoneThreads)
      rank(w, w.table[t], tile);
}

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

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

AttentionPlan::AttentionPlan(const Attention& a, uint8_t* scratch)
    : rows(a.q.shape[0]), heads(a.q.shape[1]), kv_heads(a.k.shape[1]), size(a.q.shape[2]), scale(static_cast<float>(a.scale)),
      window(static_cast<int32_t>(std::min<double>(a.window, INT_MAX))) {
  lay_out(scratch, false, false);
}

AttentionPlan::AttentionPlan(const AttentionBackward& a, uint8_t* scratch)
    : rows(a.q.shape[0]), heads(a.q.shape[1]), kv_heads(a.k.shape[1]), size(a.q.shape[2]), scale(static_cast<float>(a.scale)),
      window(static_cast<int32_t>(std::min<double>(a.window, INT_MAX))) {
  lay_out(scratch, true, a.q.dtype == DType::bf16 && size <= 128);
}

void AttentionPlan::lay_out(uint8_t* scratch, bool backward, bool backward_wgmma) {
  scale2 = scale * 1.44269504f;
  padded = round_up(rows, kRowPadding);
  Pieces pieces{scratch};
  auto table = [&](int32_t outer, int32_t inner, bool outer_is_query, bool never_empty = false) {
    const int64_t tiles = ceil_div(rows, outer), words = ceil_div(ceil_div(rows, inner), 32);
    return TileTable{pieces.take<TileWord>(tiles * words), pieces.take<int32_t>(tiles), pieces.take<int32_t>(tiles), outer, inner,
                     outer_is_query, never_empty};
  };
  end = pieces.take<int32_t>(padded);
  pos = pieces.take<int32_t>(window ? padded : 0);
  bounds = pieces.take<Bounds>(padded / kMaskBlock);
  by_query = table(backward ? 128 : forward_queries(size), 128, true, !backward);
  by_key = backward ? table(128, 64, false) : TileTable{};
  by_narrow_query = backward ? table(64, 128, true) : TileTable{};
  stats = pieces.take<QueryStats>(backward ? heads * head_stats() : 0);
  // Few keys would leave most of a GPU idle. The shape alone decides, so that sums are the same on every device.
  constexpr int64_t kBlocks = 256;
  const int64_t key_tiles = std::max<int64_t>(1, ceil_div(rows, 128) * kv_heads);
  splits = backward_wgmma ? static_cast<int32_t>(std::clamp<int64_t>(kBlocks / key_tiles, 1, group())) : 1;
  partials = pieces.take<float>(splits > 1 ? 2 * splits * rows * kv_heads * size : 0);
  // All heads at once, or so many that a launch still fills a GPU.
  constexpr int64_t kKeptBytes = int64_t{2560} << 20;
  kept = KeptTiles(rows);
  const int64_t kept_of_group = std::max<int64_t>(1, group() * kept.of_head * KeptTiles::kBytes);
  kept_kv_heads = backward_wgmma ? std::min(kv_heads, kKeptBytes / kept_of_group) : 0;
  if (kept_kv_heads > 0) kept_kv_heads = ceil_div(kv_heads, ceil_div(kv_heads, kept_kv_heads));
  if (kept_kv_heads < kv_heads && kept_kv_heads * ceil_div(rows, 128) < kBlocks) kept_kv_heads = 0;
  kept.data = pieces.take<uint8_t>(kept_kv_heads * group() * kept.of_head * KeptTiles::kBytes);
  bytes = pieces.used;
}

void fill_mask(const AttentionPlan& plan, const Tensor& end, const Tensor& pos, std::initializer_list<TileTable> tables,
               Stream& stream) {
  MaskWork work = {end.as<const int32_t>(),
                   plan.window ? pos.as<const int32_t>() : nullptr,
                   plan.end,
                   plan.pos,
                   plan.bounds,
                   plan.mask(),
                   static_cast<int32_t>(plan.padded / kMaskBlock),
                   static_cast<int32_t>(tables.size()),
                   {}};
  std::copy(tables.begin(), tables.end(), work.table);
  if (plan.rows <= kLoneRows) return stream.launch("attention_mask", attention_mask, 1, kLoneThreads, 0, work);
  int64_t tiles = 0;
  for (const TileTable& table : tables) tiles = std::max(tiles, ceil_div(plan.rows, table.outer_rows));
  auto grid = [&](int64_t work_items, int64_t of_block) {
    return dim3(static_cast<unsigned>(ceil_div(work_items, of_block)), static_cast<unsigned>(tables.size()));
  };
  stream.launch("attention_mask_bounds", attention_mask_bounds, dim3(grid(work.blocks, kBlockWarps).x), kThreads, 0, work);
  stream.launch("attention_mask_tiles", attention_mask_tiles, grid(tiles, kBlockWarps), kThreads, 0, work);
  stream.launch("attention_mask_order", attention_mask_order, grid(tiles, kThreads), kThreads, 0, work);
}

}  // namespace attune::cuda
