// attention, wgmma family: y = softmax(scale q k^T) v per head over the visible keys, lse its log-sum-exp.
// source: lib/ops/attention.ts; Shah et al. 2024 (arXiv:2407.08608), algorithm 2: the scores of the next tile are multiplied while
// the softmax of this one runs, and the two consumers take turns with the tensor cores.
// tiling: a block has 128 queries of one head (192 at head size 64), 64 a consumer, and walks the tiles of 128 keys that hold a
// visible pair, last first; only tiles on the mask's edge test elements. There are as many blocks as multiprocessors, and each is
// dealt such items, longest first: the first scores of an item are multiplied with the last values of the one before, whose y leaves by
// TMA under it. The heads of a tile are neighbours, so that those of one kv head share its keys in L2.
// budget: 384 threads of 168 registers (24 for the producer, 240 for consumers), 227 KiB of shared memory; at head size 64 512 threads
// of 128 (24 and 160), 205 KiB; no spills.
// limits: bf16, capability 9.0, head sizes to 128 (padded to 64 or 128 by TMA), scale > 0; keys that nobody sees must be finite.
// measured: H200, 32/8 heads, D 128: causal 8k 607 to 647 TFLOP/s by the card, packed 8 x 2k 516 to 534, trees 570 to 580; D 64, 14/2 heads,
// causal 8k: 454 to 460. bench/results.
#include "attention_wgmma.h"

namespace attune::cuda {
namespace {

using namespace hopper;

constexpr int kKeys = 128;  // of a tile

template <int Size>
inline constexpr int kQueries = forward_queries(Size);
template <int Size>
inline constexpr int kConsumers = kQueries<Size> / kConsumerRows;
template <int Size>
inline constexpr int kStages = Size == 64 ? 4 : 2;

using Ends = Table<int32_t, kKeys>;

struct ForwardArgs {
  float* lse;  // (H, N), or null
  TileTable tiles;
  AttentionMask mask;
  int32_t heads, group;
  float scale2;
};

template <int Size>
struct Shared {
  using Queries = Ring<Tile<kQueries<Size>, Size>, 2, kConsumers<Size>>;
  using Keys = Ring<LabelledTile<Ends, kKeys, Size>, kStages<Size>, kConsumers<Size>>;  // labelled with their ends
  using Values = Ring<Tile<kKeys, Size>, kStages<Size>, kConsumers<Size>>;
  using Out = Tile<kConsumerRows, Size>;
  static constexpr int kBytes = Queries::kBytes + Keys::kBytes + Values::kBytes + kConsumers<Size> * Out::kBytes + kBarrierBytes;
  static_assert(kBytes <= kMostShared && (Queries::kBarriers + 2 * Keys::kBarriers) * 8 <= kBarrierBytes, "shared memory");
  Queries q;
  Keys k;
  Values v;
  uint8_t* outs;

  __device__ explicit Shared(uint8_t* base) {
    uint8_t* const keys = base + Queries::kBytes;
    outs = keys + Keys::kBytes + Values::kBytes;
    uint64_t* const barriers = reinterpret_cast<uint64_t*>(outs + kConsumers<Size> * Out::kBytes);
    q = {base, barriers};
    k = {keys, barriers + Queries::kBarriers};
    v = {keys + Keys::kBytes, barriers + Queries::kBarriers + Keys::kBarriers};
  }
  __device__ void init() const {
    q.init();
    k.init();
    v.init();
    ptx::fence_barrier_init();
  }
  __device__ Out out(int consumer) const { return {outs + consumer * Out::kBytes}; }
};

template <int Size>
__device__ __forceinline__ void produce(const Shared<Size>& shared, const CUtensorMap* q_map, const CUtensorMap* k_map,
                                        const CUtensorMap* v_map, const CUtensorMap* ends_map, const ForwardArgs& a) {
  typename Shared<Size>::Queries::Turn q_turn;
  typename Shared<Size>::Keys::Turn turn;
  each_item<kQueries<Size>, kKeys>(a, [&](Item item) {
    shared.q.produce(q_turn, q_map, item.head, item.first);
    q_turn.advance();
    for (; item.walk.next(); turn.advance()) {
      const int32_t key = item.walk.tile() * kKeys;
      shared.k.produce(turn, k_map, ends_map, item.kv_head, key, key / Ends::kRowValues);
      shared.v.produce(turn, v_map, item.kv_head, key);
    }
  });
}

template <int Size>
__device__ __forceinline__ void consume(const Shared<Size>& shared, const CUtensorMap* y_map, const ForwardArgs& a) {
  const Consumer<kConsumers<Size>> consumer;
  const Place place;
  const auto staging = shared.out(consumer.index);
  typename Shared<Size>::Queries::Turn q_turn;
  typename Shared<Size>::Keys::Turn turn, before;
  Softmax<kKeys> softmax;
  Fragments<kKeys> p;  // of the tile before, whose product with V is to come
  float out[Size / 2], score[kKeys / 2], shrink[2];
  int32_t head = 0, first_row = 0;  // whose sums those are
  bool begun = false;

  const auto multiply_scores = [&](const auto& q, const auto& k) {
    consumer.wait_turn();
    ptx::wgmma_fence();
    multiply_transposed<kKeys>(score, q, consumer.first_row(), k.rows());
  };
  const auto multiply_values = [&] {
    const auto v = shared.v.wait(before);
    ptx::wgmma_fence();
    accumulate(out, p, v);
  };
  // The scores become exponentials, and their keys may go.
  const auto exponentiate = [&](const TileWalk& walk, const auto& k) {
    if (!walk.all_visible())
      hide<kKeys>(score, -INFINITY, a.mask, k.labels(), place.column, first_row + place.row, walk.tile() * kKeys + place.column);
    shared.k.release(turn);
    softmax.step(score, a.scale2, shrink);
  };
  const auto finish = [&] {
    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float total = softmax.total(i);
      factor[i] = total == 0 ? 0 : 1 / total;
      const int32_t row = first_row + place.row + 8 * i;
      if (a.lse && place.column == 0 && row < a.mask.rows)
        a.lse[int64_t{head} * a.mask.rows + row] = softmax.lse(i, total, a.scale2);
    }
    if (consumer.leads()) ptx::tma_store_wait<0>();
    consumer.sync();  // the rows before have left the staging tile
    staging.put(0, place, out, factor);
    ptx::fence_proxy_async();
    consumer.sync();
    if (consumer.leads()) staging.store(0, y_map, head, first_row);
  };

  consumer.begin_turns();
  each_item<kQueries<Size>, kKeys>(a, [&](Item item) {
    item.walk.next();
    const auto q = shared.q.wait(q_turn);
    const auto first = shared.k.wait(turn);
    multiply_scores(q, first);
    if (begun) multiply_values();  // the last of the item before
    consumer.pass_turn();
    ptx::wgmma_wait<0>();
    if (begun) {
      shared.v.release(before);
      finish();
    }
    softmax = {};
    clear(out);
    head = item.head;
    first_row = item.first + consumer.first_row();
    exponentiate(item.walk, first);
    p.pack(score);
    before = turn;
    begun = true;
    for (turn.advance(); item.walk.next(); turn.advance()) {
      const auto k = shared.k.wait(turn);
      multiply_scores(q, k);
      multiply_values();
      consumer.pass_turn();
      ptx::wgmma_wait<1>();  // the scores; the product with V runs under the softmax
      exponentiate(item.walk, k);
      ptx::wgmma_wait<0>();
      shared.v.release(before);
#pragma unroll
      for (int x = 0; x < Size / 2; ++x) out[x] *= shrink[x / 2 % 2];
      p.pack(score);
      before = turn;
    }
    shared.q.release(q_turn);
    q_turn.advance();
  });
  multiply_values();
  ptx::wgmma_wait<0>();
  shared.v.release(before);
  finish();
  consumer.end_turns();
  if (consumer.leads()) ptx::tma_store_wait<0>();
}

template <int Size>
__global__ void __launch_bounds__(kThreads<kConsumers<Size>>, 1)
    attention_forward_wgmma(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                            const __grid_constant__ CUtensorMap v_map, const __grid_constant__ CUtensorMap ends_map,
                            const __grid_constant__ CUtensorMap y_map, const __grid_constant__ ForwardArgs a) {
  ATTUNE_DYNAMIC_SHARED(base);
  const Shared<Size> shared(base);
  if (threadIdx.x == 0) {
    prefetch(&q_map, &k_map, &v_map, &ends_map, &y_map);
    shared.init();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    ptx::registers_decrease<kProducerRegisters>();
    if (threadIdx.x == 0) produce<Size>(shared, &q_map, &k_map, &v_map, &ends_map, a);
  } else {
    ptx::registers_increase<kConsumerRegisters<kConsumers<Size>>>();
    consume<Size>(shared, &y_map, a);
  }
}

template <int Size>
void launch(const Attention& a, const AttentionPlan& plan, const ForwardArgs& args, Stream& stream) {
  CUtensorMap q, k, v, ends, y;
  if (!make_map(&q, a.q, kQueries<Size>, stream) || !make_map(&k, a.k, kKeys, stream) || !make_map(&v, a.v, kKeys, stream) ||
      !make_labels_map<Ends>(&ends, plan.end, plan.padded, stream) || !make_map(&y, a.y, kConsumerRows, stream))
    return;
  const int64_t items = (plan.rows + kQueries<Size> - 1) / kQueries<Size> * plan.heads;
  stream.launch("attention_forward_wgmma", attention_forward_wgmma<Size>, dealt_blocks(items, stream), kThreads<kConsumers<Size>>,
                Shared<Size>::kBytes, q, k, v, ends, y, args);
}

}  // namespace

void attention_wgmma(const Attention& a, const AttentionPlan& plan, Stream& stream) {
  const ForwardArgs args = {
      .lse = a.lse.as<float>(),
      .tiles = plan.by_query,
      .mask = plan.mask(),
      .heads = static_cast<int32_t>(plan.heads),
      .group = static_cast<int32_t>(plan.group()),
      .scale2 = plan.scale2,
  };
  if (plan.size <= 64)
    launch<64>(a, plan, args, stream);
  else
    launch<128>(a, plan, args, stream);
}

}  // namespace attune::cuda
