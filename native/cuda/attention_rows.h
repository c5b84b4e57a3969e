// What the tensor-core families of attention share: 64 rows of accumulators in the registers of 128 threads, and what is done to them
// between products. wgmma and mma.sync lay them out alike: x[4 j + 2 i + c] is row `row` + 8 i, column 8 j + `column` + c, with row
// and column of the thread's Place; and packed in pairs they are the A operand of the next product as they stand.
#pragma once
#include "attention.h"
#include "common/ptx.h"

namespace attune::cuda {

constexpr int kWarpgroup = 128;
constexpr int kStep = 16;  // what one instruction sums over
constexpr float kLn2 = 0.69314718f;

// Of a thread among the 128 that hold 64 rows.
struct Place {
  int row, column;
  __device__ Place() {
    const int thread = threadIdx.x % kWarpgroup, lane = thread % 32;
    row = thread / 32 * 16 + lane / 4;
    column = lane % 4 * 2;
  }
};

template <int N>
__device__ __forceinline__ void clear(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = 0;
}

// (64, Columns) of bf16 in registers, packed as operand A.
template <int Columns>
struct Fragments {
  uint32_t at[Columns / kStep][4];

  __device__ __forceinline__ void pack(const float (&x)[Columns / 2]) {
#pragma unroll
    for (int k = 0; k < Columns / kStep; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) at[k][i] = ptx::pack_bf16(x[8 * k + 2 * i], x[8 * k + 2 * i + 1]);
  }
};

// The online softmax of a thread's two rows. sum is the thread's own share until the end.
template <int Keys>
struct Softmax {
  float high[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  // Scores become exponentials; returns in `shrink` what the rows' earlier sums and products are to be multiplied by.
  __device__ __forceinline__ void step(float (&score)[Keys / 2], float scale2, float (&shrink)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = high[i];
#pragma unroll
      for (int j = 0; j < Keys / 8; ++j) top = fmaxf(top, fmaxf(score[4 * j + 2 * i], score[4 * j + 2 * i + 1]));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      const float base = top == -INFINITY ? 0 : top * scale2;
      shrink[i] = ptx::exp2(high[i] * scale2 - base);
      high[i] = top;
      float part = 0;
#pragma unroll
      for (int j = 0; j < Keys / 8; ++j)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const float p = ptx::exp2(score[4 * j + 2 * i + c] * scale2 - base);
          score[4 * j + 2 * i + c] = p;
          part += p;
        }
      sum[i] = sum[i] * shrink[i] + part;
    }
  }
  __device__ __forceinline__ float total(int i) const {
    const float pair = sum[i] + __shfl_xor_sync(0xffffffffu, sum[i], 1);
    return pair + __shfl_xor_sync(0xffffffffu, pair, 2);
  }
  // The log-sum-exp of row i, whose sum is `total`.
  __device__ __forceinline__ float lse(int i, float total, float scale2) const {
    if (total == 0) return INFINITY;
    return (high[i] == -INFINITY ? 0 : high[i] * scale2 * kLn2) + logf(total);
  }
};

// Values of pairs that the mask hides become `hidden`; rows are queries. row, key: of the thread's first value; ends: two(j, column)
// are the ends of the tile's key j + column, and the next.
template <int Keys, class Ends>
__device__ __forceinline__ void hide(float (&value)[Keys / 2], float hidden, const AttentionMask& mask, const Ends& ends, int column,
                                     int32_t row, int32_t key) {
#pragma unroll
  for (int j = 0; j < Keys / 8; ++j) {
    const int2 end = ends.template two<int2>(8 * j, column);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int32_t query = row + 8 * i, first = key + 8 * j;
      if (first > query || query >= end.x) value[4 * j + 2 * i] = hidden;
      if (first + 1 > query || query >= end.y) value[4 * j + 2 * i + 1] = hidden;
    }
  }
  if (mask.window == 0) return;
  const int32_t farthest[2] = {mask.pos[row] - mask.window, mask.pos[row + 8] - mask.window};
#pragma unroll
  for (int j = 0; j < Keys / 8; ++j) {
    const int2 pos = *reinterpret_cast<const int2*>(mask.pos + key + 8 * j);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (pos.x <= farthest[i]) value[4 * j + 2 * i] = hidden;
      if (pos.y <= farthest[i]) value[4 * j + 2 * i + 1] = hidden;
    }
  }
}

// What a thread of the backward knows of its two queries; rows are queries, columns keys.
struct OwnQueries {
  int32_t row;
  float lse2[2], delta[2];

  __device__ OwnQueries(const QueryStats* of_head, int32_t row)
      : row(row),
        lse2{QueryStats::lse2_of(of_head, row), QueryStats::lse2_of(of_head, row + 8)},
        delta{QueryStats::delta_of(of_head, row), QueryStats::delta_of(of_head, row + 8)} {}

  // Scores become P.
  template <int N>
  __device__ __forceinline__ void probabilities(float (&p)[N], float scale2) const {
#pragma unroll
    for (int x = 0; x < N; ++x) p[x] = ptx::exp2(p[x] * scale2 - lse2[x / 2 % 2]);
  }
  // P becomes dS.
  template <int N>
  __device__ __forceinline__ void differences(float (&p)[N], const float (&dp)[N]) const {
#pragma unroll
    for (int x = 0; x < N; ++x) p[x] *= dp[x] - delta[x / 2 % 2];
  }
};

// What a thread of the backward knows of its two keys; rows are keys, columns queries. Stats: two(i, column) are value
// i + column and the next of the tile's QueryStats, one after the other.
struct OwnKeys {
  int32_t key[2], end[2];

  __device__ OwnKeys(const AttentionMask& mask, int32_t row) : key{row, row + 8}, end{mask.end[row], mask.end[row + 8]} {}

  // Where the statistics of the tile's query 8 j begin.
  static __device__ constexpr int lse2_at(int j) {
    constexpr int kRun = QueryStats::kQueries;
    return 8 * j / kRun * 2 * kRun + 8 * j % kRun;
  }
  static __device__ constexpr int delta_at(int j) { return lse2_at(j) + QueryStats::kQueries; }

  template <int N, class Stats>
  __device__ __forceinline__ void probabilities(float (&p)[N], float scale2, const Stats& stats, int column) const {
#pragma unroll
    for (int j = 0; j < N / 4; ++j) {
      const float2 two = stats.template two<float2>(lse2_at(j), column);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        p[4 * j + 2 * i] = ptx::exp2(p[4 * j + 2 * i] * scale2 - two.x);
        p[4 * j + 2 * i + 1] = ptx::exp2(p[4 * j + 2 * i + 1] * scale2 - two.y);
      }
    }
  }
  template <int N, class Stats>
  __device__ __forceinline__ void differences(float (&p)[N], const float (&dp)[N], const Stats& stats, int column) const {
#pragma unroll
    for (int j = 0; j < N / 4; ++j) {
      const float2 two = stats.template two<float2>(delta_at(j), column);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        p[4 * j + 2 * i] *= dp[4 * j + 2 * i] - two.x;
        p[4 * j + 2 * i + 1] *= dp[4 * j + 2 * i + 1] - two.y;
      }
    }
  }

  // P of pairs that the mask hides becomes 0. query: of the thread's first column.
  template <int N>
  __device__ __forceinline__ void hide(float (&p)[N], const AttentionMask& mask, int32_t query) const {
#pragma unroll
    for (int x = 0; x < N; ++x) {
      const int32_t column = query + 8 * (x / 4) + x % 2, i = x / 2 % 2;
      if (column < key[i] || column >= end[i]) p[x] = 0;
    }
    if (mask.window == 0) return;
    const int32_t own_pos[2] = {mask.pos[key[0]], mask.pos[key[1]]};
#pragma unroll
    for (int j = 0; j < N / 4; ++j) {
      const int2 pos = *reinterpret_cast<const int2*>(mask.pos + query + 8 * j);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (pos.x - own_pos[i] >= mask.window) p[4 * j + 2 * i] = 0;
        if (pos.y - own_pos[i] >= mask.window) p[4 * j + 2 * i + 1] = 0;
      }
    }
  }
};

// Values by row as they lie in memory, for hide and for OwnKeys.
template <class T>
struct ValuesOfRows {
  const T* first;  // of the tile
  template <class Two>
  __device__ __forceinline__ Two two(int at, int column) const {
    return *reinterpret_cast<const Two*>(first + at + column);
  }
};

__device__ __forceinline__ void put_two(__nv_bfloat16* to, float x, float y) { *reinterpret_cast<uint32_t*>(to) = ptx::pack_bf16(x, y); }
__device__ __forceinline__ void put_two(float* to, float x, float y) { *reinterpret_cast<float2*>(to) = {x, y}; }

// factor times the accumulator of rows `first`... to one head of y (N, heads, size), and only rows and columns that it has.
template <int Size, class T>
__device__ __forceinline__ void write(T* y, int64_t row_stride, int32_t first, int32_t rows, int32_t size, Place place,
                                      const float (&x)[Size / 2], const float (&factor)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int32_t row = first + place.row + 8 * i;
    if (row >= rows) continue;
    T* const to = y + row * row_stride + place.column;
#pragma unroll
    for (int j = 0; j < Size / 8; ++j)
      if (8 * j < size) put_two(to + 8 * j, x[4 * j + 2 * i] * factor[i], x[4 * j + 2 * i + 1] * factor[i]);
  }
}

}  // namespace attune::cuda
