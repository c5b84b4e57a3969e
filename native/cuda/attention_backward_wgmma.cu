// attention_backward, wgmma family. With P = exp(scale q k^T - lse), dS = P (dy v^T - dy . y): dv = P^T dy, dk = scale dS^T q,
// dq = scale dS k. source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691) algorithm 2, split in two kernels so that every sum
// has one owner and one order: seven products are computed where five would do, and nothing is added through memory.
// tiling: dk, dv: a block has 128 keys of one kv head, 64 a consumer, and walks tiles of 64 queries for each query head of the group;
// it computes S^T and dP^T, so that P^T and dS^T are A operands as they stand. dq: a block has 128 queries of one head and walks tiles
// of 128 keys, as the forward does. Statistics of queries come by TMA with their rows.
// budget: 384 threads, 168 registers (24 for the producer, 240 for consumers), no spills; shared memory 131 KiB for dk and dv, 193 KiB
// for dq at size 128, half as much at 64.
// limits: bf16, capability 9.0, head sizes to 128 (padded to 64 or 128 by TMA); rows that nobody sees must be finite.
// measured: not yet.
#include "attention_wgmma.h"

namespace attune::cuda {
namespace {

using namespace hopper;

constexpr int kConsumers = 2;
constexpr int kStages = 2;
constexpr int kBlockRows = kConsumers * kConsumerRows;  // keys of a block of dkdv, queries of a block of dq
constexpr int kQueries = 64;                            // of a tile that dkdv walks
constexpr int kKeys = 128;                              // of a tile that dq walks

struct BackwardArgs {
  __nv_bfloat16 *dq, *dk, *dv;  // each may be null
  const QueryStats* stats;      // (H, padded)
  const TileWord* words;
  AttentionMask mask;
  int64_t padded;
  int32_t heads, group, size;
  float scale, scale2;
};

// Statistics of a tile of queries, brought by TMA as rows of 128 bytes: 16 queries, in 16-byte chunks of two that are swizzled.
struct StatsTile {
  static constexpr int kRowQueries = kPanelRow / static_cast<int>(sizeof(QueryStats));
  static constexpr int kRows = kQueries / kRowQueries;
  static constexpr int kBytes = kRows * kPanelRow;
  uint8_t* data;

  __device__ __forceinline__ float4 two(int query) const {
    const int row = query / kRowQueries, chunk = query % kRowQueries / 2;
    return *reinterpret_cast<const float4*>(data + row * kPanelRow + (chunk ^ row) * 16);
  }
};

// Rows of q with their statistics.
template <int Size>
struct QueryTile {
  using Rows = Tile<kQueries, Size>;
  static constexpr int kLoaded = Rows::kBytes + StatsTile::kBytes;
  static constexpr int kBytes = Rows::kBytes + 1024;  // a swizzled tile begins at a multiple of 1024
  uint8_t* data;

  __device__ __forceinline__ Rows rows() const { return {data}; }
  __device__ __forceinline__ StatsTile stats() const { return {data + Rows::kBytes}; }
  __device__ __forceinline__ void load(uint64_t* barrier, const CUtensorMap* map, const CUtensorMap* stats_map, int32_t head,
                                       int32_t row, int32_t stats_row) const {
    rows().load(barrier, map, head, row);
    ptx::tma_load_2d(stats().data, stats_map, barrier, 0, stats_row);
  }
};

// ---- dk, dv

template <int Size>
struct KeySide {
  using Keys = Tile<kBlockRows, Size>;
  using Queries = Ring<QueryTile<Size>, kStages, kConsumers>;
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

template <int Size>
__global__ void __launch_bounds__(kThreads<kConsumers>, 1)
    attention_dkdv_wgmma(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                         const __grid_constant__ CUtensorMap v_map, const __grid_constant__ CUtensorMap dy_map,
                         const __grid_constant__ CUtensorMap stats_map, const BackwardArgs a) {
  ATTUNE_DYNAMIC_SHARED(base);
  const KeySide<Size> shared(base);
  using Turn = typename KeySide<Size>::Queries::Turn;
  const int32_t kv_heads = a.heads / a.group, kv_head = blockIdx.x % kv_heads, tile = blockIdx.x / kv_heads;
  const int32_t first = tile * kBlockRows, query_tiles = (a.mask.rows + kQueries - 1) / kQueries;
  const TileWord* const words = a.words + int64_t{tile} * ((query_tiles + 31) / 32);
  if (threadIdx.x == 0) shared.init();
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    ptx::registers_decrease<kProducerRegisters>();
    if (threadIdx.x != 0) return;
    ptx::mbarrier_arrive_expect(shared.kv_full, 2 * KeySide<Size>::Keys::kBytes);
    shared.k.load(shared.kv_full, &k_map, kv_head, first);
    shared.v.load(shared.kv_full, &v_map, kv_head, first);
    Turn turn;
    for (int32_t head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head)
      for (TileWalk walk(words, query_tiles); walk.next(); turn.advance()) {
        const int32_t query = walk.tile() * kQueries;
        const int64_t stats_row = (head * a.padded + query) / StatsTile::kRowQueries;
        shared.q.produce(turn, &q_map, &stats_map, head, query, static_cast<int32_t>(stats_row));
        shared.dy.produce(turn, &dy_map, head, query);
      }
    return;
  }

  ptx::registers_increase<kConsumerRegisters<kConsumers>>();
  const int own = (threadIdx.x / kWarpgroup - 1) * kConsumerRows;
  const Place place;
  const OwnKeys keys(a.mask, first + own + place.row);
  float dk[Size / 2], dv[Size / 2];
  clear(dk);
  clear(dv);
  ptx::mbarrier_wait(shared.kv_full, 0);
  Turn turn, before;
  bool begun = false;
  for (int32_t head = 0; head < a.group; ++head)
    for (TileWalk walk(words, query_tiles); walk.next(); turn.advance()) {
      float p[kQueries / 2], dp[kQueries / 2];
      Fragments<kQueries> fragments;
      const auto query = shared.q.wait(turn);
      const StatsTile stats = query.stats();
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

  const int64_t row_stride = int64_t{kv_heads} * a.size;
  const float scales[2] = {a.scale, a.scale}, ones[2] = {1, 1};
  if (a.dk) write<Size>(a.dk + kv_head * a.size, row_stride, first + own, a.mask.rows, a.size, place, dk, scales);
  if (a.dv) write<Size>(a.dv + kv_head * a.size, row_stride, first + own, a.mask.rows, a.size, place, dv, ones);
}

// ---- dq

template <int Size>
struct QuerySide {
  using Queries = Tile<kBlockRows, Size>;
  using Keys = Ring<Tile<kKeys, Size>, kStages, kConsumers>;
  static constexpr int kBytes = 2 * Queries::kBytes + 2 * Keys::kBytes + kBarrierBytes;
  static_assert(kBytes <= kMostShared && (1 + 2 * Keys::kBarriers) * 8 <= kBarrierBytes, "shared memory");
  Queries q, dy;
  Keys k, v;
  uint64_t* q_full;

  __device__ explicit QuerySide(uint8_t* base) {
    uint8_t* const rings = base + 2 * Queries::kBytes;
    uint64_t* const barriers = reinterpret_cast<uint64_t*>(rings + 2 * Keys::kBytes);
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
                       const __grid_constant__ CUtensorMap v_map, const __grid_constant__ CUtensorMap dy_map, const BackwardArgs a) {
  ATTUNE_DYNAMIC_SHARED(base);
  const QuerySide<Size> shared(base);
  using Turn = typename QuerySide<Size>::Keys::Turn;
  const int32_t tiles = (a.mask.rows + kBlockRows - 1) / kBlockRows, tile = tiles - 1 - static_cast<int32_t>(blockIdx.x / a.heads);
  const int32_t head = blockIdx.x % a.heads, first = tile * kBlockRows;
  const int32_t key_tiles = (a.mask.rows + kKeys - 1) / kKeys;
  TileWalk walk(a.words + int64_t{tile} * ((key_tiles + 31) / 32), key_tiles);
  if (threadIdx.x == 0) shared.init();
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    ptx::registers_decrease<kProducerRegisters>();
    if (threadIdx.x != 0) return;
    ptx::mbarrier_arrive_expect(shared.q_full, 2 * QuerySide<Size>::Queries::kBytes);
    shared.q.load(shared.q_full, &q_map, head, first);
    shared.dy.load(shared.q_full, &dy_map, head, first);
    for (Turn turn; walk.next(); turn.advance()) {
      shared.k.produce(turn, &k_map, head / a.group, walk.tile() * kKeys);
      shared.v.produce(turn, &v_map, head / a.group, walk.tile() * kKeys);
    }
    return;
  }

  ptx::registers_increase<kConsumerRegisters<kConsumers>>();
  const int own = (threadIdx.x / kWarpgroup - 1) * kConsumerRows;
  const Place place;
  const OwnQueries queries(a.stats + head * a.padded, first + own + place.row);
  float dq[Size / 2];
  clear(dq);
  ptx::mbarrier_wait(shared.q_full, 0);
  for (Turn turn; walk.next(); turn.advance()) {
    float p[kKeys / 2], dp[kKeys / 2];
    const auto k = shared.k.wait(turn);
    ptx::wgmma_fence();
    multiply_transposed<kKeys>(p, shared.q, own, k);
    const auto v = shared.v.wait(turn);
    ptx::wgmma_fence();
    multiply_transposed<kKeys>(dp, shared.dy, own, v);
    ptx::wgmma_wait<1>();  // the scores
    queries.probabilities(p, a.scale2);
    if (!walk.all_visible()) hide<kKeys>(p, 0, a.mask, queries.row, walk.tile() * kKeys + place.column);
    ptx::wgmma_wait<0>();  // dp
    shared.v.release(turn);
    queries.differences(p, dp);
    Fragments<kKeys> ds;
    ds.pack(p);
    ptx::wgmma_fence();
    accumulate(dq, ds, k);
    ptx::wgmma_wait<0>();
    shared.k.release(turn);
  }
  const float scales[2] = {a.scale, a.scale};
  write<Size>(a.dq + head * a.size, int64_t{a.heads} * a.size, first + own, a.mask.rows, a.size, place, dq, scales);
}

// ---- host

// The statistics as TMA sees them: rows of 16 queries, bits that are only moved.
bool make_stats_map(CUtensorMap* map, const AttentionPlan& plan, Stream& stream) {
  const uint64_t rows = plan.heads * plan.padded / StatsTile::kRowQueries;
  return make_tensor_map_2d(map, plan.stats, {kPanel, rows}, {kPanelRow}, {kPanel, StatsTile::kRows}, stream);
}

template <int Size>
void launch(const AttentionBackward& a, const AttentionPlan& plan, BackwardArgs args, Stream& stream) {
  const int64_t tiles = (plan.rows + kBlockRows - 1) / kBlockRows;
  CUtensorMap q, k, v, dy, stats;
  if (!make_map(&k, a.k, kBlockRows, stream) || !make_map(&v, a.v, kBlockRows, stream)) return;
  if (a.dk || a.dv) {
    if (!make_map(&q, a.q, kQueries, stream) || !make_map(&dy, a.dy, kQueries, stream) || !make_stats_map(&stats, plan, stream)) return;
    args.words = plan.by_key.words;
    stream.launch("attention_dkdv_wgmma", attention_dkdv_wgmma<Size>, static_cast<unsigned>(tiles * plan.kv_heads), kThreads<kConsumers>,
                  KeySide<Size>::kBytes, q, k, v, dy, stats, args);
  }
  if (a.dq) {
    if (!make_map(&q, a.q, kBlockRows, stream) || !make_map(&dy, a.dy, kBlockRows, stream)) return;
    args.words = plan.by_query.words;
    stream.launch("attention_dq_wgmma", attention_dq_wgmma<Size>, static_cast<unsigned>(tiles * plan.heads), kThreads<kConsumers>,
                  QuerySide<Size>::kBytes, q, k, v, dy, args);
  }
}

}  // namespace

void attention_backward_wgmma(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream) {
  const BackwardArgs args = {a.dq.as<__nv_bfloat16>(),
                             a.dk.as<__nv_bfloat16>(),
                             a.dv.as<__nv_bfloat16>(),
                             plan.stats,
                             nullptr,
                             plan.mask(),
                             plan.padded,
                             static_cast<int32_t>(plan.heads),
                             static_cast<int32_t>(plan.group()),
                             static_cast<int32_t>(plan.size),
                             plan.scale,
                             plan.scale2};
  if (plan.size <= 64)
    launch<64>(a, plan, args, stream);
  else
    launch<128>(a, plan, args, stream);
}

}  // namespace attune::cuda
