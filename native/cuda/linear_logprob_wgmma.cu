// linear_logprob on capability 9.0, bf16: the softmax of each row runs over tiles of logits that live in accumulators only.
//   per row and part of the vocabulary: high = max z, sum = S e^(z - high), weighted = S e^(z - high) (z - high), plain = S z, z[target];
//   a second kernel joins the parts: lse = high + ln sum, entropy = ln sum - weighted / sum.  source: arXiv:2411.09009
//   Kept for a backward, where asked for: e^(z - top) in bf16, top the highest z of the row's tile, which are the sums' own terms.
// tiling: a block is 192 rows and one part of the vocabulary, 192 columns at a time; k in steps of 64 through a ring of 4 stages.
//   One warpgroup brings tiles by TMA, three multiply 64 rows each (wgmma m64n192k16): while one sums up, two multiply. Blocks walk the
//   vocabulary alike, so weight comes from the L2. Parts follow the shape alone: as many as bring the grid to 132 blocks.
// budget: 128 registers at entry (24 for the producer, 160 for consumers), 193 KiB shared, no spills.  limits: C a multiple of 8; M, V < 2^31.
// measured: H200, 4096 x 2048 x 65536: 684 to 714 TFLOP/s by the card; 8192 x 896 x 65536 and kept: 585. bench/results.
#include "attention_wgmma.h"
#include "common/elements.h"
#include "common/grid.h"
#include "linear_logprob.h"

namespace attune::cuda {
namespace {

using hopper::kConsumerRows;

constexpr int kConsumers = 3, kRows = kConsumers * hopper::kConsumerRows, kColumns = 192, kDepth = 64, kStages = 4;
constexpr int64_t kBlocks = 132;  // that a grid should have
constexpr float kLog2e = 1.44269504f, kMissing = -1e30f;  // the logit of a column that is not there
static_assert(kColumns == kTopColumns);

// A step's operands: rows of hidden and of weight, 64 of C.
struct Operands {
  static constexpr int kHidden = kRows * kDepth * 2, kWeight = kColumns * kDepth * 2;
  static constexpr int kBytes = kHidden + kWeight, kLoaded = kBytes;
  uint8_t* data;

  __device__ __forceinline__ void load(uint64_t* barrier, const CUtensorMap* hidden, const CUtensorMap* weight, int32_t k, int32_t row,
                                       int32_t column) const {
    ptx::tma_load_2d(data, hidden, barrier, k, row);
    ptx::tma_load_2d(data + kHidden, weight, barrier, k, column);
  }
  __device__ __forceinline__ uint64_t hidden(int row, int step) const {
    return ptx::wgmma_descriptor(data + row * hopper::kPanelRow + step * kStep * 2, 16, 1024);
  }
  __device__ __forceinline__ uint64_t weight(int step) const {
    return ptx::wgmma_descriptor(data + kHidden + step * kStep * 2, 16, 1024);
  }
};
using OperandRing = hopper::Ring<Operands, kStages, kConsumers>;
constexpr size_t kShared = OperandRing::kBytes + hopper::kBarrierBytes;

// What some logits of a row add up to.
struct Part {
  float high, sum, weighted, plain, target;

  __device__ __forceinline__ void join(const Part& p) {
    const float top = fmaxf(high, p.high), base = top == -INFINITY ? 0.0f : top;
    const float mine = high == -INFINITY ? 0.0f : high - base, its = p.high == -INFINITY ? 0.0f : p.high - base;
    const float a = ptx::exp2(mine * kLog2e), b = ptx::exp2(its * kLog2e);
    weighted = a * (weighted + mine * sum) + b * (p.weighted + its * p.sum);
    sum = a * sum + b * p.sum;
    plain += p.plain;
    target = fmaxf(target, p.target);
    high = top;
  }
};

struct Problem {
  const int32_t* targets;
  Part* parts;            // (parts of the vocabulary, M)
  __nv_bfloat16* shares;  // (M, V) and (M, tiles), where they are kept
  float* tops;
  int32_t rows, columns, depth;
};

// x[k] of lane l of four becomes x[l] of lane k.
__device__ __forceinline__ void transpose_of_four(uint32_t (&x)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
  for (int k = 0; k < 4; k += 2) {
    const uint32_t got = __shfl_xor_sync(~0u, odd ? x[k] : x[k + 1], 1);
    x[k] = odd ? got : x[k];
    x[k + 1] = odd ? x[k + 1] : got;
  }
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const uint32_t got = __shfl_xor_sync(~0u, high ? x[k] : x[k + 2], 2);
    x[k] = high ? got : x[k];
    x[k + 2] = high ? x[k + 2] : got;
  }
}

// Where the exponentials of a row's tile go, of which `left` columns are there.
struct Kept {
  bool any;  // the same for all threads
  __nv_bfloat16* to;
  int32_t left;  // none: the row is not there
  bool wide;     // rows allow stores of eight neighbours

  // The thread's e of columns 8 j... of four j: by turns, so that a thread stores eight neighbours at once.
  __device__ __forceinline__ void put(int j, const float (&e)[8]) const {
    const int own = threadIdx.x % 4;
    if (wide) {
      uint32_t x[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) x[k] = ptx::pack_bf16(e[2 * k], e[2 * k + 1]);
      transpose_of_four(x);
      const int32_t column = 8 * (j + own);
      if (column < left) ptx::store_global(to + column, make_uint4(x[0], x[1], x[2], x[3]));
    } else {
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const int32_t column = 8 * (j + k / 2) + 2 * own + k % 2;
        if (column < left) cuda::put(to + column, e[k]);
      }
    }
  }
};

// Sums up the thread's logits of one of its two rows: z[4 j + 2 i + c] of column first + 8 j + c. high is that of all four threads of the row.
// Where the tile is not whole, some are kMissing. None is -inf: they are sums of products.
template <bool Statistics, bool Whole>
__device__ __forceinline__ Part sum_up(const float (&z)[kColumns / 2], int i, int32_t first, int32_t target, const Kept& kept) {
  Part p = {-INFINITY, 0, 0, 0, -INFINITY};
  const auto logit = [&](int j, int c) { return z[4 * j + 2 * i + c]; };
  if (target - first >= 0 && target - first < kColumns) {
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j)
#pragma unroll
      for (int c = 0; c < 2; ++c)
        if (first + 8 * j + c == target) p.target = logit(j, c);
  }
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) p.high = fmaxf(p.high, fmaxf(logit(j, 0), logit(j, 1)));
  p.high = fmaxf(p.high, __shfl_xor_sync(~0u, p.high, 1));
  p.high = fmaxf(p.high, __shfl_xor_sync(~0u, p.high, 2));
  const float base = p.high * kLog2e;
#pragma unroll
  for (int j = 0; j < kColumns / 8; j += 4) {
    float e[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const float x = logit(j + k / 2, k % 2), t = fmaf(x, kLog2e, -base);
      e[k] = ptx::exp2(t);
      p.sum += e[k];
      if (Statistics) {
        p.weighted = fmaf(e[k], t, p.weighted);
        p.plain += Whole || x > kMissing ? x : 0.0f;
      }
    }
    if (kept.any) kept.put(j, e);
  }
  p.weighted *= 1 / kLog2e;
  return p;
}

template <bool Statistics>
__global__ void __launch_bounds__(hopper::kThreads<kConsumers>, 1)
    linear_logprob_parts(const __grid_constant__ CUtensorMap hidden, const __grid_constant__ CUtensorMap weight, const Problem problem) {
  ATTUNE_DYNAMIC_SHARED(shared);
  const OperandRing ring{shared, reinterpret_cast<uint64_t*>(shared + OperandRing::kBytes)};
  const int role = static_cast<int>(threadIdx.x) / kWarpgroup;
  const int32_t row0 = static_cast<int32_t>(blockIdx.x) * kRows;
  const int64_t tiles = (problem.columns + kColumns - 1) / kColumns;
  const int32_t first = static_cast<int32_t>(tiles * blockIdx.y / gridDim.y), last = static_cast<int32_t>(tiles * (blockIdx.y + 1) / gridDim.y);
  const int32_t steps = (problem.depth + kDepth - 1) / kDepth;
  if (threadIdx.x == 0) {
    ring.init();
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if (role == 0) {
    ptx::registers_decrease<hopper::kProducerRegisters>();
    if (threadIdx.x != 0) return;
    OperandRing::Turn turn;
    for (int32_t tile = first; tile < last; ++tile)
      for (int32_t step = 0; step < steps; ++step, turn.advance())
        ring.produce(turn, &hidden, &weight, step * kDepth, row0, tile * kColumns);
  } else {
    ptx::registers_increase<hopper::kConsumerRegisters<kConsumers>>();
    const Place place;
    const int consumer = role - 1;
    int32_t row[2], target[2];
    Part part[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      row[i] = row0 + consumer * kConsumerRows + place.row + 8 * i;
      target[i] = row[i] < problem.rows ? problem.targets[row[i]] : -1;
      part[i] = {-INFINITY, 0, 0, 0, -INFINITY};
    }
    OperandRing::Turn turn;
    for (int32_t tile = first; tile < last; ++tile) {
      float z[kColumns / 2];
      OperandRing::Turn before = turn;
      for (int32_t step = 0; step < steps; ++step) {
        const Operands x = ring.wait(turn);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < kDepth / kStep; ++k)
          ptx::wgmma<kColumns>(z, x.hidden(consumer * kConsumerRows, k), x.weight(k), step > 0 || k > 0);
        ptx::wgmma_commit();
        if (step > 0) {  // a stage is released one step late: its products have ended
          ptx::wgmma_wait<1>();
          ring.release(before);
        }
        before = turn;
        turn.advance();
      }
      ptx::wgmma_wait<0>();
      ring.release(before);
      const int32_t column = tile * kColumns + place.column, left = problem.columns - tile * kColumns;
      const bool whole = left >= kColumns;
      if (!whole) {
#pragma unroll
        for (int x = 0; x < kColumns / 2; ++x)
          if (place.column + 8 * (x / 4) + x % 2 >= left) z[x] = kMissing;
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const Kept kept = {.any = problem.shares != nullptr,
                           .to = problem.shares + static_cast<int64_t>(row[i]) * problem.columns + tile * kColumns,
                           .left = row[i] < problem.rows ? left : 0,
                           .wide = problem.columns % 8 == 0};
        const Part of_tile = whole ? sum_up<Statistics, true>(z, i, column, target[i], kept) : sum_up<Statistics, false>(z, i, column, target[i], kept);
        if (kept.any && kept.left > 0 && place.column == 0) problem.tops[row[i] * tiles + tile] = of_tile.high;
        part[i].join(of_tile);
      }
    }
    // The four threads of a row.
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int lanes = 1; lanes < 4; lanes *= 2) {
        Part other;
        other.high = __shfl_xor_sync(~0u, part[i].high, lanes);
        other.sum = __shfl_xor_sync(~0u, part[i].sum, lanes);
        other.weighted = __shfl_xor_sync(~0u, part[i].weighted, lanes);
        other.plain = __shfl_xor_sync(~0u, part[i].plain, lanes);
        other.target = __shfl_xor_sync(~0u, part[i].target, lanes);
        part[i].join(other);
      }
      if (place.column == 0 && row[i] < problem.rows) problem.parts[static_cast<int64_t>(blockIdx.y) * problem.rows + row[i]] = part[i];
    }
  }
}

struct Outputs {
  float *logp, *lse, *entropy, *hit, *mean;  // any may be null
};

__global__ void __launch_bounds__(256) linear_logprob_join(const Part* parts, const int32_t* targets, int32_t count, int32_t rows, int32_t columns, Outputs out) {
  const int32_t row = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= rows) return;
  Part p = parts[row];
  for (int32_t i = 1; i < count; ++i) p.join(parts[static_cast<int64_t>(i) * rows + row]);
  const int32_t target = targets[row];
  const bool scored = target >= 0 && target < columns;
  const float log_sum = logf(p.sum);
  if (out.lse) out.lse[row] = p.high + log_sum;
  if (out.logp) out.logp[row] = scored ? p.target - p.high - log_sum : 0.0f;
  if (out.entropy) out.entropy[row] = scored ? log_sum - p.weighted / p.sum : 0.0f;
  if (out.hit) out.hit[row] = scored && p.target >= p.high ? 1.0f : 0.0f;
  if (out.mean) out.mean[row] = scored ? p.plain / static_cast<float>(columns) : 0.0f;
}

int64_t parts_of(const LinearLogprob& a) {
  const int64_t blocks = ceil_div(a.hidden.shape[0], kRows), tiles = ceil_div(a.weight.shape[0], kColumns);
  return std::clamp<int64_t>(kBlocks / std::max<int64_t>(blocks, 1), 1, std::max<int64_t>(tiles, 1));
}

bool shapes_fit(const LinearLogprob& a) {
  const int64_t depth = a.hidden.shape[1];
  return a.hidden.dtype == DType::bf16 && a.weight.dtype == DType::bf16 && depth >= 8 && depth % 8 == 0 && a.weight.shape[0] > 0;
}

}  // namespace

bool linear_logprob_wgmma_takes(const LinearLogprob& a, const Properties& device) { return device.major == 9 && shapes_fit(a); }

int64_t linear_logprob_wgmma_scratch(const LinearLogprob& a) {
  return shapes_fit(a) ? parts_of(a) * a.hidden.shape[0] * static_cast<int64_t>(sizeof(Part)) : 0;
}

void linear_logprob_wgmma(const LinearLogprob& a, Stream& s) {
  const int64_t rows = a.hidden.shape[0], depth = a.hidden.shape[1], columns = a.weight.shape[0], parts = parts_of(a);
  if (rows == 0) return;
  const auto map = [&](CUtensorMap* out, const Tensor& t, uint32_t box_rows) {
    return make_tensor_map_2d(out, t.data, {static_cast<uint64_t>(depth), static_cast<uint64_t>(t.shape[0])}, {static_cast<uint64_t>(depth) * 2},
                              {kDepth, box_rows}, s);
  };
  CUtensorMap hidden, weight;
  if (!map(&hidden, a.hidden, kRows) || !map(&weight, a.weight, kColumns)) return;
  const Problem problem{a.targets.as<const int32_t>(), s.scratch<Part>(),           a.shares.as<__nv_bfloat16>(),  a.tops.as<float>(),
                        static_cast<int32_t>(rows),    static_cast<int32_t>(columns), static_cast<int32_t>(depth)};
  const dim3 grid(static_cast<unsigned>(ceil_div(rows, kRows)), static_cast<unsigned>(parts));
  const bool statistics = a.entropy || a.mean;
  s.launch("linear_logprob_parts", statistics ? linear_logprob_parts<true> : linear_logprob_parts<false>, grid, dim3(hopper::kThreads<kConsumers>), kShared, hidden, weight, problem);
  s.launch("linear_logprob_join", linear_logprob_join, dim3(static_cast<unsigned>(ceil_div(rows, 256))), dim3(256), 0, s.scratch<const Part>(),
           a.targets.as<const int32_t>(), static_cast<int32_t>(parts), static_cast<int32_t>(rows), static_cast<int32_t>(columns),
           Outputs{a.logp.as<float>(), a.lse.as<float>(), a.entropy.as<float>(), a.hit.as<float>(), a.mean.as<float>()});
}

}  // namespace attune::cuda
