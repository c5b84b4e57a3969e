// What a kernel file includes first. The same file is compiled by nvcc for a GPU and by g++ for the emulator (native/simt),
// which brings headers of CUDA's names; three things are spelled through here because they have no common spelling.
//   ATTUNE_SHARED(float, sums, 32);      __shared__ float sums[32]
//   ATTUNE_DYNAMIC_SHARED(bytes);        extern __shared__ uint8_t bytes[], 1024-byte aligned
//   stream.launch(kernel, ...)           kernel<<<...>>>(...), checked: launch.h
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "../../runtime/ops.gen.h"
#include "launch.h"

#ifdef ATTUNE_SIMT
#include <simt.h>
#else
#define ATTUNE_SHARED(T, name, n) __shared__ T name[n]
#define ATTUNE_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) uint8_t name[]
#endif
