// attention_backward, wgmma family. With P = exp(scale q k^T - lse), dS = P (dy v^T - dy . y): dv = P^T dy, dk = scale dS^T q,
// dq = scale dS k. source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691) algorithm 2, split in two kernels so that every sum
// has one owner and one order. dS goes from the first, which is here, to the second through memory, in bf16, as the tensor cores take
// it anyway: five products (attention_dq_kept_wgmma.cu). Where its room is too much, the second computes it again: seven
// (attention_dq_wgmma.cu).
// tiling: a block has 128 keys of one kv head, 64 a consumer, and walks tiles of 64 queries for each query head of the group; it
// computes S^T and dP^T, so that P^T and dS^T are A operands as they stand. Statistics of queries come by TMA with their rows. Where
// few keys would make few blocks, the heads of a group are split between blocks, whose sums a last kernel adds in order.
// budget: 384 threads, 168 registers (24 for the producer, 240 for consumers), no spills; shared memory 131 KiB, 67 KiB at size 64.
// limits: bf16, capability 9.0, head sizes to 128 (padded to 64 or 128 by TMA); rows that nobody sees must be finite.
// measured: with dq, H200, 32/8 heads, D 128: causal 8k 508 to 549 TFLOP/s by the card, counted as 2.5 forwards, packed 8 x 2k 406 to 433,
// trees 432 to 468; D 64, 14/2 heads, causal 8k: 341. bench/results.
#include "attention_wgmma.h"
#include "common/elements.h"
#include "common/grid.h"

namespace attune::cuda {
namespace {

using namespace hopper;

constexpr int kConsumers = 2;
constexpr int kStages = 2;
constexpr int kBlockRows = kConsumers * kConsumerRows;  // keys of a block
constexpr int kQueries = 64;                            // of a tile

using Stats = Table<float, 2 * kQueries>;

struct BackwardArgs {
  bool want_dk, want_dv;
  const QueryStats* stats;  // (H, head_stats)
  TileTable tiles;
  AttentionMask mask;
  int64_t head_stats;
  int32_t heads, group, size;
  int32_t splits;   // of the group's heads; 1: none
  float* partials;  // (2, splits, N, K, size)
  KeptTiles kept;
  int32_t first_kv_head, some_kv_heads;  // of dk and dv's launch
  float scale, scale2;
};

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

// dS of one consumer, of 64 queries beside its 64 keys: each warp's registers as they are.
__device__ __forceinline__ void keep(const Fragments<kQueries>& ds, uint8_t* tile) {
  static_assert(kQueries == KeptTiles::kQueries && kBlockRows == KeptTiles::kKeys);
  constexpr int kKeyGroups = KeptTiles::kKeys / kStep;
  const int key_group = threadIdx.x / 32 - kWarpgroup / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int group = 0; group < kQueries / kStep; ++group)
    *reinterpret_cast<uint4*>(tile + ((group * kKeyGroups + key_group) * 32 + lane) * 16) =
        make_uint4(ds.at[group][0], ds.at[group][1], ds.at[group][2], ds.at[group][3]);
}

template <int Size, bool Keep>
__global__ void __launch_bounds__(kThreads<kConsumers>, 1)
    attention_dkdv_wgmma(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                         const __grid_constant__ CUtensorMap v_map, const __grid_constant__ CUtensorMap dy_map,
                         const __grid_constant__ CUtensorMap stats_map, const __grid_constant__ CUtensorMap dk_map,
                         const __grid_constant__ CUtensorMap dv_map, const __grid_constant__ BackwardArgs a) {
  ATTUNE_DYNAMIC_SHARED(base);
  const KeySide<Size> shared(base);
  using Turn = typename KeySide<Size>::Queries::Turn;
  const int32_t kv_heads = a.heads / a.group, kv_head = a.first_kv_head + blockIdx.x % a.some_kv_heads;
  const int32_t split = blockIdx.x / a.some_kv_heads % a.splits, tile = a.tiles.order[blockIdx.x / a.some_kv_heads / a.splits];
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
  constexpr bool kInRegisters = Size == 64;  // K and V: at 128 the sums leave them no room
  Fragments<kInRegisters ? Size : kStep> k, v;
  if constexpr (kInRegisters) {
    k = shared.k.fragments(own);
    v = shared.v.fragments(own);
  }
  Turn turn, before;
  bool begun = false;
  for (int32_t head = first_head; head < end_head; ++head)
    for (TileWalk walk(words, query_tiles); walk.next(); turn.advance()) {
      float p[kQueries / 2], dp[kQueries / 2];
      Fragments<kQueries> fragments;
      const auto query = shared.q.wait(turn);
      const Stats stats = query.labels();
      ptx::wgmma_fence();
      if constexpr (kInRegisters)
        multiply_transposed<kQueries>(p, k, query.rows());
      else
        multiply_transposed<kQueries>(p, shared.k, own, query.rows());
      const auto dy = shared.dy.wait(turn);
      ptx::wgmma_fence();
      if constexpr (kInRegisters)
        multiply_transposed<kQueries>(dp, v, dy);
      else
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
      if constexpr (Keep) keep(ds, a.kept.data + a.kept.at(head - a.first_kv_head * a.group, tile, walk.tile()) * KeptTiles::kBytes);
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
    write<Size>(a.partials + at, kv_heads * a.size, first + own, a.mask.rows, a.size, place, dk, scales);
    write<Size>(a.partials + a.splits * one + at, kv_heads * a.size, first + own, a.mask.rows, a.size, place, dv, ones);
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

// A map of a result, if it is wanted.
bool make_result_map(CUtensorMap* map, const Tensor& x, Stream& stream) {
  *map = {};
  return !x || make_map(map, x, kConsumerRows, stream);
}

template <int Size, bool Keep>
void launch_key_side(const AttentionBackward& a, const AttentionPlan& plan, BackwardArgs args, Stream& stream) {
  CUtensorMap q, k, v, dy, stats, dk, dv;
  if (!make_map(&k, a.k, kBlockRows, stream) || !make_map(&v, a.v, kBlockRows, stream) || !make_map(&q, a.q, kQueries, stream) ||
      !make_map(&dy, a.dy, kQueries, stream) ||
      !make_labels_map<Stats>(&stats, plan.stats, 2 * plan.heads * plan.padded, stream) ||
      !make_result_map(&dk, a.dk, stream) || !make_result_map(&dv, a.dv, stream))
    return;
  stream.launch("attention_dkdv_wgmma", attention_dkdv_wgmma<Size, Keep>,
                static_cast<unsigned>(ceil_div(plan.rows, kBlockRows) * args.some_kv_heads * plan.splits), kThreads<kConsumers>,
                KeySide<Size>::kBytes, q, k, v, dy, stats, dk, dv, args);
}

template <int Size>
void launch(const AttentionBackward& a, const AttentionPlan& plan, BackwardArgs args, Stream& stream) {
  const bool key_side = a.dk || a.dv, keep = plan.kept_kv_heads > 0 && a.dq && key_side;
  if (keep) {
    for (int64_t head = 0; head < plan.kv_heads; head += plan.kept_kv_heads) {
      args.first_kv_head = static_cast<int32_t>(head);
      args.some_kv_heads = static_cast<int32_t>(std::min(plan.kept_kv_heads, plan.kv_heads - head));
      launch_key_side<Size, true>(a, plan, args, stream);
      launch_dq_kept_wgmma(a, plan, head * plan.group(), args.some_kv_heads * plan.group(), stream);
    }
  } else {
    if (key_side) launch_key_side<Size, false>(a, plan, args, stream);
    if (a.dq) launch_dq_wgmma(a, plan, stream);
  }
  if (key_side && plan.splits > 1) {
    const int64_t count = plan.rows * plan.kv_heads * plan.size;
    stream.launch("attention_add_partials", attention_add_partials, dim3(static_cast<unsigned>(ceil_div(count, 256 * kWide)), 2),
                  256, 0, plan.partials, plan.splits, count, a.dk.as<__nv_bfloat16>(), a.dv.as<__nv_bfloat16>());
  }
}

}  // namespace

void attention_backward_wgmma(const AttentionBackward& a, const AttentionPlan& plan, Stream& stream) {
  const BackwardArgs args = {
      .want_dk = a.dk.data != nullptr,
      .want_dv = a.dv.data != nullptr,
      .stats = plan.stats,
      .tiles = plan.by_key,
      .mask = plan.mask(),
      .head_stats = plan.head_stats(),
      .heads = static_cast<int32_t>(plan.heads),
      .group = static_cast<int32_t>(plan.group()),
      .size = static_cast<int32_t>(plan.size),
      .splits = plan.splits,
      .partials = plan.partials,
      .kept = plan.kept,
      .first_kv_head = 0,
      .some_kv_heads = static_cast<int32_t>(plan.kv_heads),
      .scale = plan.scale,
      .scale2 = plan.scale2,
  };
  if (plan.size <= 64)
    launch<64>(a, plan, args, stream);
  else
    launch<128>(a, plan, args, stream);
}

}  // namespace attune::cuda
