// Tiles of the mma.sync family of attention (sm_80 and later): bf16 tiles in shared memory that cp.async fills, and products of whole
// tiles by warps of 16 rows, four warps for the 64 rows of attention_rows.h. Rows are padded by 16 bytes, so that the eight rows that
// ldmatrix reads at once lie in different banks.
#pragma once
#include "attention_rows.h"

namespace attune::cuda::mma {

constexpr int kThreads = kWarpgroup;
constexpr int kBlockRows = 64;  // of a block: 16 a warp
constexpr int kWarpRows = 16;
constexpr int kChunk = 8;       // elements of 16 bytes

// (Rows, Size). Columns from the head size on are zeros, as are rows beyond the tensor.
template <int Rows, int Size>
struct Tile {
  static constexpr int kStride = Size + kChunk;
  static constexpr int kBytes = Rows * kStride * 2;
  __nv_bfloat16* data;

  // Queues copies of rows `first`... of one head of x (N, heads, size).
  __device__ __forceinline__ void load(const __nv_bfloat16* x, int64_t row_stride, int32_t first, int32_t rows, int32_t size) const {
    constexpr int kChunks = Size / kChunk;
    for (int i = threadIdx.x; i < Rows * kChunks; i += kThreads) {
      const int row = i / kChunks, column = i % kChunks * kChunk;
      const bool inside = first + row < rows && column < size;
      ptx::cp_async_16(data + row * kStride + column, inside ? x + (first + row) * row_stride + column : x, inside);
    }
  }
  // 16 rows from `row` on, 16 columns from `column` on, as operand A.
  __device__ __forceinline__ void a(uint32_t (&r)[4], int row, int column) const {
    const int lane = threadIdx.x % 32;
    ptx::ldmatrix_x4(r, data + (row + lane % 16) * kStride + column + lane / 16 * kChunk);
  }
  // As operand B of a product that sums over the columns: result columns are the 16 rows from `row` on; two pairs of registers.
  __device__ __forceinline__ void b_over_columns(uint32_t (&r)[4], int row, int column) const {
    const int lane = threadIdx.x % 32;
    ptx::ldmatrix_x4(r, data + (row + lane / 16 * 8 + lane % 8) * kStride + column + lane / 8 % 2 * kChunk);
  }
  // As operand B of a product that sums over the rows: 16 rows from `row` on, result columns are the 16 from `column` on.
  __device__ __forceinline__ void b_over_rows(uint32_t (&r)[4], int row, int column) const {
    const int lane = threadIdx.x % 32;
    ptx::ldmatrix_x4_transposed(r, data + (row + lane % 16) * kStride + column + lane / 16 * kChunk);
  }
};

// x[at ... at + 15] += a (16, 16) b (16, 16), the result's two halves of 8 columns one after the other.
template <int N>
__device__ __forceinline__ void multiply(float (&x)[N], int at, const uint32_t (&a)[4], const uint32_t (&b)[4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t operand[2] = {b[2 * half], b[2 * half + 1]};
    float d[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] = x[at + 4 * half + i];
    ptx::mma_16x8x16(d, a, operand);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[at + 4 * half + i] = d[i];
  }
}

// product (16 a warp, N) = a b^T over the columns of both.
template <int N, int Size>
__device__ __forceinline__ void multiply_transposed(float (&product)[N / 2], Tile<kBlockRows, Size> a, Tile<N, Size> b) {
  clear(product);
  const int row = threadIdx.x / 32 * kWarpRows;
#pragma unroll
  for (int column = 0; column < Size; column += kStep) {
    uint32_t left[4], right[4];
    a.a(left, row, column);
#pragma unroll
    for (int n = 0; n < N; n += 16) {
      b.b_over_columns(right, n, column);
      multiply(product, n / 2, left, right);
    }
  }
}

// sum (16 a warp, Size) += p b, over the rows of b.
template <int Size, int K>
__device__ __forceinline__ void accumulate(float (&sum)[Size / 2], const Fragments<K>& p, Tile<K, Size> b) {
#pragma unroll
  for (int step = 0; step < K / kStep; ++step)
#pragma unroll
    for (int n = 0; n < Size; n += 16) {
      uint32_t right[4];
      b.b_over_rows(right, step * kStep, n);
      multiply(sum, n / 2, p.at[step], right);
    }
}

// Keys of a tile that the forward and dq walk: registers decide.
template <int Size>
inline constexpr int kKeys = Size > 128 ? 32 : 64;

// Calls f with the room that the head size is padded to: f(std::integral_constant<int, Size>{}).
template <class F>
void by_head_size(int64_t size, F&& f) {
  if (size <= 32) return f(std::integral_constant<int, 32>{});
  if (size <= 64) return f(std::integral_constant<int, 64>{});
  if (size <= 96) return f(std::integral_constant<int, 96>{});
  if (size <= 128) return f(std::integral_constant<int, 128>{});
  if (size <= 192) return f(std::integral_constant<int, 192>{});
  f(std::integral_constant<int, 256>{});
}

}  // namespace attune::cuda::mma
