// attention_backward, wgmma family. With P = exp(scale q k^T - lse), dS = P (dy v^T - dy . y): dv = P^T dy, dk = scale dS^T q,
// dq = scale dS k. source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691) algorithm 2, split in two kernels so that every sum
// has one owner and one order: seven products are computed where five would do, and nothing is added through memory.
// tiling: dk, dv: a block has 128 keys of one kv head, 64 a consumer, and walks tiles of 64 queries for each query head of the group;
// it computes S^T and dP^T, so that P^T and dS^T are A operands as they stand. dq: a block has 128 queries of one head and walks tiles
// of 128 keys, as the forward does. Statistics of queries come by TMA with their rows. Where few keys would make few blocks, the
// heads of a group are split between blocks, whose sums a last kernel adds in order.
// budget: 384 threads, 168 registers (24 for the producer, 240 for consumers), no spills; shared memory 131 KiB for dk and dv, 195 KiB
// for dq at size 128, 67 and 99 KiB at 64.
// limits: bf16, capability 9.0, head sizes to 128 (padded to 64 or 128 by TMA); rows that nobody sees must be finite.
// measured: not yet.
#include "attention_wgmma.h"
#include "common/elements.h"
#include "common/grid.h"

namespace attune::cuda {
namespace {

using namespace hopper;

constexpr int kConsumers = 2;
constexpr int kStages = 2;
constexpr int kBlockRows = kConsumers * kConsumerRows;  // keys of a block of dkdv, queries of a block of dq
constexpr int kQueries = 64;                            // of a tile that dkdv walks
constexpr int kKeys = 128;                              // of a tile that dq walks

using Stats = Table<float, 2 * kQueries>;
using Ends = Table<int32_t, kKeys>;

struct BackwardArgs {
  bool want_dk, want_dv;
  const QueryStats* stats;  // (H, head_stats)
  TileTable tiles;
  AttentionMask mask;
  int64_t head_stats;
  int32_t heads, group, size;
  int32_t splits;   // of the group's heads; 1: none
  float* partials;  // (2, splits, N, K, size)
  float scale, scale2;
};

// ---- dk, dv

template <int Size>
struct KeySide {
  using Keys = Tile<kBlockRows, Size>;
  using Queries = Ring<LabelledTile<Stats, kQueries, Size>, kStages, kConsumers>;
  using Gradients = Ring<Tile<kQueries, Size>, kStages, kConsumers>;
  static constexpr int kBytes = 2 * Keys::kBytes + Queries::kBytes + Gradients::kBytes + kBarrierBytes;
  static_assert(kBytes <= kMostShared && (1 + Queries::kBarriers + Gradients::kBarriers) * 8 <= kBarrierBytes, "shared memory");
  Keys k, v;
  Queries q;
  Gradients dy;
  uint64_t* kv_full;

  __device__ explicit KeySide(uint8_t* base) {
    uint8_t* const rings = base + 2 * Keys::kBytes;
    uint64_t* const barriers = reinterpret_cast<uint64_t*>(rings + Queries::kBytes + Gradients::kBytes);
    k = {base};
    v = {base + Keys::kBytes};
    q = {rings, barriers + 1};
    dy = {rings + Queries::kBytes, barriers + 1 + Queries::kBarriers};
    kv_full = barriers;
  }
  __device__ void init() const {
    ptx::mbarrier_init(kv_full, 1);
    q.init();
    dy.init();
    ptx::fence_barrier_init();
  }
};

// factor times the accumulator of rows `first`... to one head of x (N, heads, size).
template <int Size>
__device__ __forceinline__ void write_partial(float* x, int64_t row_stride, int32_t first, int32_t rows, int32_t size, Place place,
                                              const float (&value)[Size / 2], const float (&factor)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int32_t row = first + place.row + 8 * i;
    if (row >= rows) continue;
    float* const to = x + row * row_stride + place.column;
#pragma unroll
    for (int j = 0; j < Size / 8; ++j)
      if (8 * j < size)
        *reinterpret_cast<float2*>(to + 8 * j) = {value[4 * j + 2 * i] * factor[i], value[4 * j + 2 * i + 1] * factor[i]};
  }
}

template <int Size>
__global__ void __launch_bounds__(kThreads<kConsumers>, 1)
    attention_dkdv_wgmma(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                         const __grid_constant__ CUtensorMap v_map, const __grid_constant__ CUtensorMap dy_map,
                         const __grid_constant__ CUtensorMap stats_map, const __grid_constant__ CUtensorMap dk_map,
                         const __grid_constant__ CUtensorMap dv_map, const __grid_constant__ BackwardArgs a) {
  ATTUNE_DYNAMIC_SHARED(base);
  const KeySide<Size> shared(base);
  using Turn = typename KeySide<Size>::Queries::Turn;
  const int32_t kv_heads = a.heads / a.group, kv_head = blockIdx.x % kv_heads;
  const int32_t split = blockIdx.x / kv_heads % a.splits, tile = a.tiles.order[blockIdx.x / kv_heads / a.splits];
  const int32_t first_head = kv_head * a.group + a.group * split / a.splits;
  const int32_t end_head = kv_head * a.group + a.group * (split + 1) / a.splits;
  const int32_t first = tile * kBlockRows, query_tiles = (a.mask.rows + kQueries - 1) / kQueries;
  const TileWord* const words = a.tiles.words + int64_t{tile} * ((query_tiles + 31) / 32);
  if (threadIdx.x == 0) {
    prefetch(&k_map, &v_map, &q_map, &stats_map, &dy_map);
    shared.init();
  }
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    ptx::registers_decrease<kProducerRegisters>();
    if (threadIdx.x != 0) return;
    ptx::mbarrier_arrive_expect(shared.kv_full, 2 * KeySide<Size>::Keys::kBytes);
    shared.k.load(shared.kv_full, &k_map, kv_head, first);
    shared.v.load(shared.kv_full, &v_map, kv_head, first);
    Turn turn;
    for (int32_t head = first_head; head < end_head; ++head)
      for (TileWalk walk(words, query_tiles); walk.next(); turn.advance()) {
        const int32_t query = walk.tile() * kQueries;
        const int64_t stats_row = (head * a.head_stats * QueryStats::kQueries + query) * 2 / Stats::kRowValues;
        shared.q.produce(turn, &q_map, &stats_map, head, query, static_cast<int32_t>(stats_row));
        shared.dy.produce(turn, &dy_map, head, query);
      }
    return;
  }

  ptx::registers_increase<kConsumerRegisters<kConsumers>>();
  const Consumer<kConsumers> consumer;
  const int own = consumer.first_row();
  const Place place;
  const OwnKeys keys(a.mask, first + own + place.row);
  float dk[Size / 2], dv[Size / 2];
  clear(dk);
  clear(dv);
  ptx::mbarrier_wait(shared.kv_full, 0);
  Turn turn, before;
  bool begun = false;
  for (int32_t head = first_head; head < end_head; ++head)
    for (TileWalk walk(words, query_tiles); walk.next(); turn.advance()) {
      float p[kQueries / 2], dp[kQueries / 2];
      Fragments<kQueries> fragments;
      const auto query = shared.q.wait(turn);
      const Stats stats = query.labels();
      ptx::wgmma_fence();
      multiply_transposed<kQueries>(p, shared.k, own, query.rows());
      const auto dy = shared.dy.wait(turn);
      ptx::wgmma_fence();
      multiply_transposed<kQueries>(dp, shared.v, own, dy);
      ptx::wgmma_wait<1>();  // the scores, and dk of the tile before
      if (begun) shared.q.release(before);
      keys.probabilities(p, a.scale2, stats, place.column);
      if (!walk.all_visible()) keys.hide(p, a.mask, walk.tile() * kQueries + place.column);
      fragments.pack(p);
      ptx::wgmma_fence();
      accumulate(dv, fragments, dy);
      ptx::wgmma_wait<1>();  // dp
      keys.differences(p, dp, stats, place.column);
      Fragments<kQueries> ds;
      ds.pack(p);
      ptx::wgmma_fence();
      accumulate(dk, ds, query.rows());
      ptx::wgmma_wait<1>();  // dv
      shared.dy.release(turn);
      before = turn;
      begun = true;
    }
  ptx::wgmma_wait<0>();

  const float scales[2] = {a.scale, a.scale}, ones[2] = {1, 1};
  if (a.splits > 1) {
    const int64_t one = int64_t{a.mask.rows} * kv_heads * a.size, at = split * one + kv_head * a.size;
    write_partial<Size>(a.partials + at, kv_heads * a.size, first + own, a.mask.rows, a.size, place, dk, scales);
    write_partial<Size>(a.partials + a.splits * one + at, kv_heads * a.size, first + own, a.mask.rows, a.size, place, dv, ones);
    return;
  }
  consumer.sync();  // its warps are done with its rows of K and V, where the results leave from
  shared.k.put(own, place, dk, scales);
  shared.v.put(own, place, dv, ones);
  ptx::fence_proxy_async();
  consumer.sync();
  if (consumer.leads()) {
    if (a.want_dk) shared.k.store(own, &dk_map, kv_head, first + own);
    if (a.want_dv) shared.v.store(own, &dv_map, kv_head, first + own);
    ptx::tma_store_wait<0>();
  }
}

// dk and dv (N, K, size) as sums over the splits, first to last.
__global__ void __launch_bounds__(256, 4)
    attention_add_partials(const float* partials, int32_t splits, int64_t count, __nv_bfloat16* dk, __nv_bfloat16* dv) {
  const int64_t i = (int64_t{blockIdx.x} * 256 + threadIdx.x) * kWide;
  __nv_bfloat16* const to = blockIdx.y == 0 ? dk : dv;
  if (i >= count || !to) return;
  const float* const from = partials + blockIdx.y * splits * count + i;
  float sum[kWide] = {};
  for (int32_t s = 0; s < splits; ++s) {
    const auto part = load<kWide>(from + s * count);
#pragma unroll
    for (int k = 0; k < kWide; ++k) sum[k] += part[k];
  }
  store(to + i, sum);
}

// ---- dq

template <int Size>
struct QuerySide {
  using Queries = Tile<kBlockRows, Size>;
  using Keys = Ring<LabelledTile<Ends, kKeys, Size>, kStages, kConsumers>;  // labelled with their ends
  using Values = Ring<Tile<kKeys, Size>, kStages, kConsumers>;
  static constexpr int kBytes = 2 * Queries::kBytes + Keys::kBytes + Values::kBytes + kBarrierBytes;
  static_assert(kBytes <= kMostShared && (1 + 2 * Keys::kBarriers) * 8 <= kBarrierBytes, "shared memory");
  Queries q, dy;
  Keys k;
  Values v;
  uint64_t* q_full;

  __device__ explicit QuerySide(uint8_t* base) {
    uint8_t* const rings = base + 2 * Queries::kBytes;
    uint64_t* const barriers = reinterpret_cast<uint64_t*>(rings + Keys::kBytes + Values::kBytes);
    q = {base};
    dy = {base + Queries::kBytes};
    k = {rings, barriers + 1};
    v = {rings + Keys::kBytes, barriers + 1 + Keys::kBarriers};
    q_full = barriers;
  }
  __device__ void init() const {
    ptx::mbarrier_init(q_full, 1);
    k.init();
    v.init();
    ptx::fence_barrier_init();
  }
};

template <int Size>
__global__ void __launch_bounds__(kThreads<kConsumers>, 1)
    attention_dq_wgmma(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                       const __grid_constant__ CUtensorMap v_map, const __grid_constant__ CUtensorMap dy_map,
                       const __grid_constant__ CUtensorMap ends_map, const __grid_constant__ CUtensorMap dq_map,
                       const __grid_constant__ BackwardArgs a) {
  ATTUNE_DYNAMIC_SHARED(base);
  const QuerySide<Size> shared(base);
  using Turn = typename QuerySide<Size>::Keys::Turn;
  const int32_t tile = a.tiles.order[blockIdx.x / a.heads], head = blockIdx.x % a.heads, first = tile * kBlockRows;
  const int32_t key_tiles = (a.mask.rows + kKeys - 1) / kKeys;
  TileWalk walk(a.tiles.words + int64_t{tile} * ((key_tiles + 31) / 32), key_tiles);
  if (threadIdx.x == 0) {
    prefetch(&q_map, &dy_map, &k_map, &ends_map, &v_map);
    shared.init();
  }
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    ptx::registers_decrease<kProducerRegisters>();
    if (threadIdx.x != 0) return;
    ptx::mbarrier_arrive_expect(shared.q_full, 2 * QuerySide<Size>::Queries::kBytes);
    shared.q.load(shared.q_full, &q_map, head, first);
    shared.dy.load(shared.q_full, &dy_map, head, first);
    for (Turn turn; walk.next(); turn.advance()) {
      const int32_t key = walk.tile() * kKeys;
      shared.k.produce(turn, &k_map, &ends_map, head / a.group, key, key / Ends::kRowValues);
      shared.v.produce(turn, &v_map, head / a.group, key);
    }
    return;
  }

  ptx::registers_increase<kConsumerRegisters<kConsumers>>();
  const Consumer<kConsumers> consumer;
  const int own = consumer.first_row();
  const Place place;
  const OwnQueries queries(a.stats + head * a.head_stats, first + own + place.row);
  float dq[Size / 2];
  clear(dq);
  ptx::mbarrier_wait(shared.q_full, 0);
  for (Turn turn; walk.next(); turn.advance()) {
    float p[kKeys / 2], dp[kKeys / 2];
    const auto k = shared.k.wait(turn);
    ptx::wgmma_fence();
    multiply_transposed<kKeys>(p, shared.q, own, k.rows());
    const auto v = shared.v.wait(turn);
    ptx::wgmma_fence();
    multiply_transposed<kKeys>(dp, shared.dy, own, v);
    ptx::wgmma_wait<1>();  // the scores
    queries.probabilities(p, a.scale2);
    ptx::wgmma_wait<0>();  // dp
    shared.v.release(turn);
    queries.differences(p, dp);
    if (!walk.all_visible())
      hide<kKeys>(p, 0, a.mask, k.labels(), place.column, queries.row, walk.tile() * kKeys + place.column);
    Fragments<kKeys> ds;
    ds.pack(p);
    ptx::wgmma_fence();
    accumulate(dq, ds, k.rows());
    ptx::wgmma_wait<0>();
    shared.k.release(turn);
  }
  const float scales[2] = {a.scale, a.scale};
  consumer.sync();  // its warps are done with its rows of q, where the results leave from
  shared.q.put(own, place, dq, scales);
  ptx::fence_proxy_async();
  consumer.sync();
  if (consumer.leads()) {
    shared.q.store(own, &dq_map, head, first + own);
    ptx::tma_store_wait<0>();
  }
}

// ---- host

// A map of a result, if it is wanted.
bool make_result_map(CUtensorMap* map, const Tensor& x, Stream& stream) {
  *map = {};
  return !x || make_map(map, x, kConsumerRows, stream);
}

template <int Size>
void launch(const AttentionBackward& a, const AttentionPlan& plan, BackwardArgs args, Stream& stream) {
  const int64_t tiles = ceil_div(plan.rows, kBlockRows);
  CUtensorMap q, k, v, dy, stats, ends, dq, dk, dv;
  if (!make_map(&k, a.k, kBlockRows, stream) || !make_map(&v, a.v, kBlockRows, stream)) return;
  if (a.dk || a.dv) {
    if (!make_map(&q, a.q, kQueries, stream) || !make_map(&dy, a.dy, kQueries, stream) ||
        !make_labels_map<Stats>(&stats, plan.stats, 2 * plan.heads * plan.padded, stream) ||
        !make_result_map(&dk, a.dk, stream) || !make_result_map(&dv, a.dv, stream))
      return;
    args.tiles = plan.by_key;
    stream.launch("attention_dkdv_wgmma", attention_dkdv_wgmma<Size>, static_cast<unsigned>(tiles * plan.kv_heads * plan.splits),
                  kThreads<kConsumers>, KeySide<Size>::kBytes, q, k, v, dy, stats, dk, dv, args);
    if (plan.splits > 1) {
      const int64_t count = plan.rows * plan.kv_heads * plan.size;
      stream.launch("attention_add_partials", attention_add_partials, dim3(static_cast<unsigned>(ceil_div(count, 256 * kWide)), 2),
                    256, 0, plan.partials, plan.splits, count, a.dk.as<__nv_bfloat16>(), a.dv.as<__nv_bfloat16>());
    }
  }
  if (a.dq) {
    if (!make_map(&q, a.q, kBlockRows, stream) || !make_map(&dy, a.dy, kBlockRows, stream) ||
        !make_labels_map<Ends>(&ends, plan.end, plan.padded, stream) || !make_result_map(&dq, a.dq, stream))
      return;
    args.tiles = plan.by_query;
    stream.launch("attention_dq_wgmma", attention_dq_wgmma<Size>, static_cast<unsigned>(tiles * plan.heads), kThreads<kConsumers>,
                  QuerySide<Size>::kBytes, q, k, v, dy, ends, dq, args);
  }
}

}  // namespace

void attention_backward_wgmma(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream) {
  const BackwardArgs args = {a.dk.data != nullptr,
                             a.dv.data != nullptr,
                             plan.stats,
                             {},
                             plan.mask(),
                             plan.head_stats(),
                             static_cast<int32_t>(plan.heads),
                             static_cast<int32_t>(plan.group()),
                             static_cast<int32_t>(plan.size),
                             plan.splits,
                             plan.partials,
                             plan.scale,
                             plan.scale2};
  if (plan.size <= 64)
    launch<64>(a, plan, args, stream);
  else
    launch<128>(a, plan, args, stream);
}

}  // namespace attune::cuda
