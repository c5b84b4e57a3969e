// attention_backward, wgmma family: dq = scale dS k, with dS = P (dy v^T - dy . y) computed once more.
// source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691) algorithm 2. tiling: a block has 128 queries of one head, 64 a consumer,
// and walks the tiles of 128 keys that hold a visible pair, last first, as the forward does. There are as many blocks as
// multiprocessors, and each is dealt such items, longest first: the producer brings the next item's first keys, and its q and dy once this
// one's last products with them are done, while the consumers finish it, and dq leaves by TMA under the next item.
// budget: 384 threads, 168 registers (24 for the producer, 240 for consumers), no spills; shared memory 227 KiB, 147 KiB at size 64,
// where q and dy have two stages.
// limits: bf16, capability 9.0, head sizes to 128 (padded to 64 or 128 by TMA); keys that nobody sees must be finite.
// measured: with dk and dv at D 64, see attention_backward_wgmma.cu; at D 128, seven products, when it had a block an item: 446 TFLOP/s.
#include "attention_wgmma.h"
#include "common/grid.h"

namespace attune::cuda {
namespace {

using namespace hopper;

constexpr int kConsumers = 2;
constexpr int kStages = 2;
constexpr int kBlockRows = kConsumers * kConsumerRows;  // queries of an item
constexpr int kKeys = 128;                              // of a tile
template <int Size>
inline constexpr int kQueryStages = Size == 64 ? 2 : 1;

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
  using Queries = Ring<Tile<kBlockRows, Size>, kQueryStages<Size>, kConsumers>;
  using Keys = Ring<LabelledTile<Ends, kKeys, Size>, kStages, kConsumers>;  // labelled with their ends
  using Values = Ring<Tile<kKeys, Size>, kStages, kConsumers>;
  using Out = Tile<kConsumerRows, Size>;
  static constexpr int kBytes = 2 * Queries::kBytes + Keys::kBytes + Values::kBytes + kConsumers * Out::kBytes + kBarrierBytes;
  static_assert(kBytes <= kMostShared && 2 * (Queries::kBarriers + Keys::kBarriers) * 8 <= kBarrierBytes, "shared memory");
  Queries q, dy;
  Keys k;
  Values v;
  uint8_t* outs;

  __device__ explicit QuerySide(uint8_t* base) {
    uint8_t* const keys = base + 2 * Queries::kBytes;
    outs = keys + Keys::kBytes + Values::kBytes;
    uint64_t* const barriers = reinterpret_cast<uint64_t*>(outs + kConsumers * Out::kBytes);
    q = {base, barriers};
    dy = {base + Queries::kBytes, barriers + Queries::kBarriers};
    k = {keys, barriers + 2 * Queries::kBarriers};
    v = {keys + Keys::kBytes, barriers + 2 * Queries::kBarriers + Keys::kBarriers};
  }
  __device__ void init() const {
    q.init();
    dy.init();
    k.init();
    v.init();
    ptx::fence_barrier_init();
  }
  __device__ Out out(int consumer) const { return {outs + consumer * Out::kBytes}; }
};

// q and dy of an item come after its first tile, for which there is room before there is for them; an item without tiles needs none.
template <int Size>
__device__ __forceinline__ void produce(const QuerySide<Size>& shared, const CUtensorMap* q_map, const CUtensorMap* k_map,
                                        const CUtensorMap* v_map, const CUtensorMap* dy_map, const CUtensorMap* ends_map,
                                        const DqArgs& a) {
  typename QuerySide<Size>::Queries::Turn q_turn;
  typename QuerySide<Size>::Keys::Turn turn;
  each_item<kBlockRows, kKeys>(a, [&](Item item) {
    for (bool first = true; item.walk.next(); turn.advance(), first = false) {
      const int32_t key = item.walk.tile() * kKeys;
      shared.k.produce(turn, k_map, ends_map, item.kv_head, key, key / Ends::kRowValues);
      shared.v.produce(turn, v_map, item.kv_head, key);
      if (!first) continue;
      shared.q.produce(q_turn, q_map, item.head, item.first);
      shared.dy.produce(q_turn, dy_map, item.head, item.first);
      q_turn.advance();
    }
  });
}

template <int Size>
__device__ __forceinline__ void consume(const QuerySide<Size>& shared, const CUtensorMap* dq_map, const DqArgs& a) {
  const Consumer<kConsumers> consumer;
  const Place place;
  const int own = consumer.first_row();
  const auto staging = shared.out(consumer.index);
  const float scales[2] = {a.scale, a.scale};
  typename QuerySide<Size>::Queries::Turn q_turn;
  typename QuerySide<Size>::Keys::Turn turn;
  each_item<kBlockRows, kKeys>(a, [&](Item item) {
    const OwnQueries queries(a.stats + item.head * a.head_stats, item.first + own + place.row);
    float dq[Size / 2];
    clear(dq);
    for (; item.walk.next(); turn.advance()) {
      float p[kKeys / 2], dp[kKeys / 2];
      const auto k = shared.k.wait(turn);
      const auto q = shared.q.wait(q_turn);  // there from the second tile on
      ptx::wgmma_fence();
      multiply_transposed<kKeys>(p, q, own, k.rows());
      const auto v = shared.v.wait(turn);
      const auto dy = shared.dy.wait(q_turn);
      ptx::wgmma_fence();
      multiply_transposed<kKeys>(dp, dy, own, v);
      const int32_t key = item.walk.tile() * kKeys;
      const bool all_visible = item.walk.all_visible(), last = item.walk.ended();  // looked up under the products
      ptx::wgmma_wait<1>();                                                        // the scores
      if (last) shared.q.release(q_turn);
      queries.probabilities(p, a.scale2);
      ptx::wgmma_wait<0>();  // dp
      shared.v.release(turn);
      if (last) {
        shared.dy.release(q_turn);
        q_turn.advance();
      }
      queries.differences(p, dp);
      if (!all_visible) hide<kKeys>(p, 0, a.mask, k.labels(), place.column, queries.row, key + place.column);
      Fragments<kKeys> ds;
      ds.pack(p);
      ptx::wgmma_fence();
      accumulate(dq, ds, k.rows());
      ptx::wgmma_wait<0>();
      shared.k.release(turn);
    }
    if (consumer.leads()) ptx::tma_store_wait<0>();
    consumer.sync();  // the rows before have left the staging tile
    staging.put(0, place, dq, scales);
    ptx::fence_proxy_async();
    consumer.sync();
    if (consumer.leads()) staging.store(0, dq_map, item.head, item.first + own);
  });
  if (consumer.leads()) ptx::tma_store_wait<0>();
}

template <int Size>
__global__ void __launch_bounds__(kThreads<kConsumers>, 1)
    attention_dq_wgmma(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                       const __grid_constant__ CUtensorMap v_map, const __grid_constant__ CUtensorMap dy_map,
                       const __grid_constant__ CUtensorMap ends_map, const __grid_constant__ CUtensorMap dq_map,
                       const __grid_constant__ DqArgs a) {
  ATTUNE_DYNAMIC_SHARED(base);
  const QuerySide<Size> shared(base);
  if (threadIdx.x == 0) {
    prefetch(&k_map, &ends_map, &v_map, &q_map, &dy_map, &dq_map);
    shared.init();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    ptx::registers_decrease<kProducerRegisters>();
    if (threadIdx.x == 0) produce<Size>(shared, &q_map, &k_map, &v_map, &dy_map, &ends_map, a);
  } else {
    ptx::registers_increase<kConsumerRegisters<kConsumers>>();
    consume<Size>(shared, &dq_map, a);
  }
}

template <int Size>
void launch(const AttentionBackward& a, const AttentionPlan& plan, const DqArgs& args, Stream& stream) {
  CUtensorMap q, k, v, dy, ends, dq;
  if (!make_map(&k, a.k, kKeys, stream) || !make_map(&v, a.v, kKeys, stream) || !make_map(&q, a.q, kBlockRows, stream) ||
      !make_map(&dy, a.dy, kBlockRows, stream) || !make_labels_map<Ends>(&ends, plan.end, plan.padded, stream) ||
      !make_map(&dq, a.dq, kConsumerRows, stream))
    return;
  stream.launch("attention_dq_wgmma", attention_dq_wgmma<Size>, dealt_blocks(ceil_div(plan.rows, kBlockRows) * plan.heads, stream),
                kThreads<kConsumers>, QuerySide<Size>::kBytes, q, k, v, dy, ends, dq, args);
}

}  // namespace

void launch_dq_wgmma(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream) {
  const DqArgs args = {
      .stats = plan.stats,
      .tiles = plan.by_query,
      .mask = plan.mask(),
      .head_stats = plan.head_stats(),
      .heads = static_cast<int32_t>(plan.heads),
      .group = static_cast<int32_t>(plan.group()),
      .scale = plan.scale,
      .scale2 = plan.scale2,
  };
  if (plan.size <= 64)
    launch<64>(a, plan, args, stream);
  else
    launch<128>(a, plan, args, stream);
}

}  // namespace attune::cuda
