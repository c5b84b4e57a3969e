// attention_backward, wgmma family: dq = scale dS k, with dS = P (dy v^T - dy . y) computed once more.
// source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691) algorithm 2. tiling: a block has 128 queries of one head, 64 a consumer,
// and walks the tiles of 128 keys that hold a visible pair, last first, as the forward does.
// budget: 384 threads, 168 registers (24 for the producer, 240 for consumers), no spills; shared memory 195 KiB, 99 KiB at size 64.
// limits: bf16, capability 9.0, head sizes to 128 (padded to 64 or 128 by TMA); keys that nobody sees must be finite.
// measured: with dk and dv, seven products, H200, causal, 8k, 32/8 heads, D 128: 446 TFLOP/s counted as 2.5 forwards.
#include "attention_wgmma.h"
#include "common/grid.h"

namespace attune::cuda {
namespace {

using namespace hopper;

constexpr int kConsumers = 2;
constexpr int kStages = 2;
constexpr int kBlockRows = kConsumers * kConsumerRows;  // queries of a block
constexpr int kKeys = 128;                              // of a tile

using Ends = Table<int32_t, kKeys>;

struct DqArgs {
  const QueryStats* stats;  // (H, head_stats)
  TileTable tiles;
  AttentionMask mask;
  int64_t head_stats;
  int32_t heads, group;
  float scale, scale2;
};

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
                       const __grid_constant__ DqArgs a) {
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

template <int Size>
void launch(const AttentionBackward& a, const AttentionPlan& plan, const DqArgs& args, Stream& stream) {
  CUtensorMap q, k, v, dy, ends, dq;
  if (!make_map(&k, a.k, kKeys, stream) || !make_map(&v, a.v, kKeys, stream) || !make_map(&q, a.q, kBlockRows, stream) ||
      !make_map(&dy, a.dy, kBlockRows, stream) || !make_labels_map<Ends>(&ends, plan.end, plan.padded, stream) ||
      !make_map(&dq, a.dq, kConsumerRows, stream))
    return;
  stream.launch("attention_dq_wgmma", attention_dq_wgmma<Size>, static_cast<unsigned>(ceil_div(plan.rows, kBlockRows) * plan.heads),
                kThreads<kConsumers>, QuerySide<Size>::kBytes, q, k, v, dy, ends, dq, args);
}

}  // namespace

void launch_dq_wgmma(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream) {
  const DqArgs args = {plan.stats,
                       plan.by_query,
                       plan.mask(),
                       plan.head_stats(),
                       static_cast<int32_t>(plan.heads),
                       static_cast<int32_t>(plan.group()),
                       plan.scale,
                       plan.scale2};
  if (plan.size <= 64)
    launch<64>(a, plan, args, stream);
  else
    launch<128>(a, plan, args, stream);
}

}  // namespace attune::cuda
