// Sums and maxima over a warp or a block, in an order that only the block's size decides: the same bits every time.
#pragma once
#include "prelude.h"

namespace attune::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarps = 32;  // of a block, at most: what a block's sum keeps in shared memory

// Over each run of `lanes` lanes (a power of two), known to all of them.
template <class T> __device__ inline T warp_sum(T x, int lanes = kWarp) {
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ inline float warp_max(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// Over the block (whole warps), known to all threads. `sums` holds kWarps values in shared memory; nobody may write them again
// before the block has met once more.
template <class T> __device__ inline T block_sum(T x, T* sums) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  x = warp_sum(x);
  if (lane == 0) sums[warp] = x;
  __syncthreads();
  return warp_sum(lane < warps ? sums[lane] : T{});
}

}  // namespace attune::cuda
