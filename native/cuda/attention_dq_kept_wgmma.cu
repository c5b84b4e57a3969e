// attention_backward, wgmma family: dq = scale dS k, where dS was kept by the kernel of dk and dv.
// tiling: a block has 192 queries of one head, 64 a consumer, and walks the tiles of 128 keys in which any of them sees something,
// last first. The producer brings each tile of keys and, for every consumer that has one, its 64 x 128 of dS: whoever wrote a block of
// 8 x 8 held it transposed, and one instruction turns it. There are as many blocks as multiprocessors, and each is dealt such items,
// later queries first: the producer brings the next item's tiles while the consumers finish this one's, and dq leaves by TMA under the
// next item. What bounds it is memory: dS is read once, 2 bytes a pair and head.
// budget: 512 threads of 128 registers (24 for the producer, 160 for consumers), no spills; shared memory 209 KiB at size 128 in two
// stages, 217 KiB at 64 in three. limits: bf16, capability 9.0, head sizes to 128 (padded to 64 or 128 by TMA); keys that nobody sees
// must be finite. measured: with dk and dv, see attention_backward_wgmma.cu.
#include "attention_wgmma.h"
#include "common/grid.h"

namespace attune::cuda {
namespace {

using namespace hopper;

constexpr int kConsumers = 3;
constexpr int kQueries = kConsumers * kConsumerRows;  // of an item
constexpr int kKeys = KeptTiles::kKeys;
constexpr int kKeptRows = KeptTiles::kBytes / kPanelRow;  // as TMA sees a kept tile

struct KeptArgs {
  const TileWord* words;  // of tiles of 64 queries beside tiles of 128 keys
  KeptTiles kept;
  int32_t rows, first_head, heads, group;
  float scale;
};

// A tile of keys, and dS of each consumer.
template <int Size>
struct Stage {
  using Keys = Tile<kKeys, Size>;
  static constexpr int kBytes = Keys::kBytes + kConsumers * KeptTiles::kBytes;
  uint8_t* data;

  __device__ __forceinline__ Keys keys() const { return {data}; }
  __device__ __forceinline__ uint8_t* kept(int consumer) const { return data + Keys::kBytes + consumer * KeptTiles::kBytes; }
};

template <int Size>
using Stages = Ring<Stage<Size>, Size == 64 ? 3 : 2, kConsumers>;
template <int Size>
using Out = Tile<kConsumerRows, Size>;

// The stages, what leaves of each consumer, barriers.
template <int Size>
inline constexpr int kSharedBytes = Stages<Size>::kBytes + kConsumers * Out<Size>::kBytes + kBarrierBytes;

// Walks the tiles of keys that any of three neighbouring tiles of queries sees, from the last to the first.
class KeptWalk {
 public:
  __device__ KeptWalk(const TileWord* words, int32_t query_tiles, int32_t key_tiles)
      : words_(words), rows_(min(kConsumers, query_tiles)), stride_((key_tiles + 31) / 32), word_(stride_) {}

  __device__ bool next() {
    while (left_ == 0) {
      if (word_ == 0) return false;
      --word_;
#pragma unroll
      for (int r = 0; r < kConsumers; ++r) {
        any_[r] = r < rows_ ? words_[int64_t{r} * stride_ + word_].any : 0;
        left_ |= any_[r];
      }
    }
    bit_ = 31 - __clz(static_cast<int>(left_));
    left_ ^= 1u << bit_;
    return true;
  }
  __device__ int32_t tile() const { return word_ * 32 + bit_; }
  // A bit for each of the three tiles of queries.
  __device__ uint32_t seen() const {
    uint32_t bits = 0;
#pragma unroll
    for (int r = 0; r < kConsumers; ++r) bits |= (any_[r] >> bit_ & 1) << r;
    return bits;
  }

 private:
  const TileWord* words_;
  int32_t rows_, stride_, word_, bit_ = 0;
  uint32_t any_[kConsumers] = {}, left_ = 0;
};

// An item: three tiles of 64 queries of one head, and their tiles of keys.
struct KeptItem {
  int32_t local_head, head, first_tile;  // local_head: of those that are kept
  KeptWalk walk;
};

// Calls f(item) for the items that this block is dealt, later queries first; the heads of the same queries are neighbours.
template <class F>
__device__ __forceinline__ void each_kept_item(const KeptArgs& a, F f) {
  const int32_t query_tiles = (a.rows + kConsumerRows - 1) / kConsumerRows, key_tiles = (a.rows + kKeys - 1) / kKeys;
  const int32_t blocks = (a.rows + kQueries - 1) / kQueries;
  each_dealt(blocks * a.heads, [&](int32_t index) {
    const int32_t local_head = index % a.heads, first_tile = (blocks - 1 - index / a.heads) * kConsumers;
    const TileWord* const words = a.words + int64_t{first_tile} * ((key_tiles + 31) / 32);
    f(KeptItem{local_head, a.first_head + local_head, first_tile, KeptWalk(words, query_tiles - first_tile, key_tiles)});
  });
}

// The consumer's dS as operand A: this warp's 16 queries, all keys.
__device__ __forceinline__ void load_kept(Fragments<kKeys>& ds, const uint8_t* tile) {
  const int warp = threadIdx.x / 32 % (kWarpgroup / 32), lane = threadIdx.x % 32;
  // Rows of 128 bytes hold 8 lanes, and TMA has swizzled their chunks: an odd group of keys begins at row 4.
  const int own = lane / 8 * kPanelRow + (lane % 8 ^ lane / 8) * 16;
  constexpr int kGroupBytes = 32 * 16, kGroups = kKeys / kStep;
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    const uint8_t* const from = tile + (warp * kGroups + group) * kGroupBytes + (own ^ (group % 2 * 64));
    const uint4 kept = *reinterpret_cast<const uint4*>(from);  // 8 x 8 blocks (keys, queries): lower and upper queries, keys inside
    ds.at[group][0] = ptx::transpose_8x8(kept.x);
    ds.at[group][1] = ptx::transpose_8x8(kept.z);
    ds.at[group][2] = ptx::transpose_8x8(kept.y);
    ds.at[group][3] = ptx::transpose_8x8(kept.w);
  }
}

template <int Size>
__device__ __forceinline__ void produce(const Stages<Size>& stages, const CUtensorMap* k_map, const CUtensorMap* kept_map,
                                        const KeptArgs& a) {
  typename Stages<Size>::Turn turn;
  each_kept_item(a, [&](KeptItem item) {
    for (; item.walk.next(); turn.advance()) {
      const uint32_t seen = item.walk.seen();
      const Stage<Size> stage = stages.tile(turn);
      uint64_t* const full = stages.begin(turn, Stage<Size>::Keys::kBytes + __popc(seen) * KeptTiles::kBytes);
      stage.keys().load(full, k_map, item.head / a.group, item.walk.tile() * kKeys);
#pragma unroll
      for (int c = 0; c < kConsumers; ++c)
        if (seen >> c & 1) {
          const int64_t row = a.kept.at(item.local_head, item.walk.tile(), item.first_tile + c) * kKeptRows;
          ptx::tma_load_2d(stage.kept(c), kept_map, full, 0, static_cast<int32_t>(row));
        }
    }
  });
}

template <int Size>
__device__ __forceinline__ void consume(const Stages<Size>& stages, uint8_t* outs, const CUtensorMap* dq_map, const KeptArgs& a) {
  const Consumer<kConsumers> consumer;
  const Place place;
  const Out<Size> staging = {outs + consumer.index * Out<Size>::kBytes};
  const float scales[2] = {a.scale, a.scale};
  typename Stages<Size>::Turn turn;
  each_kept_item(a, [&](KeptItem item) {
    float dq[Size / 2];
    clear(dq);
    for (; item.walk.next(); turn.advance()) {
      const Stage<Size> stage = stages.wait(turn);
      if (item.walk.seen() >> consumer.index & 1) {
        Fragments<kKeys> ds;
        load_kept(ds, stage.kept(consumer.index));
        ptx::wgmma_fence();
        accumulate(dq, ds, stage.keys());
        ptx::wgmma_wait<0>();
      }
      stages.release(turn);
    }
    if (consumer.leads()) ptx::tma_store_wait<0>();
    consumer.sync();  // the rows before have left the staging tile
    staging.put(0, place, dq, scales);
    ptx::fence_proxy_async();
    consumer.sync();
    if (consumer.leads()) staging.store(0, dq_map, item.head, (item.first_tile + consumer.index) * kConsumerRows);
  });
  if (consumer.leads()) ptx::tma_store_wait<0>();
}

template <int Size>
__global__ void __launch_bounds__(kThreads<kConsumers>, 1)
    attention_dq_kept_wgmma(const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap kept_map,
                            const __grid_constant__ CUtensorMap dq_map, const __grid_constant__ KeptArgs a) {
  ATTUNE_DYNAMIC_SHARED(base);
  uint8_t* const outs = base + Stages<Size>::kBytes;
  const Stages<Size> stages = {base, reinterpret_cast<uint64_t*>(outs + kConsumers * Out<Size>::kBytes)};
  if (threadIdx.x == 0) {
    prefetch(&k_map, &kept_map, &dq_map);
    stages.init();
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    ptx::registers_decrease<kProducerRegisters>();
    if (threadIdx.x == 0) produce<Size>(stages, &k_map, &kept_map, a);
  } else {
    ptx::registers_increase<kConsumerRegisters<kConsumers>>();
    consume<Size>(stages, outs, &dq_map, a);
  }
}

template <int Size>
void launch(const AttentionBackward& a, const AttentionPlan& plan, int64_t first_head, int64_t heads, Stream& stream) {
  static_assert(kSharedBytes<Size> <= kMostShared && Stages<Size>::kBarriers * 8 <= kBarrierBytes, "shared memory");
  const uint64_t kept_rows = static_cast<uint64_t>(plan.kept_kv_heads * plan.group() * plan.kept.of_head * kKeptRows);
  CUtensorMap k, kept, dq;
  if (!make_map(&k, a.k, kKeys, stream) || !make_map(&dq, a.dq, kConsumerRows, stream) ||
      !make_tensor_map_2d(&kept, plan.kept.data, {kPanel, kept_rows}, {kPanelRow}, {kPanel, kKeptRows}, stream))
    return;
  const KeptArgs args = {
      .words = plan.by_narrow_query.words,
      .kept = plan.kept,
      .rows = static_cast<int32_t>(plan.rows),
      .first_head = static_cast<int32_t>(first_head),
      .heads = static_cast<int32_t>(heads),
      .group = static_cast<int32_t>(plan.group()),
      .scale = plan.scale,
  };
  stream.launch("attention_dq_kept_wgmma", attention_dq_kept_wgmma<Size>, dealt_blocks(ceil_div(plan.rows, kQueries) * heads, stream),
                kThreads<kConsumers>, kSharedBytes<Size>, k, kept, dq, args);
}

}  // namespace

void launch_dq_kept_wgmma(const AttentionBackward& a, const AttentionPlan& plan, int64_t first_head, int64_t heads, Stream& stream) {
  if (plan.size <= 64)
    launch<64>(a, plan, first_head, heads, stream);
  else
    launch<128>(a, plan, first_head, heads, stream);
}

}  // namespace attune::cuda
