// How much of a tensor a block takes: sizes of blocks and grids.
#pragma once
#include <algorithm>

#include "prelude.h"

namespace attune::cuda {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Threads in whole warps for `work` items, at most `most`.
inline unsigned threads_for(int64_t work, int64_t most) {
  return static_cast<unsigned>(std::clamp<int64_t>(ceil_div(work, 32) * 32, 32, most));
}

// A grid of `blocks` along x, or none and a failure where CUDA takes no such grid.
inline dim3 grid_of(Stream& stream, const char* name, int64_t blocks) {
  if (blocks > INT32_MAX) {
    stream.fail(std::string(name) + ": the tensors must be smaller: " + std::to_string(blocks) +
                " blocks are more than a launch may have");
    return dim3(0);
  }
  return dim3(static_cast<unsigned>(blocks));
}

// Rows, each cut into tiles of `threads` vectors, several vectors a thread: block `b` takes tile b % tiles of row b / tiles.
struct RowTiles {
  unsigned threads, tiles;
  RowTiles(int64_t vectors, int per_thread, int64_t most_threads)
      : threads(threads_for(ceil_div(vectors, per_thread), most_threads)),
        tiles(static_cast<unsigned>(ceil_div(vectors, int64_t{threads} * per_thread))) {}
};

}  // namespace attune::cuda
