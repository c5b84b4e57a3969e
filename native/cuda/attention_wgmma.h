// Tiles of the wgmma family of attention (sm_90a): bf16 tiles that TMA brings into shared memory in panels of 64 columns, products of
// whole tiles on the tensor cores with accumulators in registers, and the ring of barriers between the producer and the consumers.
//
// A block is a producer, a warpgroup that brings tiles, and two or three consumers of 64 rows each. Registers move from the producer
// to the consumers. The accumulator of a product is laid out as the A operand of the next one wants it: P and dS stay in registers.
#pragma once
#include <algorithm>

#include "attention_rows.h"
#include "common/ptx.h"
#include "common/tensor_map.h"

namespace attune::cuda::hopper {

constexpr int kConsumerRows = 64;  // wgmma's M
constexpr int kProducerRegisters = 24;
// All of a multiprocessor's 64 K registers, less what the producer keeps.
template <int Consumers>
inline constexpr int kConsumerRegisters = (65536 / kWarpgroup - kProducerRegisters) / Consumers / 8 * 8;
template <int Consumers>
inline constexpr int kThreads = (1 + Consumers) * kWarpgroup;

constexpr int kPanel = 64;       // columns of a panel
constexpr int kPanelRow = 128;   // bytes: one swizzled row
constexpr int kBarrierBytes = 256;
constexpr int kMostShared = 227 * 1024;

// (Rows, Size) of bf16 in shared memory. Columns from the head size on are zeros, as are rows beyond the tensor.
template <int Rows, int Size>
struct Tile {
  static constexpr int kPanels = Size / kPanel;
  static constexpr int kPanelBytes = Rows * kPanelRow;
  static constexpr int kBytes = kPanels * kPanelBytes;  // of shared memory
  static constexpr int kLoaded = kBytes;                // that TMA brings
  uint8_t* data;

  // Rows `row`... of one head, by one thread; the bytes land at the barrier.
  __device__ __forceinline__ void load(uint64_t* barrier, const CUtensorMap* map, int32_t head, int32_t row) const {
#pragma unroll
    for (int p = 0; p < kPanels; ++p) ptx::tma_load_3d(data + p * kPanelBytes, map, barrier, p * kPanel, head, row);
  }
  // Queues 64 rows from the tile's `from` on to the tensor's `row`... of one head, by one thread; only what the tensor has.
  __device__ __forceinline__ void store(int from, const CUtensorMap* map, int32_t head, int32_t row) const {
#pragma unroll
    for (int p = 0; p < kPanels; ++p) ptx::tma_store_3d(map, data + p * kPanelBytes + from * kPanelRow, p * kPanel, head, row);
    ptx::tma_store_commit();
  }
  // The thread's values x[4 j + 2 i + c] * factor[i], to the 64 rows from `row` on (a multiple of 8).
  __device__ __forceinline__ void put(int row, Place place, const float (&x)[Size / 2], const float (&factor)[2]) const {
    uint8_t* const own = data + (row + place.row) * kPanelRow + place.column * 2;
    const int swizzle = place.row % 8;
#pragma unroll
    for (int j = 0; j < Size / 8; ++j)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        *reinterpret_cast<uint32_t*>(own + j / 8 * kPanelBytes + 8 * i * kPanelRow + (j % 8 ^ swizzle) * 16) =
            ptx::pack_bf16(x[4 * j + 2 * i] * factor[i], x[4 * j + 2 * i + 1] * factor[i]);
  }
  // 64 rows from `row` on as operand A in registers.
  __device__ __forceinline__ Fragments<Size> fragments(int row) const {
    const int lane = threadIdx.x % 32, own = row + threadIdx.x % kWarpgroup / 32 * 16 + lane % 16;
    Fragments<Size> f;
#pragma unroll
    for (int step = 0; step < Size / kStep; ++step) {
      constexpr int kSteps = kPanel / kStep;
      const int chunk = step % kSteps * 2 + lane / 16;
      ptx::ldmatrix_x4(f.at[step], data + step / kSteps * kPanelBytes + own * kPanelRow + (chunk ^ own % 8) * 16);
    }
    return f;
  }
  // As an operand whose product sums over the columns: rows from `row` on, the `step`th 16 columns.
  __device__ __forceinline__ uint64_t over_columns(int row, int step) const {
    constexpr int kSteps = kPanel / kStep;
    return ptx::wgmma_descriptor(data + step / kSteps * kPanelBytes + row * kPanelRow + step % kSteps * kStep * 2, 16, 1024);
  }
  // As an operand whose product sums over the rows: the `step`th 16 rows, all columns.
  __device__ __forceinline__ uint64_t over_rows(int step) const {
    return ptx::wgmma_descriptor(data + step * kStep * kPanelRow, kPanelBytes, 1024);
  }
};

// Count values of T that TMA brings in rows of 128 bytes, swizzled in chunks of 16, as bits that are only moved.
template <class T, int Count>
struct Table {
  static constexpr int kRowValues = kPanelRow / static_cast<int>(sizeof(T));
  static constexpr int kRows = Count / kRowValues;
  static constexpr int kBytes = kRows * kPanelRow;
  static_assert(kRows <= 8, "the swizzle repeats after eight rows");
  uint8_t* data;

  // The value at at + column and the next: Two is what holds both. at: a multiple of 8, constant where the loop is unrolled; column:
  // 0, 2, 4 or 6. Eight values are two chunks, which an odd swizzle exchanges: all the rest of the address is constant.
  template <class Two>
  __device__ __forceinline__ Two two(int at, int column) const {
    static_assert(sizeof(T) == 4);
    const int row = at / kRowValues, chunk = at % kRowValues / 4 ^ row, next = chunk % 2 == 0 ? 16 : -16;
    return *reinterpret_cast<const Two*>(data + row * kPanelRow + chunk * 16 + column / 4 * next + column % 4 * 4);
  }
};

// A tile and a table of values for its rows.
template <class Table, int Rows, int Size>
struct LabelledTile {
  using Labels = Table;
  static constexpr int kLoaded = Tile<Rows, Size>::kBytes + Labels::kBytes;
  static constexpr int kBytes = Tile<Rows, Size>::kBytes + 1024;  // what is swizzled begins at a multiple of 1024
  uint8_t* data;

  __device__ __forceinline__ Tile<Rows, Size> rows() const { return {data}; }
  __device__ __forceinline__ Labels labels() const { return {data + Tile<Rows, Size>::kBytes}; }
  // labels_row: the row of the labels' map where those of `row` are.
  __device__ __forceinline__ void load(uint64_t* barrier, const CUtensorMap* map, const CUtensorMap* labels_map, int32_t head,
                                       int32_t row, int32_t labels_row) const {
    rows().load(barrier, map, head, row);
    ptx::tma_load_2d(labels().data, labels_map, barrier, 0, labels_row);
  }
};

// Queues product (64, N) = a[row ...] b^T, over the Size columns of both.
template <int N, int Size, int Rows>
__device__ __forceinline__ void multiply_transposed(float (&product)[N / 2], Tile<Rows, Size> a, int row, Tile<N, Size> b) {
#pragma unroll
  for (int step = 0; step < Size / kStep; ++step)
    ptx::wgmma<N>(product, a.over_columns(row, step), b.over_columns(0, step), step > 0);
  ptx::wgmma_commit();
}

// The same with a in registers: half the reads of shared memory, which bounds products of 64 columns.
template <int N, int Size>
__device__ __forceinline__ void multiply_transposed(float (&product)[N / 2], const Fragments<Size>& a, Tile<N, Size> b) {
#pragma unroll
  for (int step = 0; step < Size / kStep; ++step) ptx::wgmma<N>(product, a.at[step], b.over_columns(0, step), step > 0);
  ptx::wgmma_commit();
}

// Queues sum (64, Size) += p (64, K) b (K, Size).
template <int Size, int K>
__device__ __forceinline__ void accumulate(float (&sum)[Size / 2], const Fragments<K>& p, Tile<K, Size> b) {
#pragma unroll
  for (int step = 0; step < K / kStep; ++step) ptx::wgmma<Size, true>(sum, p.at[step], b.over_rows(step), true);
  ptx::wgmma_commit();
}

// A stage of a ring and the parity of the round it is in.
template <int Stages>
struct Turn {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == Stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Tiles of one kind on their way: the producer fills a stage when every warp of the consumers has left it.
template <class T, int Stages, int Consumers>
struct Ring {
  using Turn = hopper::Turn<Stages>;
  static constexpr int kBytes = Stages * T::kBytes;
  static constexpr int kBarriers = 2 * Stages;
  uint8_t* tiles;
  uint64_t* barriers;  // full (Stages), empty (Stages)

  __device__ __forceinline__ void init() const {
    for (int s = 0; s < Stages; ++s) {
      ptx::mbarrier_init(barriers + s, 1);
      ptx::mbarrier_init(barriers + Stages + s, Consumers * kWarpgroup / 32);
    }
  }
  __device__ __forceinline__ T tile(Turn turn) const { return T{tiles + turn.stage * T::kBytes}; }
  // where: what T's load takes after the barrier.
  template <class... Where>
  __device__ __forceinline__ void produce(Turn turn, Where... where) const {
    tile(turn).load(begin(turn, T::kLoaded), where...);
  }
  // Waits until the stage is free and announces what it will get; returns the barrier.
  __device__ __forceinline__ uint64_t* begin(Turn turn, uint32_t loaded) const {
    ptx::mbarrier_wait(barriers + Stages + turn.stage, turn.parity ^ 1);
    ptx::mbarrier_arrive_expect(barriers + turn.stage, loaded);
    return barriers + turn.stage;
  }
  __device__ __forceinline__ T wait(Turn turn) const {
    ptx::mbarrier_wait(barriers + turn.stage, turn.parity);
    return tile(turn);
  }
  // By each consumer warp, after its own wait for the products that read the tile: other warps may still be reading, and so may the
  // other lanes, where they read labels.
  __device__ __forceinline__ void release(Turn turn) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(barriers + Stages + turn.stage);
  }
};

// Named barriers of a block: 1... are the consumers' turns, the next ones the consumers' own.
template <int Consumers>
struct Consumer {
  int index;

  // Read from lane 0, so that the compiler knows it to be the same for the warp, and descriptors stay in uniform registers.
  __device__ Consumer() : index(__shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroup - 1, 0)) {}
  __device__ __forceinline__ int first_row() const { return index * kConsumerRows; }
  __device__ __forceinline__ bool leads() const { return threadIdx.x % kWarpgroup == 0; }
  // All threads of this consumer meet.
  __device__ __forceinline__ void sync() const { ptx::named_barrier_sync(1 + Consumers + index, kWarpgroup); }

  // The consumers take turns with the tensor cores, so that one multiplies while the others exponentiate. All take equally many
  // turns; the first also waits once at the end, for the turn that nobody takes.
  __device__ __forceinline__ void begin_turns() const {
    if (index == Consumers - 1) pass_turn();
  }
  __device__ __forceinline__ void wait_turn() const { ptx::named_barrier_sync(1 + index, 2 * kWarpgroup); }
  __device__ __forceinline__ void pass_turn() const { ptx::named_barrier_arrive(1 + (index + 1) % Consumers, 2 * kWarpgroup); }
  __device__ __forceinline__ void end_turns() const {
    if (index == 0) wait_turn();
  }
};

// A tensor (N, heads, size) in boxes of `rows` rows of 64 columns of one head.
inline bool make_map(CUtensorMap* map, const Tensor& x, uint32_t rows, Stream& stream) {
  const uint64_t size = x.shape[2], heads = x.shape[1], tokens = x.shape[0];
  return make_tensor_map_3d(map, x.data, {size, heads, tokens}, {size * 2, heads * size * 2}, {kPanel, 1, rows}, stream);
}

// Calls f(index) for those of so many items that this block is dealt. The direction alternates, so that where the longest come first no
// block has the longer one every time.
template <class F>
__device__ __forceinline__ void each_dealt(int32_t items, F f) {
  for (int32_t dealt = 0, round = 0; dealt < items; dealt += gridDim.x, ++round) {
    const int32_t index = dealt + static_cast<int32_t>(round % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x);
    if (index < items) f(index);
  }
}

// An item of a walk by query: a tile of queries of one head, and the tiles of keys beside it.
struct Item {
  int32_t head, kv_head, first;
  TileWalk walk;
};

// Calls f(item) for the items that this block is dealt, longest first; the heads of a tile are neighbours. Args: the kernel's, with
// tiles, mask, heads and group.
template <int Queries, int Keys, class Args, class F>
__device__ __forceinline__ void each_item(const Args& a, F f) {
  const int32_t tiles = (a.mask.rows + Queries - 1) / Queries, key_tiles = (a.mask.rows + Keys - 1) / Keys;
  each_dealt(tiles * a.heads, [&](int32_t index) {
    const int32_t tile = a.tiles.order[index / a.heads], head = index % a.heads;
    f(Item{head, head / a.group, tile * Queries, TileWalk(a.tiles.words + int64_t{tile} * ((key_tiles + 31) / 32), key_tiles)});
  });
}

// Blocks for so many items, where one fits a multiprocessor.
inline unsigned dealt_blocks(int64_t items, const Stream& stream) {
  return static_cast<unsigned>(std::min<int64_t>(items, stream.device().sms));
}

// By one thread at a kernel's start: the first load by a map then finds it in the cache.
template <class... Maps>
__device__ __forceinline__ void prefetch(const Maps*... maps) {
  (ptx::prefetch_tensor_map(maps), ...);
}

// Labels of tiles of `Count` rows, one after the other from `values` on.
template <class Labels>
bool make_labels_map(CUtensorMap* map, const void* values, int64_t count, Stream& stream) {
  const uint64_t rows = count / Labels::kRowValues;
  return make_tensor_map_2d(map, values, {kPanel, rows}, {kPanelRow}, {kPanel, Labels::kRows}, stream);
}

}  // namespace attune::cuda::hopper
