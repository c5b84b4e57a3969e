// Tiles of the plain family of attention: fp32 in shared memory and fp32 FMA. 256 threads stand as 16 x 16; in a tile of
// B = 16 R rows, thread (y, x) has the rows y, y + 16, ... of results and the columns x, x + 16, ...
#pragma once
#include "attention.h"
#include "common/elements.h"

namespace attune::cuda::plain {

constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;

// Four neighbouring elements. Rows begin at multiples of 8 elements, so both loads are aligned.
__device__ inline float4 load4(const float* x) { return *reinterpret_cast<const float4*>(x); }
__device__ inline float4 load4(const __nv_bfloat16* x) {
  const __nv_bfloat162* pair = reinterpret_cast<const __nv_bfloat162*>(x);
  const float2 low = __bfloat1622float2(pair[0]), high = __bfloat1622float2(pair[1]);
  return {low.x, low.y, high.x, high.y};
}

// R: rows of a thread. Size: the head size's room; columns from the head size on hold zeros.
template <int R, int Size>
struct Tile {
  static constexpr int kRows = kSide * R;
  static constexpr int kStride = Size + 4;          // threads of neighbouring rows read neighbouring banks
  static constexpr int kSquare = kRows + 1;         // row stride of a (B, B) tile
  static constexpr int kColumns = Size / kSide;     // of a thread, in a (B, Size) result
  static constexpr int kFloats = kRows * kStride;
  static constexpr int kSquareFloats = kRows * kSquare;

  // (B, Size) rows `first`... of one head of x (N, heads, size). A row that keep(row) refuses is read as zeros: whatever it
  // holds, 0 times it must add nothing.
  template <class T, class Keep>
  static __device__ void load(float* to, const T* x, int64_t row_stride, int32_t first, int32_t size, Keep keep) {
    constexpr int kQuads = Size / 4;
    for (int i = threadIdx.x; i < kRows * kQuads; i += kThreads) {
      const int row = i / kQuads, column = i % kQuads * 4;
      float4 value = {0, 0, 0, 0};
      if (column < size && keep(first + row)) value = load4(x + (first + row) * row_stride + column);
      *reinterpret_cast<float4*>(to + row * kStride + column) = value;
    }
  }

  // product = a b^T, both (B, size).
  static __device__ void dot(float (&product)[R][R], const float* a, const float* b, int32_t size) {
    const int y = threadIdx.x / kSide, x = threadIdx.x % kSide;
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < R; ++c) product[r][c] = 0;
    for (int d = 0; d < size; d += 4) {
      float4 left[R], right[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        left[r] = load4(a + (y + kSide * r) * kStride + d);
        right[r] = load4(b + (x + kSide * r) * kStride + d);
      }
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int c = 0; c < R; ++c) {
          float sum = product[r][c];
          sum = fmaf(left[r].x, right[c].x, sum);
          sum = fmaf(left[r].y, right[c].y, sum);
          sum = fmaf(left[r].z, right[c].z, sum);
          product[r][c] = fmaf(left[r].w, right[c].w, sum);
        }
    }
  }

  static __device__ void store_square(float* to, const float (&value)[R][R]) {
    const int y = threadIdx.x / kSide, x = threadIdx.x % kSide;
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < R; ++c) to[(y + kSide * r) * kSquare + x + kSide * c] = value[r][c];
  }

  // sum (B, Size) += p (B, B) v (B, Size).
  static __device__ void accumulate(float (&sum)[R][kColumns], const float* p, const float* v) {
    const int y = threadIdx.x / kSide, x = threadIdx.x % kSide;
    for (int j = 0; j < kRows; ++j) {
      float weight[R];
#pragma unroll
      for (int r = 0; r < R; ++r) weight[r] = p[(y + kSide * r) * kSquare + j];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const float value = v[j * kStride + x + kSide * c];
#pragma unroll
        for (int r = 0; r < R; ++r) sum[r][c] = fmaf(weight[r], value, sum[r][c]);
      }
    }
  }

  // Rows `first`... of one head of y (N, heads, size) = factor[row] * sum.
  template <class T>
  static __device__ void write(T* y, int64_t row_stride, int32_t first, int32_t rows, int32_t size,
                               const float (&sum)[R][kColumns], const float (&factor)[R]) {
    const int ty = threadIdx.x / kSide, x = threadIdx.x % kSide;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int32_t row = first + ty + kSide * r;
      if (row >= rows) continue;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = x + kSide * c;
        if (column < size) put(y + row * row_stride + column, sum[r][c] * factor[r]);
      }
    }
  }
};

template <int R, int C>
__device__ void clear(float (&x)[R][C]) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int c = 0; c < C; ++c) x[r][c] = 0;
}

}  // namespace attune::cuda::plain
