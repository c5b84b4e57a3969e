// What TMA needs to know of a bf16 tensor, encoded on the host and passed to a kernel as const __grid_constant__ CUtensorMap.
// Extents, strides and boxes go innermost first; the innermost stride is an element, so strides has one entry fewer. The box's rows
// of up to 64 elements land in shared memory as rows of 128 bytes, swizzled (SWIZZLE_128B): wgmma_descriptor reads them so.
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "launch.h"

namespace attune::cuda {
namespace detail {

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                                 const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's function, asked for at run time: the library links no driver. Null where the driver lacks it.
inline EncodeTiled encode_tiled() {
  static const EncodeTiled function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult answer = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &answer);
    return error == cudaSuccess && answer == cudaDriverEntryPointSuccess ? reinterpret_cast<EncodeTiled>(found) : nullptr;
  }();
  return function;
}

template <int Rank>
bool make_tensor_map(CUtensorMap* map, const void* base, const uint64_t (&extents)[Rank], const uint64_t (&strides_bytes)[Rank - 1],
                     const uint32_t (&box)[Rank], Stream& stream) {
  const EncodeTiled encode = encode_tiled();
  if (!encode) {
    stream.fail("TMA: the driver has no cuTensorMapEncodeTiled; it needs CUDA 12.0 or later");
    return false;
  }
  cuuint64_t shape[Rank], strides[Rank];
  cuuint32_t boxes[Rank], steps[Rank];
  for (int i = 0; i < Rank; ++i) {
    shape[i] = extents[i];
    strides[i] = i + 1 < Rank ? strides_bytes[i] : 0;
    boxes[i] = box[i];
    steps[i] = 1;
  }
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, Rank, const_cast<void*>(base), shape, strides, boxes, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return true;
  std::string what = "TMA: the driver refuses a tensor of extents";
  for (uint64_t extent : extents) what += " " + std::to_string(extent);
  what += ", strides";
  for (uint64_t stride : strides_bytes) what += " " + std::to_string(stride);
  stream.fail(what + ", error " + std::to_string(static_cast<int>(result)));
  return false;
}

}  // namespace detail

// False, with the stream failed, when the driver refuses: an extent of zero, a base or stride that is no multiple of 16 bytes, a box
// over 256 or with rows over 128 bytes.
inline bool make_tensor_map_2d(CUtensorMap* map, const void* base, const uint64_t (&extents)[2], const uint64_t (&strides_bytes)[1],
                               const uint32_t (&box)[2], Stream& stream) {
  return detail::make_tensor_map<2>(map, base, extents, strides_bytes, box, stream);
}
inline bool make_tensor_map_3d(CUtensorMap* map, const void* base, const uint64_t (&extents)[3], const uint64_t (&strides_bytes)[2],
                               const uint32_t (&box)[3], Stream& stream) {
  return detail::make_tensor_map<3>(map, base, extents, strides_bytes, box, stream);
}

}  // namespace attune::cuda
