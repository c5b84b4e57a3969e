// The probes of capability 9.0: mbarriers, TMA, wgmma. Their shared tiles are dumped or filled element by element at the places where the
// manual's swizzle puts them, so that both directions are held to it.
#include <cstdlib>

#include "../cuda/common/prelude.h"
#include "../cuda/common/ptx.h"
#include "../cuda/common/tensor_map.h"
#include "probes.h"

namespace attune::probes {
namespace {

using namespace cuda;

// Where byte `offset` of a 1024-byte aligned tile of 128-byte rows lies under SWIZZLE_128B: bits 4 to 6 take in bits 7 to 9.
__host__ __device__ constexpr int swizzled(int offset) { return offset ^ ((offset >> 7 & 7) << 4); }

__device__ uint16_t bits_of(const uint8_t* tile, int offset) { return *reinterpret_cast<const uint16_t*>(tile + offset); }
__device__ void put(uint8_t* tile, int offset, uint16_t bits) { *reinterpret_cast<uint16_t*>(tile + offset) = bits; }

// ---- mbarrier: rounds of all threads writing and reading a neighbour's word; two barriers, so that parities alternate.

constexpr int kRounds = 5;

__global__ void mbarrier_kernel(int* out) {
  ATTUNE_SHARED(uint64_t, written, 1);
  ATTUNE_SHARED(uint64_t, read, 1);
  ATTUNE_SHARED(int, words, 96);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    ptx::mbarrier_init(written, 96);
    ptx::mbarrier_init(read, 3);  // one arrival per warp
    ptx::fence_barrier_init();
  }
  __syncthreads();
  int sum = 0;
  for (int round = 0; round < kRounds; ++round) {
    ptx::mbarrier_wait(read, (round & 1) ^ 1);  // a fresh barrier lets parity 1 through
    words[thread] = thread * 10 + round;
    ptx::mbarrier_arrive(written);
    ptx::mbarrier_wait(written, round & 1);
    sum += words[(thread + 40) % 96];
    __syncwarp();
    if (thread % 32 == 0) ptx::mbarrier_arrive(read);
  }
  out[thread] = sum;
}

std::string mbarrier(Stream& stream) {
  Buffer<int> out(96, 0);
  stream.launch("mbarrier", mbarrier_kernel, dim3(1), dim3(96), 0, out.data());
  std::vector<int> expected(96);
  for (int i = 0; i < 96; ++i) expected[static_cast<size_t>(i)] = (i + 40) % 96 * 10 * kRounds + kRounds * (kRounds - 1) / 2;
  return differ(out.read(stream), expected, "thread");
}

// ---- TMA loads: the tile as it lies in shared memory. Elements are 1 + their index in the tensor; zero outside.

template <int Rank> __global__ void tma_load_kernel(const __grid_constant__ CUtensorMap map, uint16_t* out, int3 at, int elements) {
  ATTUNE_DYNAMIC_SHARED(tile);
  ATTUNE_SHARED(uint64_t, landed, 1);
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(landed, 1);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::prefetch_tensor_map(&map);
    ptx::mbarrier_arrive_expect(landed, static_cast<uint32_t>(elements) * 2);
    if constexpr (Rank == 2)
      ptx::tma_load_2d(tile, &map, landed, at.x, at.y);
    else
      ptx::tma_load_3d(tile, &map, landed, at.x, at.y, at.z);
  }
  ptx::mbarrier_wait(landed, 0);
  for (int i = static_cast<int>(threadIdx.x); i < elements; i += static_cast<int>(blockDim.x)) out[i] = bits_of(tile, i * 2);
}

struct TensorCase {
  uint32_t extents[3], pitch[2];  // pitch: elements from one row, one plane, to the next
  uint32_t box[3];
  int3 at;
};
// Within; beyond the end of every axis; before the beginning; an inner extent short of the box, as a head of 40 padded to 64.
const TensorCase kCases[] = {
    {{128, 40, 1}, {136, 0}, {64, 16, 1}, {64, 8, 0}},  {{100, 40, 1}, {104, 0}, {64, 16, 1}, {64, 32, 0}},
    {{128, 40, 1}, {128, 0}, {64, 16, 1}, {-8, -5, 0}}, {{40, 3, 20}, {40, 120}, {64, 1, 16}, {0, 2, 9}},
    {{64, 5, 12}, {64, 320}, {64, 2, 8}, {0, 4, -3}},
};

// The element of the tensor that belongs at index i of a box, or -1.
int64_t source_of(const TensorCase& c, uint32_t i) {
  const int64_t x = c.at.x + static_cast<int64_t>(i % c.box[0]), y = c.at.y + static_cast<int64_t>(i / c.box[0] % c.box[1]),
                z = c.at.z + static_cast<int64_t>(i / (c.box[0] * c.box[1]));
  if (x < 0 || y < 0 || z < 0 || x >= c.extents[0] || y >= c.extents[1] || z >= c.extents[2]) return -1;
  return x + y * c.pitch[0] + z * c.pitch[1];
}
size_t elements_of(const TensorCase& c) {
  return c.pitch[1] ? size_t{c.pitch[1]} * c.extents[2] : size_t{c.pitch[0]} * c.extents[1];
}
bool make_map(CUtensorMap* map, const TensorCase& c, const void* base, Stream& stream) {
  if (c.pitch[1])
    return make_tensor_map_3d(map, base, {c.extents[0], c.extents[1], c.extents[2]}, {c.pitch[0] * 2ull, c.pitch[1] * 2ull},
                              {c.box[0], c.box[1], c.box[2]}, stream);
  return make_tensor_map_2d(map, base, {c.extents[0], c.extents[1]}, {c.pitch[0] * 2ull}, {c.box[0], c.box[1]}, stream);
}

std::string tma_load(Stream& stream) {
  for (size_t which = 0; which < std::size(kCases); ++which) {
    const TensorCase& c = kCases[which];
    std::vector<uint16_t> values(elements_of(c));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i + 1);
    const uint32_t count = c.box[0] * c.box[1] * c.box[2];
    const Buffer<uint16_t> from(values);
    Buffer<uint16_t> out(count, 0xFFFF);
    CUtensorMap map;
    if (!make_map(&map, c, from.data(), stream)) return "no map";
    stream.launch("tma_load", c.pitch[1] ? tma_load_kernel<3> : tma_load_kernel<2>, dim3(1), dim3(64), count * 2, map, out.data(), c.at,
                  static_cast<int>(count));
    std::vector<uint16_t> expected(count);
    for (uint32_t i = 0; i < count; ++i) {
      const int64_t source = source_of(c, i);
      expected[static_cast<size_t>(swizzled(static_cast<int>(i) * 2)) / 2] = source < 0 ? uint16_t{0} : values[static_cast<size_t>(source)];
    }
    const std::string wrong = differ(out.read(stream), expected, ("case " + std::to_string(which) + ", element").c_str());
    if (!wrong.empty()) return wrong;
  }
  return "";
}

// ---- TMA stores: the tile holds 1 + index of the box; beyond the end nothing is written. Rows are whole 16 bytes, since others are overrun,
// and no coordinate is negative, since that is an illegal instruction (both seen on an H200).

template <int Rank> __global__ void tma_store_kernel(const __grid_constant__ CUtensorMap map, int3 at, int elements) {
  ATTUNE_DYNAMIC_SHARED(tile);
  for (int i = static_cast<int>(threadIdx.x); i < elements; i += static_cast<int>(blockDim.x))
    put(tile, swizzled(i * 2), static_cast<uint16_t>(i + 1));
  ptx::fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    if constexpr (Rank == 2)
      ptx::tma_store_2d(&map, tile, at.x, at.y);
    else
      ptx::tma_store_3d(&map, tile, at.x, at.y, at.z);
    ptx::tma_store_commit();
    ptx::tma_store_wait<0>();
  }
}

template <int Case> std::string tma_store(Stream& stream) {
  TensorCase c = kCases[Case];
  c.extents[0] = (c.extents[0] + 7) / 8 * 8;
  c.at = {std::abs(c.at.x), std::abs(c.at.y), std::abs(c.at.z)};
  const uint32_t count = c.box[0] * c.box[1] * c.box[2];
  std::vector<uint16_t> expected(elements_of(c), 0xAAAA);
  Buffer<uint16_t> out(expected);
  CUtensorMap map;
  if (!make_map(&map, c, out.data(), stream)) return "no map";
  stream.launch("tma_store", c.pitch[1] ? tma_store_kernel<3> : tma_store_kernel<2>, dim3(1), dim3(64), count * 2, map, c.at,
                static_cast<int>(count));
  for (uint32_t i = 0; i < count; ++i)
    if (const int64_t to = source_of(c, i); to >= 0) expected[static_cast<size_t>(to)] = static_cast<uint16_t>(i + 1);
  return differ(out.read(stream), expected, "element");
}

// ---- What the driver refuses to encode.

std::string tensor_map_refusals(Stream& stream) {
  const Buffer<uint16_t> memory(64 * 64, 0);
  CUtensorMap map;
  const auto refused = [&](const void* base, uint64_t rows, uint64_t stride, uint32_t inner, uint32_t outer) {
    Stream other(stream.handle(), stream.device());
    return !make_tensor_map_2d(&map, base, {64, rows}, {stride}, {inner, outer}, other) && !other.ok();
  };
  if (refused(memory.data(), 64, 128, 64, 64)) return "a good map is refused";
  if (!refused(memory.data(), 0, 128, 64, 64)) return "an extent of zero is taken";
  if (!refused(memory.data() + 1, 64, 128, 64, 32)) return "a base at 2 bytes is taken";
  if (!refused(memory.data(), 64, 136, 64, 64)) return "a stride of 136 bytes is taken";
  if (!refused(memory.data(), 64, 128, 64, 257)) return "a box of 257 rows is taken";
  if (!refused(memory.data(), 64, 128, 128, 64)) return "rows of 256 bytes are taken";
  return "";
}

// ---- wgmma: d (64, N) = a (64, 64) b (64, N) in four k-steps, small integers. Panels are filled by plain stores.

constexpr int kDepth = 64;

__host__ __device__ int value_a(int row, int k) { return (row * 7 + k * 3 + row * k) % 9 - 4; }
__host__ __device__ int value_b(int k, int column) { return (column * 5 + k * 11 + column * k) % 9 - 4; }

// Byte of element (mn, k) in an operand of `extent` rows or columns, 64 deep. K-major: a panel is (extent, 64). MN-major: panels of 64
// columns, each (64 k, 64).
__device__ int place(bool transposed, int mn, int k) {
  return transposed ? mn / 64 * (kDepth * 128) + swizzled(k * 128 + mn % 64 * 2) : swizzled(mn * 128 + k * 2);
}
// The descriptor of k-step `step`.
__device__ uint64_t step_of(const uint8_t* operand, bool transposed, int step) {
  return transposed ? ptx::wgmma_descriptor(operand + step * 2048, kDepth * 128, 1024)
                    : ptx::wgmma_descriptor(operand + step * 32, 16, 1024);
}

enum class Left { shared, shared_transposed, registers };

template <int N, Left left, bool TransposeB> __global__ void __launch_bounds__(128) wgmma_kernel(float* out) {
  ATTUNE_DYNAMIC_SHARED(tile);
  uint8_t* a = tile;
  uint8_t* b = tile + 64 * 128;
  constexpr bool kTransposeA = left == Left::shared_transposed;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  for (int i = thread; i < 64 * kDepth; i += 128)
    put(a, place(kTransposeA, i / kDepth, i % kDepth), __bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value_a(i / kDepth, i % kDepth)))));
  for (int i = thread; i < N * kDepth; i += 128)
    put(b, place(TransposeB, i / kDepth, i % kDepth), __bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value_b(i % kDepth, i / kDepth)))));
  uint32_t fragments[kDepth / 16][4];
  for (int step = 0; step < kDepth / 16; ++step)
    for (int j = 0; j < 2; ++j)
      for (int i = 0; i < 2; ++i) {
        const int row = 16 * warp + lane / 4 + 8 * i, k = 16 * step + 8 * j + 2 * (lane % 4);
        fragments[step][2 * j + i] = ptx::pack_bf16(static_cast<float>(value_a(row, k)), static_cast<float>(value_a(row, k + 1)));
      }
  ptx::fence_proxy_async();
  __syncthreads();

  float d[N / 2];
  for (int i = 0; i < N / 2; ++i) d[i] = 1000.f;  // the first step must not add it
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < kDepth / 16; ++step) {
    if constexpr (left == Left::registers)
      ptx::wgmma<N, TransposeB>(d, fragments[step], step_of(b, TransposeB, step), step > 0);
    else
      ptx::wgmma<N, TransposeB, kTransposeA>(d, step_of(a, kTransposeA, step), step_of(b, TransposeB, step), step > 0);
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
#pragma unroll
  for (int index = 0; index < N / 2; ++index) {
    const int row = 16 * warp + lane / 4 + 8 * (index / 2 % 2), column = 8 * (index / 4) + 2 * (lane % 4) + index % 2;
    out[row * N + column] = d[index];
  }
}

template <int N, Left left, bool TransposeB> std::string wgmma_form(Stream& stream) {
  Buffer<float> out(64 * N, -1.f);
  stream.launch("wgmma", wgmma_kernel<N, left, TransposeB>, dim3(1), dim3(128), (64 + N) * 128, out.data());
  std::vector<float> expected(64 * N);
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < N; ++column) {
      int sum = 0;
      for (int k = 0; k < kDepth; ++k) sum += value_a(row, k) * value_b(k, column);
      expected[static_cast<size_t>(row * N + column)] = static_cast<float>(sum);
    }
  const std::string what = "N " + std::to_string(N) + (TransposeB ? ", b transposed" : "") + ", row * N + column";
  return differ(out.read(stream), expected, what.c_str());
}

template <Left left, bool TransposeB, int... N> std::string each_width(Stream& stream) {
  std::string wrong;
  static_cast<void>(((wrong = wgmma_form<N, left, TransposeB>(stream)).empty() && ...));
  return wrong;
}
template <Left left> std::string wgmma_left(Stream& stream) {
  const std::string wrong = each_width<left, false, 64, 96, 128, 192, 256>(stream);
  // MN-major panels are 64 columns wide: N a multiple of 64.
  return wrong.empty() ? each_width<left, true, 64, 128, 192, 256>(stream) : wrong;
}

// ---- wgmma in flight: two groups; the first is read while the second may still run.

__global__ void __launch_bounds__(128) wgmma_groups_kernel(float* out) {
  ATTUNE_DYNAMIC_SHARED(tile);
  uint8_t* a = tile;
  uint8_t* b = tile + 64 * 128;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  for (int i = thread; i < 64 * kDepth; i += 128) {
    put(a, place(false, i / kDepth, i % kDepth), __bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value_a(i / kDepth, i % kDepth)))));
    put(b, place(false, i / kDepth, i % kDepth), __bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value_b(i % kDepth, i / kDepth)))));
  }
  ptx::fence_proxy_async();
  __syncthreads();
  float first[32], second[32];
  for (int i = 0; i < 32; ++i) first[i] = second[i] = 100.f;
  ptx::wgmma_settle(first);
  ptx::wgmma_settle(second);
  ptx::wgmma_fence();
  ptx::wgmma<64>(first, step_of(a, false, 0), step_of(b, false, 0), true);
  ptx::wgmma_commit();
  ptx::wgmma<64>(second, step_of(a, false, 1), step_of(b, false, 1), true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<1>();
  for (int index = 0; index < 32; ++index) {
    const int row = 16 * warp + lane / 4 + 8 * (index / 2 % 2), column = 8 * (index / 4) + 2 * (lane % 4) + index % 2;
    out[row * 64 + column] = first[index];
  }
  ptx::wgmma_wait<0>();
  for (int index = 0; index < 32; ++index) {
    const int row = 16 * warp + lane / 4 + 8 * (index / 2 % 2), column = 8 * (index / 4) + 2 * (lane % 4) + index % 2;
    out[4096 + row * 64 + column] = second[index];
  }
}

std::string wgmma_groups(Stream& stream) {
  Buffer<float> out(2 * 4096, -1.f);
  stream.launch("wgmma_groups", wgmma_groups_kernel, dim3(1), dim3(128), 128 * 128, out.data());
  std::vector<float> expected(2 * 4096);
  for (int step = 0; step < 2; ++step)
    for (int i = 0; i < 4096; ++i) {
      int sum = 100;
      for (int k = 16 * step; k < 16 * step + 16; ++k) sum += value_a(i / 64, k) * value_b(k, i % 64);
      expected[static_cast<size_t>(step * 4096 + i)] = static_cast<float>(sum);
    }
  return differ(out.read(stream), expected, "element");
}

// ---- setmaxnreg: a producer warpgroup gives registers to two others, as the attention kernels do.

__global__ void __launch_bounds__(384, 1) registers_kernel(int* out) {
  if (threadIdx.x / 128 == 0) {
    ptx::registers_decrease<24>();
    out[threadIdx.x] = 1;
  } else {
    ptx::registers_increase<240>();
    out[threadIdx.x] = 2;
  }
}
std::string registers(Stream& stream) {
  Buffer<int> out(384, 0);
  stream.launch("registers", registers_kernel, dim3(1), dim3(384), 0, out.data());
  std::vector<int> expected(384, 2);
  for (size_t i = 0; i < 128; ++i) expected[i] = 1;
  return differ(out.read(stream), expected, "thread");
}

}  // namespace

const std::vector<Probe>& hopper_probes() {
  static const std::vector<Probe> probes = {
      {"mbarrier", 90, mbarrier},
      {"tma_load", 90, tma_load},
      {"tma_store", 90, tma_store<0>},
      {"tma_store_beyond_the_end", 90, tma_store<1>},
      {"tma_store_off_the_tile", 90, tma_store<2>},
      {"tma_store_short_rows", 90, tma_store<3>},
      {"tma_store_planes", 90, tma_store<4>},
      {"tensor_map_refusals", 90, tensor_map_refusals},
      {"wgmma_shared", 90, wgmma_left<Left::shared>},
      {"wgmma_shared_transposed", 90, wgmma_left<Left::shared_transposed>},
      {"wgmma_registers", 90, wgmma_left<Left::registers>},
      {"wgmma_groups", 90, wgmma_groups},
      {"registers", 90, registers},
  };
  return probes;
}

}  // namespace attune::probes
