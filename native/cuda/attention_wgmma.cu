// attention, wgmma family: y = softmax(scale q k^T) v per head over the visible keys, lse its log-sum-exp.
// source: lib/ops/attention.ts; Shah et al. 2024 (arXiv:2407.08608), algorithm 2: the scores of the next tile are multiplied while
// the softmax of this one runs, and the two consumers take turns with the tensor cores.
// tiling: a block has 128 queries of one head, 64 a consumer, and walks the tiles of 128 keys that hold a visible pair, last first;
// only tiles on the mask's edge test elements. The heads of a tile are neighbours in the grid, so that those of one kv head share
// its keys in L2; tiles with most keys start first.
// budget: 384 threads, 168 registers (24 for the producer, 240 for consumers), no spills; shared memory 161 KiB (81 KiB at size 64).
// limits: bf16, capability 9.0, head sizes to 128 (padded to 64 or 128 by TMA), scale > 0; keys that nobody sees must be finite.
// measured: not yet.
#include "attention_wgmma.h"

namespace attune::cuda {
namespace {

using namespace hopper;

constexpr int kQueries = kConsumers * kConsumerRows;
constexpr int kKeys = 128;
constexpr int kStages = 2;

struct ForwardArgs {
  __nv_bfloat16* y;
  float* lse;  // (H, N), or null
  const TileWord* words;
  AttentionMask mask;
  int32_t heads, group, size;
  float scale2;
};

template <int Size>
struct Shared {
  using Query = Tile<kQueries, Size>;
  using Keys = Ring<Tile<kKeys, Size>, kStages>;
  static constexpr int kBytes = Query::kBytes + 2 * Keys::kBytes + kBarrierBytes;
  static_assert(kBytes <= kMostShared && (1 + 2 * Keys::kBarriers) * 8 <= kBarrierBytes, "shared memory");
  Query q;
  Keys k, v;
  uint64_t* q_full;

  __device__ explicit Shared(uint8_t* base) {
    uint64_t* const barriers = reinterpret_cast<uint64_t*>(base + Query::kBytes + 2 * Keys::kBytes);
    q = {base};
    k = {base + Query::kBytes, barriers + 1};
    v = {base + Query::kBytes + Keys::kBytes, barriers + 1 + Keys::kBarriers};
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
__global__ void __launch_bounds__(kThreads, 1)
    attention_forward_wgmma(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                            const __grid_constant__ CUtensorMap v_map, const ForwardArgs a) {
  ATTUNE_DYNAMIC_SHARED(base);
  const Shared<Size> shared(base);
  using Turn = typename Shared<Size>::Keys::Turn;
  const int32_t tiles = (a.mask.rows + kQueries - 1) / kQueries, tile = tiles - 1 - static_cast<int32_t>(blockIdx.x / a.heads);
  const int32_t head = blockIdx.x % a.heads, first = tile * kQueries;
  const int32_t key_tiles = (a.mask.rows + kKeys - 1) / kKeys;
  TileWalk walk(a.words + int64_t{tile} * ((key_tiles + 31) / 32), key_tiles);
  if (threadIdx.x == 0) shared.init();
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    ptx::registers_decrease<kProducerRegisters>();
    if (threadIdx.x != 0) return;
    ptx::mbarrier_arrive_expect(shared.q_full, Shared<Size>::Query::kBytes);
    shared.q.load(shared.q_full, &q_map, head, first);
    for (Turn turn; walk.next(); turn.advance()) {
      shared.k.produce(turn, &k_map, head / a.group, walk.tile() * kKeys);
      shared.v.produce(turn, &v_map, head / a.group, walk.tile() * kKeys);
    }
    return;
  }

  ptx::registers_increase<kConsumerRegisters>();
  const int consumer = threadIdx.x / kWarpgroup - 1, own = consumer * kConsumerRows;
  const Place place;
  const TensorCoreTurns tensor_cores{consumer};
  Softmax<kKeys> softmax;
  float out[Size / 2], shrink[2];
  Fragments<kKeys> p;
  clear(out);
  tensor_cores.begin();
  ptx::mbarrier_wait(shared.q_full, 0);
  Turn turn, before;
  bool begun = false;
  while (walk.next()) {
    float score[kKeys / 2];
    const auto k = shared.k.wait(turn);
    tensor_cores.wait();
    ptx::wgmma_fence();
    multiply_transposed<kKeys>(score, shared.q, own, k);
    if (begun) {
      const auto v = shared.v.wait(before);
      ptx::wgmma_fence();
      accumulate(out, p, v);
      tensor_cores.pass();
      ptx::wgmma_wait<1>();
    } else {
      tensor_cores.pass();
      ptx::wgmma_wait<0>();
    }
    shared.k.release(turn);
    if (!walk.all_visible()) hide<kKeys>(score, -INFINITY, a.mask, first + own + place.row, walk.tile() * kKeys + place.column);
    softmax.step(score, a.scale2, shrink);
    ptx::wgmma_wait<0>();
    if (begun) shared.v.release(before);
#pragma unroll
    for (int j = 0; j < Size / 2; ++j) out[j] *= shrink[j / 2 % 2];
    p.pack(score);
    before = turn;
    turn.advance();
    begun = true;
  }
  tensor_cores.end();
  if (begun) {
    const auto v = shared.v.wait(before);
    ptx::wgmma_fence();
    accumulate(out, p, v);
    ptx::wgmma_wait<0>();
  }

  float factor[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float total = softmax.total(i);
    factor[i] = total == 0 ? 0 : 1 / total;
    const int32_t row = first + own + place.row + 8 * i;
    if (a.lse && place.column == 0 && row < a.mask.rows)
      a.lse[int64_t{head} * a.mask.rows + row] = softmax.lse(i, total, a.scale2);
  }
  write<Size>(a.y + head * a.size, int64_t{a.heads} * a.size, first + own, a.mask.rows, a.size, place, out, factor);
}

template <int Size>
void launch(const Attention& a, const AttentionPlan& plan, const ForwardArgs& args, Stream& stream) {
  CUtensorMap q, k, v;
  if (!make_map(&q, a.q, kQueries, stream) || !make_map(&k, a.k, kKeys, stream) || !make_map(&v, a.v, kKeys, stream)) return;
  const int64_t tiles = (plan.rows + kQueries - 1) / kQueries;
  stream.launch("attention_forward_wgmma", attention_forward_wgmma<Size>, static_cast<unsigned>(tiles * plan.heads), kThreads,
                Shared<Size>::kBytes, q, k, v, args);
}

}  // namespace

void attention_wgmma(const Attention& a, const AttentionPlan& plan, Stream& stream) {
  const ForwardArgs args = {a.y.as<__nv_bfloat16>(),
                            a.lse.as<float>(),
                            plan.by_query.words,
                            plan.mask(),
                            static_cast<int32_t>(plan.heads),
                            static_cast<int32_t>(plan.group()),
                            static_cast<int32_t>(plan.size),
                            plan.scale2};
  if (plan.size <= 64)
    launch<64>(a, plan, args, stream);
  else
    launch<128>(a, plan, args, stream);
}

}  // namespace attune::cuda
