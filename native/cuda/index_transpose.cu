// index_transpose: for idx (M) into R rows, the positions of idx that hold r are order[start[r] .. start[r] + length[r]), ascending.
// Entries that are no row are listed nowhere; the rest of order is -1.
// source: lib/ops/gather_rows.ts.
// method: pairs (row, position), as one 64-bit number all different, so that sorting them is stable and has one answer. 1. Each tile of
// kTile pairs is sorted in shared memory (bitonic). 2. A pair's place in the whole is the number of smaller pairs, over all tiles: a
// binary search in each. 3. The list of row r begins where the sorted rows reach r.
// budget: launch 1: 16 KiB of shared memory, 66 rounds; launch 2: 12 M (M / kTile) reads from the level-2 cache; launch 3: 2 R log2 M.
// Scratch: 12 bytes a pair.
// limits: M < 2^31. Beyond a million, launch 2 would deserve a merge.
// measured: not yet.
#include "common/grid.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kTile = 2048, kThreads = 256;
constexpr uint64_t kNothing = ~uint64_t{0};  // fills the last tile

int64_t tiles_of(const IndexTranspose& a) { return ceil_div(a.idx.size(), kTile); }

// How many of the first `count` of an ascending list lie below x.
template <class T> __device__ int64_t below(const T* list, int64_t count, T x) {
  int64_t low = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    const bool right = list[low + half] < x;
    low = right ? low + half + 1 : low;
    count = right ? count - half - 1 : half;
  }
  return low;
}

// The same for a sorted tile, in steps that all tiles share, so that several searches run beside one another.
__device__ inline int below_in_tile(const uint64_t* tile, uint64_t x) {
  int low = 0;
#pragma unroll
  for (int step = kTile / 2; step > 0; step /= 2)
    if (tile[low + step - 1] < x) low += step;
  return low + (tile[low] < x);
}

// Entries that are no row sort behind all rows, as row `rows`.
__global__ void __launch_bounds__(kTile / 2)
    index_transpose_tiles(const int32_t* idx, int64_t count, int64_t rows, uint64_t* pairs) {
  ATTUNE_SHARED(uint64_t, tile, kTile);
  const int64_t first = int64_t{blockIdx.x} * kTile;
  for (int i = threadIdx.x; i < kTile; i += kTile / 2) {
    tile[i] = kNothing;
    if (first + i >= count) continue;
    const int64_t entry = idx[first + i], row = entry >= 0 && entry < rows ? entry : rows;
    tile[i] = static_cast<uint64_t>(row) << 32 | static_cast<uint64_t>(first + i);
  }
  for (int run = 2; run <= kTile; run *= 2)
    for (int step = run / 2; step > 0; step /= 2) {
      __syncthreads();
      const int t = threadIdx.x, i = 2 * t - t % step, j = i + step;
      const bool ascending = (i & run) == 0;
      const uint64_t a = tile[i], b = tile[j];
      if ((a > b) != ascending) continue;
      tile[i] = b;
      tile[j] = a;
    }
  __syncthreads();
  for (int i = threadIdx.x; i < kTile; i += kTile / 2) pairs[first + i] = tile[i];
}

__global__ void __launch_bounds__(kThreads)
    index_transpose_places(const uint64_t* pairs, int64_t tiles, int32_t rows, int32_t* sorted, int32_t* order) {
  const uint64_t pair = pairs[int64_t{blockIdx.x} * kThreads + threadIdx.x];
  if (pair == kNothing) return;
  int64_t place = 0;
#pragma unroll 4
  for (int64_t tile = 0; tile < tiles; ++tile) place += below_in_tile(pairs + tile * kTile, pair);
  const int32_t row = static_cast<int32_t>(pair >> 32), position = static_cast<int32_t>(pair);
  sorted[place] = row;
  order[place] = row < rows ? position : -1;
}

__global__ void __launch_bounds__(kThreads)
    index_transpose_lists(const int32_t* sorted, int64_t count, int32_t* start, int32_t* length, int64_t rows) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= rows) return;
  const int64_t first = below(sorted, count, static_cast<int32_t>(row));
  const int64_t last = first + below(sorted + first, count - first, static_cast<int32_t>(row + 1));
  start[row] = static_cast<int32_t>(first);
  length[row] = static_cast<int32_t>(last - first);
}

}  // namespace

int64_t index_transpose_scratch(const IndexTranspose& a) {
  return tiles_of(a) * kTile * static_cast<int64_t>(sizeof(uint64_t) + sizeof(int32_t));
}

void index_transpose(const IndexTranspose& a, Stream& stream) {
  const int64_t count = a.idx.size(), rows = a.start.size(), tiles = tiles_of(a);
  uint64_t* pairs = stream.scratch<uint64_t>();
  int32_t* sorted = reinterpret_cast<int32_t*>(pairs + tiles * kTile);
  stream.launch("index_transpose_sort", index_transpose_tiles, grid_of(stream, "index_transpose", tiles), kTile / 2, 0,
                a.idx.as<int32_t>(), count, rows, pairs);
  stream.launch("index_transpose_place", index_transpose_places, grid_of(stream, "index_transpose", tiles * (kTile / kThreads)),
                kThreads, 0, pairs, tiles, static_cast<int32_t>(rows), sorted, a.order.as<int32_t>());
  stream.launch("index_transpose_lists", index_transpose_lists, grid_of(stream, "index_transpose", ceil_div(rows, kThreads)),
                kThreads, 0, sorted, count, a.start.as<int32_t>(), a.length.as<int32_t>(), rows);
}

}  // namespace attune::cuda
