// log_softmax_gather: of each row of logits (M,V), lse = ln sum_v e^z, logp = z[target] - lse; beside them the softmax's entropy, whether
// the target's logit is the highest, and the logits' mean. A row without a target gives 0 for all but lse.
// Backward: dlogits = dlogp ([v = target] - e^(z - lse)), rows of 0 where there is no target; may lie over logits.
// source: lib/ops/log_softmax_gather.ts.
// tiling: a block a row, read once: each thread keeps the highest logit so far and its sums relative to it (online softmax), rescaled
// once for kSteps vectors; the threads' parts join in a fixed order. Backward, a block takes a tile of a row.
// budget: bytes: V a row forward, 2 V backward. One exponential an element. At most 64 registers.
// limits: none; V no multiple of 8 goes by single elements.
// measured: H200, 1024 x 65536 fp32: 3699 GB/s. bench/results.
#include "common/elements.h"
#include "common/grid.h"
#include "common/reduce.h"
#include "kernels.h"

namespace attune::cuda {
namespace {

constexpr int kSteps = 2, kThreads = 512, kBackwardThreads = 256;

// A run of logits. Sums are relative to `high`; a run of nothing, or of -inf alone, is relative to 0.
struct Part {
  float high;
  float sum;       // of e = e^(z - high)
  float weighted;  // of e (z - high): for the entropy
  float plain;     // of z: for the mean
};
__device__ inline Part nothing() { return {-INFINITY, 0, 0, 0}; }

__device__ inline float base_of(float high) { return high == -INFINITY ? 0.0f : high; }

// Makes the sums of `p` relative to a higher logit.
__device__ inline void raise(Part& p, float high) {
  if (!(high > p.high)) return;
  const float shift = base_of(p.high) - high;
  const float scale = p.high == -INFINITY ? 0.0f : expf(shift);
  // A first number above -inf makes 0 of what stood; NaN stays.
  p.weighted = scale == 0.0f ? p.weighted * 0.0f : (p.weighted + shift * p.sum) * scale;
  p.sum *= scale;
  p.high = high;
}

// Adds kCount vectors, `stride` apart.
template <int kCount, int N, class T> __device__ inline void add(Part& p, const T* logits, int64_t stride) {
  Vector<T, N> v[kCount];
#pragma unroll
  for (int k = 0; k < kCount; ++k) v[k] = load<N>(logits + k * stride);
  float high = -INFINITY;
#pragma unroll
  for (int k = 0; k < kCount; ++k)
#pragma unroll
    for (int j = 0; j < N; ++j) high = fmaxf(high, v[k][j]);  // a NaN leaves it as it is
  raise(p, high);
  const float base = base_of(p.high);
#pragma unroll
  for (int k = 0; k < kCount; ++k)
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float d = v[k][j] - base, e = __expf(d);  // off by |d| 2^-24 of e at most: nothing beside the sum
      p.sum += e;
      p.weighted = fmaf(e, fmaxf(d, -200.0f), p.weighted);  // -inf counts 0; a NaN is in e
      p.plain += v[k][j];
    }
}

// The parts of all lanes, in each lane.
__device__ inline Part warp_join(Part p) {
  raise(p, warp_max(p.high));
  return {p.high, warp_sum(p.sum), warp_sum(p.weighted), warp_sum(p.plain)};
}

struct RowOutputs {
  float *logp, *lse, *entropy, *hit, *mean;  // any may be null
};

template <class T, int N> __global__ void __launch_bounds__(kThreads)
    log_softmax_gather_rows(const T* logits, const int32_t* targets, RowOutputs out, int64_t columns) {
  ATTUNE_SHARED(Part, parts, kWarps);
  const int64_t row = blockIdx.x;
  const T* z = logits + row * columns;
  const int64_t stride = int64_t{blockDim.x} * N;
  Part part = nothing();
  int64_t at = int64_t{threadIdx.x} * N;
  for (; at + (kSteps - 1) * stride < columns; at += kSteps * stride) add<kSteps, N>(part, z + at, stride);
  for (; at < columns; at += stride) add<1, N>(part, z + at, stride);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  part = warp_join(part);
  if (lane == 0) parts[warp] = part;
  __syncthreads();
  if (warp != 0) return;
  const Part total = warp_join(lane < warps ? parts[lane] : nothing());
  if (lane != 0) return;
  const int32_t target = targets[row];
  const bool scored = target >= 0 && target < columns;
  const double high = base_of(total.high), log_sum = ::log(static_cast<double>(total.sum));
  const float logit = scored ? widen(z[target]) : 0.0f;
  if (out.lse) out.lse[row] = static_cast<float>(high + log_sum);
  if (out.logp) out.logp[row] = scored ? static_cast<float>(logit - high - log_sum) : 0.0f;
  if (out.entropy) out.entropy[row] = scored ? static_cast<float>(log_sum - static_cast<double>(total.weighted) / total.sum) : 0.0f;
  if (out.hit) out.hit[row] = scored && logit >= total.high ? 1.0f : 0.0f;
  if (out.mean) out.mean[row] = scored ? total.plain / static_cast<float>(columns) : 0.0f;
}

template <class T, class D, int N> __global__ void __launch_bounds__(kBackwardThreads)
    log_softmax_gather_backward_tiles(const T* logits, const int32_t* targets, const float* lse, const float* dlogp, D* dlogits,
                                      int64_t columns, unsigned tiles) {
  const int64_t row = blockIdx.x / tiles;
  const int64_t first = (int64_t{blockIdx.x % tiles} * kSteps * blockDim.x + threadIdx.x) * N;
  const int64_t stride = int64_t{blockDim.x} * N;
  const int64_t target = targets[row];
  const bool scored = target >= 0 && target < columns;
  const float gain = scored ? dlogp[row] : 0.0f, base = scored ? lse[row] : 0.0f;
  Vector<T, N> v[kSteps];
#pragma unroll
  for (int k = 0; k < kSteps; ++k)
    if (scored && first + k * stride < columns) v[k] = load<N>(logits + row * columns + first + k * stride);
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int64_t i = first + k * stride;
    if (i >= columns) continue;
    float out[N] = {};
    if (scored) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float p = expf(v[k][j] - base);
        out[j] = i + j == target ? gain * (1.0f - p) : -gain * p;
      }
    }
    store(dlogits + row * columns + i, out);
  }
}

}  // namespace

void log_softmax_gather(const LogSoftmaxGather& a, Stream& stream) {
  const int64_t rows = a.targets.size(), columns = a.logits.last();
  const RowOutputs out{a.logp.as<float>(), a.lse.as<float>(), a.entropy.as<float>(), a.hit.as<float>(), a.mean.as<float>()};
  typed(a.logits, [&]<class T>(T* logits) {
    by_width(columns, [&]<int N>(Access<N>) {
      stream.launch("log_softmax_gather", log_softmax_gather_rows<T, N>, grid_of(stream, "log_softmax_gather", rows),
                    threads_for(ceil_div(columns, N), kThreads), 0, logits, a.targets.as<int32_t>(), out, columns);
    });
  });
}

void log_softmax_gather_backward(const LogSoftmaxGatherBackward& a, Stream& stream) {
  const int64_t rows = a.targets.size(), columns = a.logits.last();
  typed(a.logits, [&]<class T>(T* logits) {
    typed(a.dlogits, [&]<class D>(D* dlogits) {
      by_width(columns, [&]<int N>(Access<N>) {
        const RowTiles cut(ceil_div(columns, N), kSteps, kBackwardThreads);
        stream.launch("log_softmax_gather_backward", log_softmax_gather_backward_tiles<T, D, N>,
                      grid_of(stream, "log_softmax_gather_backward", rows * cut.tiles), cut.threads, 0, logits,
                      a.targets.as<int32_t>(), a.lse.as<float>(), a.dlogp.as<float>(), dlogits, columns, cut.tiles);
      });
    });
  });
}

}  // namespace attune::cuda
