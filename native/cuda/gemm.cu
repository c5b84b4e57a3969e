// gemm: y (m, n) = op(a) op(b) + bias (n) + onto (m, n), op = transpose where ta / tb; fp32 sums.  source: lib/ops/gemm.ts
// cuBLASLt multiplies where it is found (common/cublaslt.h). These kernels are for where it is not, and for what it does not take:
//   bf16  m16n8k16 tensor-core products. Block 128 x 128 of y, 8 warps of 64 x 32; k in steps of 32 through two buffers: the next
//         step's global loads are in registers while this one multiplies. An operand lies in shared memory as it does in global
//         memory, so that copies are 16 bytes wide, and ldmatrix transposes where the product wants the other order.
//   fp32  plain FMA, no TF32. Block 64 x 64, 256 threads of 4 x 4, k in steps of 16.
// budget: bf16 <= 255 registers (2 blocks do not matter), 40 KiB shared; fp32 <= 128 registers, 9 KiB.  limits: each of m, n < 2^31;
// m / 64 and m / 128 at most 65535 blocks.  The sum over k is in one order whatever m and n are.  measured: not yet.
#include "common/cublaslt.h"
#include "common/elements.h"
#include "common/grid.h"
#include "common/ptx.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

// What is added to a product, and where it goes.
template <class Out> struct Epilogue {
  Out* y;
  const Out* onto;
  const float* bias;
  const __nv_bfloat16* bias_half;
  int64_t m, n;

  __device__ void put(int64_t row, int64_t column, float sum) const {
    if (row >= m || column >= n) return;
    if (bias) sum += bias[column];
    if (bias_half) sum += widen(bias_half[column]);
    const int64_t at = row * n + column;
    if (onto) sum += widen(onto[at]);
    cuda::put(y + at, sum);
  }
};

// ---- bf16

constexpr int kTile = 128;  // rows and columns of y in a block
constexpr int kStep = 32;   // of k
constexpr int kPad = 8;     // elements: rows of a tile start in other banks

// A tile of one operand: `Along` = its rows run along k, (128, 32); else along m or n, (32, 128).
template <bool Along> struct Tile {
  static constexpr int kRows = Along ? kTile : kStep, kColumns = Along ? kStep : kTile;
  static constexpr int kStride = kColumns + kPad;
  static constexpr int kElements = kRows * kStride;
  static constexpr int kVectors = kRows * kColumns / 8 / 256;  // 16-byte vectors of a thread
};

// The thread's vectors of the tile at (first of m or n, k0) of a matrix of `rows` x `columns`; zeros beyond it.
template <bool Along>
__device__ void fetch(uint4 (&v)[2], const __nv_bfloat16* x, int64_t rows, int64_t columns, int64_t first, int64_t k0, bool aligned) {
  using T = Tile<Along>;
#pragma unroll
  for (int i = 0; i < T::kVectors; ++i) {
    const int at = (static_cast<int>(threadIdx.x) + i * 256) * 8;
    const int64_t row = at / T::kColumns + (Along ? first : k0), column = at % T::kColumns + (Along ? k0 : first);
    v[i] = make_uint4(0, 0, 0, 0);
    if (row >= rows || column >= columns) continue;
    const __nv_bfloat16* p = x + row * columns + column;
    if (aligned && column + 8 <= columns) {
      v[i] = *reinterpret_cast<const uint4*>(p);
    } else {
      uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
      for (int e = 0; e < 8; ++e)
        if (column + e < columns) words[e / 2] |= static_cast<uint32_t>(__bfloat16_as_ushort(p[e])) << (16 * (e % 2));
      v[i] = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

template <bool Along> __device__ void keep(__nv_bfloat16* tile, const uint4 (&v)[2]) {
  using T = Tile<Along>;
#pragma unroll
  for (int i = 0; i < T::kVectors; ++i) {
    const int at = (static_cast<int>(threadIdx.x) + i * 256) * 8;
    *reinterpret_cast<uint4*>(tile + at / T::kColumns * T::kStride + at % T::kColumns) = v[i];
  }
}

// Four 8 x 8 matrices at (i0, k0) of a tile, i along m or n: two along i and two along k, `second` telling which order.
template <bool Along> __device__ void fragment(uint32_t (&r)[4], const __nv_bfloat16* tile, int i0, int k0, bool i_first) {
  using T = Tile<Along>;
  const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8, row = lane % 8;
  const int i = i0 + 8 * (i_first ? matrix % 2 : matrix / 2), k = k0 + 8 * (i_first ? matrix / 2 : matrix % 2);
  if constexpr (Along) ptx::ldmatrix_x4(r, tile + (i + row) * T::kStride + k);
  else ptx::ldmatrix_x4_transposed(r, tile + (k + row) * T::kStride + i);
}

template <bool TA, bool TB, class Out>
__global__ void __launch_bounds__(256) gemm_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, int64_t k, Epilogue<Out> out, bool aligned_a,
                                                 bool aligned_b) {
  using A = Tile<!TA>;
  using B = Tile<TB>;
  ATTUNE_SHARED(uint4, memory, (2 * (A::kElements + B::kElements) + 7) / 8);
  __nv_bfloat16* tiles = reinterpret_cast<__nv_bfloat16*>(memory);
  const int64_t m0 = static_cast<int64_t>(blockIdx.y) * kTile, n0 = static_cast<int64_t>(blockIdx.x) * kTile;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int wm = warp / 4 * 64, wn = warp % 4 * 32;
  float sums[4][4][4];  // [16 rows][8 columns][fragment]
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0;

  uint4 next_a[2], next_b[2];
  const auto load = [&](int64_t k0) {
    fetch<!TA>(next_a, a, TA ? k : out.m, TA ? out.m : k, m0, k0, aligned_a);
    fetch<TB>(next_b, b, TB ? out.n : k, TB ? k : out.n, n0, k0, aligned_b);
  };
  load(0);
  int buffer = 0;
  for (int64_t k0 = 0; k0 < k; k0 += kStep, buffer ^= 1) {
    __nv_bfloat16* tile_a = tiles + buffer * (A::kElements + B::kElements);
    __nv_bfloat16* tile_b = tile_a + A::kElements;
    keep<!TA>(tile_a, next_a);
    keep<TB>(tile_b, next_b);
    __syncthreads();  // one a step: a buffer is written again only after the barrier of the step between
    if (k0 + kStep < k) load(k0 + kStep);
#pragma unroll
    for (int kk = 0; kk < kStep; kk += 16) {
      uint32_t fa[4][4], fb[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) fragment<!TA>(fa[i], tile_a, wm + 16 * i, kk, true);
#pragma unroll
      for (int j = 0; j < 2; ++j) fragment<TB>(fb[j], tile_b, wn + 16 * j, kk, false);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint32_t pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
          ptx::mma_16x8x16(sums[i][j], fa[i], pair);
        }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        out.put(m0 + wm + 16 * i + lane / 4 + 8 * (e / 2), n0 + wn + 8 * j + lane % 4 * 2 + e % 2, sums[i][j][e]);
}

// ---- fp32

constexpr int kSmall = 64, kSmallStep = 16;

// Both tiles as (16 of k, 64), a row longer than that by 4 against bank conflicts.
template <bool TA, bool TB, class Out>
__global__ void __launch_bounds__(256) gemm_fp32(const float* a, const float* b, int64_t k, Epilogue<Out> out) {
  ATTUNE_SHARED(float, tile_a, kSmallStep * (kSmall + 4));
  ATTUNE_SHARED(float, tile_b, kSmallStep * (kSmall + 4));
  const int64_t m0 = static_cast<int64_t>(blockIdx.y) * kSmall, n0 = static_cast<int64_t>(blockIdx.x) * kSmall;
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
  float sums[4][4] = {};
  for (int64_t k0 = 0; k0 < k; k0 += kSmallStep) {
#pragma unroll
    for (int i = 0; i < kSmall * kSmallStep / 256; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * 256;
      const int ak = TA ? at / kSmall : at % kSmallStep, am = TA ? at % kSmall : at / kSmallStep;  // neighbours in memory, neighbours in the warp
      const int bk = TB ? at % kSmallStep : at / kSmall, bn = TB ? at / kSmallStep : at % kSmall;
      const bool in_a = m0 + am < out.m && k0 + ak < k, in_b = n0 + bn < out.n && k0 + bk < k;
      tile_a[ak * (kSmall + 4) + am] = in_a ? (TA ? a[(k0 + ak) * out.m + m0 + am] : a[(m0 + am) * k + k0 + ak]) : 0;
      tile_b[bk * (kSmall + 4) + bn] = in_b ? (TB ? b[(n0 + bn) * k + k0 + bk] : b[(k0 + bk) * out.n + n0 + bn]) : 0;
    }
    __syncthreads();
#pragma unroll
    for (int kk = 0; kk < kSmallStep; ++kk) {
      float x[4], w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] = tile_a[kk * (kSmall + 4) + ty * 4 + i];
#pragma unroll
      for (int j = 0; j < 4; ++j) w[j] = tile_b[kk * (kSmall + 4) + tx * 4 + j];
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(x[i], w[j], sums[i][j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) out.put(m0 + ty * 4 + i, n0 + tx * 4 + j, sums[i][j]);
}

template <bool TA, bool TB, class Out> void own(const Gemm& g, Stream& s, Out* y) {
  const int64_t m = g.y.shape[0], n = g.y.shape[1], k = g.a.shape[TA ? 0 : 1];
  const bool half_bias = g.bias && g.bias.dtype == DType::bf16;
  const Epilogue<Out> out{y, static_cast<const Out*>(g.onto.data), half_bias ? nullptr : g.bias.as<const float>(),
                          half_bias ? g.bias.as<const __nv_bfloat16>() : nullptr, m, n};
  const int tile = g.a.dtype == DType::bf16 ? kTile : kSmall;
  const dim3 grid(static_cast<unsigned>(ceil_div(n, tile)), static_cast<unsigned>(ceil_div(m, tile)));
  if (grid.y > 65535) return s.fail("gemm: y must have at most 65535 tiles of " + std::to_string(tile) + " rows, got " + std::to_string(m) + " rows");
  if (g.a.dtype == DType::bf16) {
    const auto aligned = [](const Tensor& t) { return t.shape[1] % 8 == 0; };
    s.launch("gemm_bf16", gemm_bf16<TA, TB, Out>, grid, dim3(256), 0, g.a.as<const __nv_bfloat16>(), g.b.as<const __nv_bfloat16>(), k, out,
             aligned(g.a), aligned(g.b));
  } else {
    s.launch("gemm_fp32", gemm_fp32<TA, TB, Out>, grid, dim3(256), 0, g.a.as<const float>(), g.b.as<const float>(), k, out);
  }
}

}  // namespace

int64_t gemm_scratch(const Gemm&) { return cublaslt_workspace(); }

void gemm(const Gemm& g, Stream& s) {
  if (g.y.size() == 0 || cublaslt_gemm(g, s)) return;
  typed(g.y, [&](auto* y) {
    if (g.ta != 0) g.tb != 0 ? own<true, true>(g, s, y) : own<true, false>(g, s, y);
    else g.tb != 0 ? own<false, true>(g, s, y) : own<false, false>(g, s, y);
  });
}

}  // namespace attune::cuda
