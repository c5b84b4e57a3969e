// attune-probes: one line per instruction, ok | FAIL | skip. Exit 1 where one fails. The portable instructions; those of capability 9.0 are
// in probes_wgmma.cu.
//   attune-probes [NAME...]
#include "probes.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "../cuda/common/prelude.h"
#include "../cuda/common/ptx.h"

namespace attune::probes {
namespace {

using namespace cuda;

// ---- ldmatrix and movmatrix: rows 0 to 31 of 8 elements each, element value 8 row + column.

__global__ void ldmatrix_kernel(uint32_t* out) {
  ATTUNE_SHARED(uint4, tile, 32);
  auto* elements = reinterpret_cast<uint16_t*>(&tile[0]);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 8; ++i) elements[lane * 8 + i] = static_cast<uint16_t>(lane * 8 + i);
  __syncthreads();
  uint32_t plain[4], transposed[4];
  ptx::ldmatrix_x4(plain, &tile[lane]);
  ptx::ldmatrix_x4_transposed(transposed, &tile[lane]);
  for (int i = 0; i < 4; ++i) {
    out[lane * 12 + i] = plain[i];
    out[lane * 12 + 4 + i] = transposed[i];
    out[lane * 12 + 8 + i] = ptx::transpose_8x8(plain[i]);
  }
}

std::string ldmatrix(Stream& stream) {
  Buffer<uint32_t> out(32 * 12, 0);
  stream.launch("ldmatrix", ldmatrix_kernel, dim3(1), dim3(32), 0, out.data());
  std::vector<uint32_t> expected(32 * 12);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    for (uint32_t matrix = 0; matrix < 4; ++matrix) {
      const auto element = [&](uint32_t row, uint32_t column) { return (8 * matrix + row) * 8 + column; };
      const uint32_t i = lane / 4, j = 2 * (lane % 4);
      expected[lane * 12 + matrix] = element(i, j) | element(i, j + 1) << 16;
      expected[lane * 12 + 4 + matrix] = expected[lane * 12 + 8 + matrix] = element(j, i) | element(j + 1, i) << 16;
    }
  }
  return differ(out.read(stream), expected, "lane * 12 + register");
}

// ---- mma.sync: fragments packed on the host by the manual's maps.

__global__ void mma_kernel(const uint32_t* a, const uint32_t* b, const float* c, float* out) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t fragment_a[4], fragment_b[2];
  float d[4];
  for (int i = 0; i < 4; ++i) fragment_a[i] = a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) fragment_b[i] = b[lane * 2 + i];
  for (int i = 0; i < 4; ++i) d[i] = c[lane * 4 + i];
  ptx::mma_16x8x16(d, fragment_a, fragment_b);
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = d[i];
}

std::string mma(Stream& stream) {
  const auto a = [](uint32_t row, uint32_t k) { return small_integer(row * 16 + k, 1); };
  const auto b = [](uint32_t k, uint32_t column) { return small_integer(k * 8 + column, 2); };
  const auto packed = [](int low, int high) { return bf16_of(static_cast<float>(low)) | static_cast<uint32_t>(bf16_of(static_cast<float>(high))) << 16; };
  std::vector<uint32_t> as(32 * 4), bs(32 * 2);
  std::vector<float> cs(32 * 4), expected(32 * 4);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t group = lane / 4, pair = 2 * (lane % 4);
    for (uint32_t j = 0; j < 2; ++j) {
      for (uint32_t i = 0; i < 2; ++i) as[lane * 4 + 2 * j + i] = packed(a(group + 8 * i, 8 * j + pair), a(group + 8 * i, 8 * j + pair + 1));
      bs[lane * 2 + j] = packed(b(8 * j + pair, group), b(8 * j + pair + 1, group));
    }
    for (uint32_t i = 0; i < 2; ++i) {
      for (uint32_t c = 0; c < 2; ++c) {
        int sum = small_integer(lane * 4 + 2 * i + c, 3);
        cs[lane * 4 + 2 * i + c] = static_cast<float>(sum);
        for (uint32_t k = 0; k < 16; ++k) sum += a(group + 8 * i, k) * b(k, pair + c);
        expected[lane * 4 + 2 * i + c] = static_cast<float>(sum);
      }
    }
  }
  const Buffer<uint32_t> a_device(as), b_device(bs);
  const Buffer<float> c_device(cs);
  Buffer<float> out(32 * 4, 0.f);
  stream.launch("mma", mma_kernel, dim3(1), dim3(32), 0, a_device.data(), b_device.data(), c_device.data(), out.data());
  return differ(out.read(stream), expected, "lane * 4 + register");
}

// ---- cp.async: two groups of 16 bytes per thread, every third not valid.

__global__ void cp_async_kernel(const uint32_t* from, uint32_t* out) {
  ATTUNE_SHARED(uint4, tile, 128);
  const int thread = static_cast<int>(threadIdx.x);
  for (int group = 0; group < 2; ++group) {
    const int row = group * 64 + thread;
    ptx::cp_async_16(&tile[row], from + (row % 3 ? row * 4 : 0), row % 3 != 0);
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<1>();
  __syncthreads();
  const auto* words = reinterpret_cast<const uint32_t*>(&tile[0]);
  const int other = (thread + 7) % 64;  // another thread's copy
  for (int i = 0; i < 4; ++i) out[thread * 4 + i] = words[other * 4 + i];
  ptx::cp_async_wait<0>();
  __syncthreads();
  for (int i = 0; i < 4; ++i) out[(64 + thread) * 4 + i] = words[(64 + other) * 4 + i];
}

std::string cp_async(Stream& stream) {
  std::vector<uint32_t> values(512), expected(512);
  for (uint32_t i = 0; i < 512; ++i) values[i] = 1000 + i;
  for (uint32_t i = 0; i < 512; ++i) {
    const uint32_t group = i / 256, row = group * 64 + (i / 4 % 64 + 7) % 64;
    expected[i] = row % 3 ? values[row * 4 + i % 4] : 0;
  }
  const Buffer<uint32_t> from(values);
  Buffer<uint32_t> out(512, 9);
  stream.launch("cp_async", cp_async_kernel, dim3(1), dim3(64), 0, from.data(), out.data());
  return differ(out.read(stream), expected, "word");
}

// ---- Named barriers: warp 0 arrives and goes on, warps 1 and 2 wait for it; then warps 1 and 2 alone.

__global__ void named_barrier_kernel(int* out) {
  ATTUNE_SHARED(int, told, 3);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp == 0) {
    if (threadIdx.x == 0) told[0] = 11;
    ptx::named_barrier_arrive(1, 96);
  } else {
    ptx::named_barrier_sync(1, 96);
    if (threadIdx.x % 32 == 0) told[warp] = told[0] + warp;
    ptx::named_barrier_sync(2, 64);
    out[threadIdx.x - 32] = told[3 - warp];
  }
}

std::string named_barrier(Stream& stream) {
  Buffer<int> out(64, 0);
  stream.launch("named_barrier", named_barrier_kernel, dim3(1), dim3(96), 0, out.data());
  std::vector<int> expected(64);
  for (size_t i = 0; i < 64; ++i) expected[i] = i < 32 ? 13 : 12;
  return differ(out.read(stream), expected, "thread");
}

// ---- Warp collectives: values 100 + lane, segments of 8 for the shuffles with a width.

constexpr int kCollectives = 16;

__global__ void collectives_kernel(int* out) {
  constexpr uint32_t kAll = 0xFFFFFFFFu;
  const int lane = static_cast<int>(threadIdx.x);
  const int value = 100 + lane;
  const int results[kCollectives] = {
      __shfl_sync(kAll, value, 5),
      __shfl_sync(kAll, value, 9, 8),
      __shfl_xor_sync(kAll, value, 3),
      __shfl_xor_sync(kAll, value, 9, 8),
      __shfl_up_sync(kAll, value, 3),
      __shfl_up_sync(kAll, value, 3, 8),
      __shfl_down_sync(kAll, value, 3),
      __shfl_down_sync(kAll, value, 3, 8),
      static_cast<int>(__ballot_sync(kAll, lane % 3 == 0)),
      __any_sync(kAll, lane == 31),
      __all_sync(kAll, lane < 31),
      __reduce_add_sync(kAll, value - 110),
      __reduce_min_sync(kAll, value - 110),
      static_cast<int>(__reduce_max_sync(kAll, static_cast<unsigned>(value))),
      static_cast<int>(__reduce_or_sync(kAll, 1u << lane % 7)),
      static_cast<int>(__match_any_sync(kAll, lane % 5)),
  };
  for (int i = 0; i < kCollectives; ++i) out[lane * kCollectives + i] = results[i];
}

std::string collectives(Stream& stream) {
  Buffer<int> out(32 * kCollectives, 0);
  stream.launch("collectives", collectives_kernel, dim3(1), dim3(32), 0, out.data());
  std::vector<int> expected;
  for (int lane = 0; lane < 32; ++lane) {
    const int segment = lane & ~7;
    const auto of = [&](int source, bool inside) { return 100 + (inside ? source : lane); };
    uint32_t thirds = 0, fifths = 0;
    for (int other = 0; other < 32; ++other) {
      thirds |= static_cast<uint32_t>(other % 3 == 0) << other;
      fifths |= static_cast<uint32_t>(other % 5 == lane % 5) << other;
    }
    const int row[kCollectives] = {105,
                                   100 + segment + 1,
                                   100 + (lane ^ 3),
                                   of(lane ^ 9, (lane ^ 9) < segment + 8),
                                   of(lane - 3, lane >= 3),
                                   of(lane - 3, lane - 3 >= segment),
                                   of(lane + 3, lane + 3 < 32),
                                   of(lane + 3, lane + 3 < segment + 8),
                                   static_cast<int>(thirds),
                                   1,
                                   0,
                                   (100 - 110) * 32 + 31 * 16,
                                   -10,
                                   131,
                                   127,
                                   static_cast<int>(fifths)};
    expected.insert(expected.end(), row, row + kCollectives);
  }
  return differ(out.read(stream), expected, "lane * 16 + collective");
}

// ---- Block-wide votes.

__global__ void block_votes_kernel(int* out) {
  const int thread = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(thread % 2 == 0), any = __syncthreads_or(thread == 77), all = __syncthreads_and(thread < 95);
  out[thread] = count * 4 + any * 2 + all;
}
std::string block_votes(Stream& stream) {
  Buffer<int> out(96, 0);
  stream.launch("block_votes", block_votes_kernel, dim3(1), dim3(96), 0, out.data());
  return differ(out.read(stream), std::vector<int>(96, 48 * 4 + 2), "thread");
}

// ---- Rounding: fp32 to bf16 to nearest even, NaN kept; pack_bf16 puts the first in the low half.

__global__ void pack_kernel(const float* x, uint32_t* packed, uint32_t* single, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  packed[i] = ptx::pack_bf16(x[i], 1.f);
  single[i] = __bfloat16_as_ushort(__float2bfloat16_rn(x[i]));
}

std::string pack(Stream& stream) {
  struct Case {
    float x;
    uint16_t bits;
  };
  const Case cases[] = {{0.f, 0},
                        {-0.f, 0x8000},
                        {1.f, 0x3F80},
                        {1.00390625f, 0x3F80},           // halfway, to even below
                        {1.01171875f, 0x3F82},           // halfway, to even above
                        {1.00390637f, 0x3F81},           // a little more than halfway
                        {3.38953139e38f, 0x7F7F},        // bf16's largest
                        {3.4e38f, 0x7F80},               // rounds to infinity
                        {-INFINITY, 0xFF80},
                        {9.18354962e-41f, 0x0001},       // the least subnormal of bf16
                        {NAN, 0x7FFF}};
  std::vector<float> x;
  std::vector<uint32_t> packed, single;
  for (const Case& c : cases) {
    x.push_back(c.x);
    packed.push_back(c.bits | 0x3F80u << 16);
    single.push_back(c.bits);
  }
  const Buffer<float> from(x);
  Buffer<uint32_t> out(x.size(), 0), out_single(x.size(), 0);
  stream.launch("pack", pack_kernel, dim3(1), dim3(32), 0, from.data(), out.data(), out_single.data(), static_cast<int>(x.size()));
  const std::string wrong = differ(out.read(stream), packed, "pack_bf16, case");
  return wrong.empty() ? differ(out_single.read(stream), single, "__float2bfloat16_rn, case") : wrong;
}

// ---- exp2 within 2 ulp, subnormal results zero; min, max and NaN.

__global__ void exp2_kernel(const float* x, float* y, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) y[i] = ptx::exp2(x[i]);
}

std::string exp2(Stream& stream) {
  const std::vector<float> x = {0.f, 1.f, -1.f, 0.5f, -0.3f, 10.7f, -125.9f, -126.f, -127.f, -149.f, -1000.f, 127.9f, 128.f, INFINITY, -INFINITY, NAN};
  const Buffer<float> from(x);
  Buffer<float> out(x.size(), 0.f);
  stream.launch("exp2", exp2_kernel, dim3(1), dim3(32), 0, from.data(), out.data(), static_cast<int>(x.size()));
  const std::vector<float> y = out.read(stream);
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp2(static_cast<double>(x[i]));
    const double expected = exact < 0x1p-126 ? 0. : exact > 3.4028235e38 ? INFINITY : exact;
    const bool right = std::isnan(expected)  ? std::isnan(y[i])
                       : std::isinf(expected) ? std::isinf(y[i]) && y[i] > 0
                                              : std::fabs(y[i] - expected) <= expected * 0x1p-22;
    if (!right) return "2^" + std::to_string(x[i]) + ": expected " + std::to_string(expected) + ", got " + std::to_string(y[i]);
  }
  return "";
}

__global__ void nan_kernel(float nan, float* out) {
  out[0] = fmaxf(nan, 1.f);
  out[1] = fminf(2.f, nan);
  out[2] = fmaxf(nan, nan);
  out[3] = max(nan, 3.f);
  out[4] = rsqrtf(0.f);
  out[5] = __expf(-INFINITY);
  out[6] = __logf(0.f);
}
std::string nan_rules(Stream& stream) {
  Buffer<float> out(7, 0.f);
  stream.launch("nan", nan_kernel, dim3(1), dim3(1), 0, NAN, out.data());
  return differ(out.read(stream), std::vector<float>{1.f, 2.f, NAN, 3.f, INFINITY, 0.f, -INFINITY}, "case");
}

// ---- Dynamic shared memory: 1024-byte aligned, its address not zero, up to the block's limit.

__global__ void shared_kernel(uint32_t* out, int words) {
  ATTUNE_DYNAMIC_SHARED(bytes);
  auto* tile = reinterpret_cast<uint32_t*>(bytes);
  for (int i = static_cast<int>(threadIdx.x); i < words; i += static_cast<int>(blockDim.x)) tile[i] = static_cast<uint32_t>(i);
  __syncthreads();
  uint32_t sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < words; i += static_cast<int>(blockDim.x)) sum += tile[words - 1 - i];
  out[threadIdx.x] = sum;
  if (threadIdx.x == 0) out[blockDim.x] = ptx::shared_address(bytes) % 1024;
}
std::string dynamic_shared(Stream& stream) {
  const int words = static_cast<int>(stream.device().shared / 4);
  Buffer<uint32_t> out(257, 7);
  stream.launch("dynamic_shared", shared_kernel, dim3(1), dim3(256), static_cast<size_t>(words) * 4, out.data(), words);
  std::vector<uint32_t> expected(257, 0);
  for (int i = 0; i < words; ++i) expected[static_cast<size_t>(i % 256)] += static_cast<uint32_t>(words - 1 - i);
  return differ(out.read(stream), expected, "thread");
}

}  // namespace

const std::vector<Probe>& portable_probes() {
  static const std::vector<Probe> probes = {
      {"ldmatrix", 80, ldmatrix},       {"mma", 80, mma},   {"cp_async", 80, cp_async}, {"named_barrier", 80, named_barrier},
      {"collectives", 80, collectives}, {"block_votes", 80, block_votes}, {"pack", 80, pack}, {"exp2", 80, exp2},
      {"nan_rules", 80, nan_rules},     {"dynamic_shared", 80, dynamic_shared},
  };
  return probes;
}

}  // namespace attune::probes

namespace attune::probes {
namespace {

// What a process of probes leaves behind for the one that started it.
struct Progress {
  size_t next;  // the probe that runs now
  int failed;
};

// Runs `all` from *progress on, until they end or one loses the device. An exit status.
int run_from(const std::vector<Probe>& all, Progress* progress) {
  cudaDeviceProp device;
  cudaStream_t handle;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess || cudaStreamCreate(&handle) != cudaSuccess) {
    std::printf("no device: %s\n", cudaGetErrorString(cudaGetLastError()));
    return 3;
  }
  if (progress->next == 0) std::printf("%s, capability %d.%d\n", device.name, device.major, device.minor);
  const cuda::Properties properties{device.major, device.minor, device.multiProcessorCount, static_cast<int64_t>(device.sharedMemPerBlockOptin)};
  for (bool lost = false; progress->next < all.size() && !lost; ++progress->next) {
    const Probe& probe = all[progress->next];
    // What 9.0a compiles runs on 9.0 alone.
    if (probe.capability == 90 ? device.major != 9 : device.major < 8) {
      std::printf("skip %s\n", probe.name);
      std::fflush(stdout);
      continue;
    }
    cuda::Stream stream(handle, properties);
    std::string wrong = probe.run(stream);
    if (!stream.ok()) wrong += (wrong.empty() ? "" : "; ") + stream.failure();
    lost = cudaStreamSynchronize(handle) != cudaSuccess;
    std::printf("%s %s %s\n", wrong.empty() ? "ok  " : "FAIL", probe.name, wrong.c_str());
    std::fflush(stdout);
    progress->failed += !wrong.empty();
  }
  return 0;
}

}  // namespace
}  // namespace attune::probes

// attune-probes [NAME...]: a device that one probe loses is lost to its process alone, so the next probes run in another.
int main(int count, char** names) {
  using namespace attune::probes;
  std::vector<Probe> all;
  for (const std::vector<Probe>& some : {portable_probes(), hopper_probes()})
    for (const Probe& probe : some) {
      bool wanted = count == 1;
      for (int i = 1; i < count; ++i) wanted |= std::strcmp(names[i], probe.name) == 0;
      if (wanted) all.push_back(probe);
    }
  auto* progress = static_cast<Progress*>(mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  *progress = {0, 0};
  while (progress->next < all.size()) {
    const pid_t child = fork();
    if (child == 0) _exit(run_from(all, progress));
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3) return 3;
    if (!WIFSIGNALED(status)) continue;
    std::printf("FAIL %s its process ended by signal %d\n", all[progress->next].name, WTERMSIG(status));
    ++progress->next;
    ++progress->failed;
  }
  std::printf("%d failed\n", progress->failed);
  return progress->failed > 0;
}
