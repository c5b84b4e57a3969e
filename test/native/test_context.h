// What the native checks share: a Context on a real pool with guarded buffers, a deterministic random source, tensors made from
// vectors, and CHECK. Each check program runs itself once for every level the machine has (`for_each_level`).
#pragma once
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <map>
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../../native/cpu/common/dispatch.h"
#include "../../native/cpu/common/pool.h"
#include "../../native/cpu/kernels.h"

namespace attune::test {

inline int failures = 0;

#define CHECK(condition, ...)                                              \
  do {                                                                     \
    if (!(condition)) {                                                    \
      if (++attune::test::failures <= 20) {                                \
        std::printf("FAILED %s:%d  %s  ", __FILE__, __LINE__, #condition); \
        std::printf(__VA_ARGS__);                                          \
        std::printf("\n");                                                 \
      }                                                                    \
    }                                                                      \
  } while (0)

// Counter-based: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double normal() { return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform()); }

 private:
  uint64_t state_;
};

inline float to_float(bf16 x) {
  const uint32_t u = static_cast<uint32_t>(x.bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline bf16 to_bf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  if (f != f) return {static_cast<uint16_t>(u >> 16 | 0x40)};
  return {static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}

// A tensor that owns its memory, 64-byte aligned, with guard bytes on both sides.
class Buffer {
 public:
  Buffer() = default;
  Buffer(DType dtype, std::initializer_list<int64_t> shape) {
    t.dtype = dtype;
    t.rank = static_cast<int32_t>(shape.size());
    int i = 0;
    for (int64_t n : shape) t.shape[i++] = n;
    bytes_.assign(static_cast<size_t>(t.bytes()) + 3 * 64, kGuard);
    const uintptr_t p = reinterpret_cast<uintptr_t>(bytes_.data());
    offset_ = (64 - p % 64) % 64 + 64;
    t.data = bytes_.data() + offset_;
  }
  Buffer(const Buffer& o) { *this = o; }
  Buffer& operator=(const Buffer& o) {
    if (this == &o) return *this;
    t = o.t;
    bytes_.assign(o.bytes_.size(), kGuard);
    if (bytes_.empty()) return *this;
    const uintptr_t p = reinterpret_cast<uintptr_t>(bytes_.data());
    offset_ = (64 - p % 64) % 64 + 64;
    t.data = bytes_.data() + offset_;
    std::memcpy(t.data, o.t.data, static_cast<size_t>(t.bytes()));
    return *this;
  }
  operator const Tensor&() const { return t; }
  int64_t size() const { return t.size(); }
  double at(int64_t i) const {
    if (t.dtype == DType::bf16) return to_float(t.as<bf16>()[i]);
    if (t.dtype == DType::i32) return t.as<int32_t>()[i];
    return t.as<float>()[i];
  }
  void set(int64_t i, double x) {
    if (t.dtype == DType::bf16)
      t.as<bf16>()[i] = to_bf16(static_cast<float>(x));
    else if (t.dtype == DType::i32)
      t.as<int32_t>()[i] = static_cast<int32_t>(x);
    else
      t.as<float>()[i] = static_cast<float>(x);
  }
  Buffer& normal(Random& r, double scale = 1) {
    for (int64_t i = 0; i < size(); ++i) set(i, r.normal() * scale);
    return *this;
  }
  Buffer& fill(double x) {
    for (int64_t i = 0; i < size(); ++i) set(i, x);
    return *this;
  }
  bool same(const Buffer& o) const { return t.bytes() == o.t.bytes() && std::memcmp(t.data, o.t.data, t.bytes()) == 0; }
  bool guarded() const {
    for (size_t i = 0; i < bytes_.size(); ++i)
      if ((i < offset_ || i >= offset_ + static_cast<size_t>(t.bytes())) && bytes_[i] != kGuard) return false;
    return true;
  }

  Tensor t;

 private:
  static constexpr unsigned char kGuard = 0xa5;
  std::vector<unsigned char> bytes_;
  size_t offset_ = 0;
};

// |got - want| within a rounding of the dtype, and `slack` fp32 roundings of `mass`: the sum of |terms|.
inline bool near(double got, double want, DType t, double mass, double slack = 1) {
  if (std::isnan(want) || std::isinf(want)) return std::isnan(want) ? std::isnan(got) : got == want;
  const double eps = t == DType::bf16 ? 0x1p-8 : 0x1p-23;
  return std::fabs(got - want) <= slack * (eps * std::fabs(want) + 0x1p-23 * mass) + 1e-37;
}

// Scratch starts full of NaN bits, so that a kernel which reads what it did not write is seen.
class TestContext final : public Context {
 public:
  explicit TestContext(int threads) : pool_(cpu::make_pool(threads)) {
    for (int i = 0; i < pool_->threads(); ++i) thread_.push_back(place(kThreadScratch));
  }
  Pool& pool() override { return *pool_; }
  void* scratch() override { return scratch_.get(); }
  void* thread_scratch(int thread) override { return thread_[static_cast<size_t>(thread)].get(); }
  void* derived(const Copy& copy, bool* valid) override {
    if (!weights.count(copy.data)) return nullptr;
    auto& slot = derived_[{copy.data, copy.form}];
    *valid = slot != nullptr;
    if (!slot) slot = place(copy.bytes);
    return slot.get();
  }
  // Before a call: gives the op exactly what its scratch function asks for.
  template <class T> void plan(uint32_t opcode, const T& args) { scratch_ = place(cpu::scratch(opcode, &args)); }
  void forget() { derived_.clear(); }

  std::map<const void*, bool> weights;  // what derived() takes for a weight

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  using Place = std::unique_ptr<void, Free>;
  static Place place(int64_t bytes) {
    const size_t n = static_cast<size_t>((bytes + 63) / 64 * 64);
    Place p(std::aligned_alloc(64, n ? n : 64));
    std::memset(p.get(), 0xff, n);
    return p;
  }
  std::unique_ptr<Pool> pool_;
  std::vector<Place> thread_;
  std::map<std::pair<const void*, int>, Place> derived_;
  Place scratch_;
};

constexpr uint32_t opcode_of(const char* wanted) {
  auto equal = [](const char* a, const char* b) {
    while (*a && *a == *b) ++a, ++b;
    return *a == *b;
  };
#define X(code, name, Struct) \
  if (equal(wanted, #name)) return code;
  ATTUNE_OPS(X)
#undef X
  return ~0u;
}

// Plans and runs one op: run<Gemm>("gemm", cpu::gemm, args, context).
#define RUN(name, args, context)                                                \
  do {                                                                          \
    (context).plan(attune::test::opcode_of(#name), args);                       \
    attune::cpu::name(args, context);                                           \
  } while (0)

// Runs `checks` at the level of ATTUNE_CPU when that is set; else starts this program again once for each level.
inline int for_each_level(const char* program, void (*checks)()) {
  if (std::getenv("ATTUNE_CPU")) {
    checks();
    std::printf("%-12s %s\n", cpu::cpu_level(), failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
  }
  int bad = 0;
  for (const char* name : {"baseline", "avx2", "avx512", "avx512_bf16"}) {
    std::fflush(stdout);
    bad |= std::system((std::string("ATTUNE_CPU=") + name + " '" + program + "'").c_str());
    if (std::strcmp(name, cpu::cpu_level()) == 0) break;
  }
  return bad ? 1 : 0;
}

}  // namespace attune::test
