// What native kernel tests share: a pool with any number of threads, a context with guarded scratch, tensors between guard bytes,
// and a count of failures. A test program returns failures().
#pragma once
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../../native/runtime/context.h"

namespace attune::test {

inline int& failures() {
  static int count = 0;
  return count;
}
inline void fail(const std::string& what) {
  if (++failures() <= 40) std::fprintf(stderr, "FAIL %s\n", what.c_str());
}
inline void check(bool ok, const std::string& what) {
  if (!ok) fail(what);
}

// Bytes at a 64-byte boundary with 256 guard bytes on each side.
class Guarded {
 public:
  explicit Guarded(int64_t bytes) : bytes_(bytes), memory_(size_t(bytes) + 2 * kGuard + 64, kFill) {
    uintptr_t p = reinterpret_cast<uintptr_t>(memory_.data()) + kGuard;
    data_ = reinterpret_cast<uint8_t*>((p + 63) / 64 * 64);
  }
  uint8_t* data() const { return data_; }
  bool intact() const {
    for (int64_t i = 1; i <= int64_t(kGuard); ++i)
      if (data_[-i] != kFill || data_[bytes_ + i - 1] != kFill) return false;
    return true;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr uint8_t kFill = 0xa5;
  int64_t bytes_;
  std::vector<uint8_t> memory_;
  uint8_t* data_;
};

class TestPool : public Pool {
 public:
  explicit TestPool(int threads) : threads_(threads) {}
  int threads() const override { return threads_; }
  void run(int64_t count, void (*task)(void*, int64_t, int), void* arg) override {
    std::atomic<int64_t> next{0};
    auto work = [&](int thread) {
      for (int64_t i; (i = next.fetch_add(1)) < count;) task(arg, i, thread);
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads_ && t < count; ++t) others.emplace_back(work, t);
    work(0);
    for (auto& t : others) t.join();
  }

 private:
  int threads_;
};

class TestContext : public Context {
 public:
  explicit TestContext(int threads, int64_t scratch_bytes = 0) : pool_(threads), scratch_(scratch_bytes) {
    for (int t = 0; t < threads; ++t) own_.emplace_back(kThreadScratch);
  }
  Pool& pool() override { return pool_; }
  void* scratch() override { return scratch_.data(); }
  void* thread_scratch(int thread) override { return own_.at(size_t(thread)).data(); }
  void* derived(const void*, int, int64_t, bool*) override { return nullptr; }
  bool intact() const {
    bool ok = scratch_.intact();
    for (auto& o : own_) ok = ok && o.intact();
    return ok;
  }

 private:
  TestPool pool_;
  Guarded scratch_;
  std::vector<Guarded> own_;
};

inline float widen(uint16_t bits) {
  const uint32_t u = uint32_t(bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline uint16_t narrow(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t((u >> 16) | 0x40u);
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// A tensor that owns guarded memory. Elements are read and written as double.
class Array {
 public:
  Array(DType dtype, std::initializer_list<int64_t> shape) : Array(dtype, std::vector<int64_t>(shape)) {}
  Array(DType dtype, const std::vector<int64_t>& shape) {
    t_.dtype = dtype;
    t_.rank = int32_t(shape.size());
    for (size_t i = 0; i < shape.size(); ++i) t_.shape[i] = shape[i];
    memory_ = std::make_shared<Guarded>(t_.bytes());
    t_.data = memory_->data();
  }
  operator const Tensor&() const { return t_; }
  const Tensor& tensor() const { return t_; }
  int64_t size() const { return t_.size(); }
  double get(int64_t i) const {
    if (t_.dtype == DType::f32) return t_.as<float>()[i];
    if (t_.dtype == DType::bf16) return widen(t_.as<bf16>()[i].bits);
    return t_.as<int32_t>()[i];
  }
  void set(int64_t i, double x) {
    if (t_.dtype == DType::f32)
      t_.as<float>()[i] = float(x);
    else if (t_.dtype == DType::bf16)
      t_.as<bf16>()[i].bits = narrow(float(x));
    else
      t_.as<int32_t>()[i] = int32_t(x);
  }
  std::vector<double> values() const {
    std::vector<double> v(size_t(size()), 0.0);
    for (int64_t i = 0; i < size(); ++i) v[size_t(i)] = get(i);
    return v;
  }
  std::vector<uint8_t> bits() const { return {memory_->data(), memory_->data() + t_.bytes()}; }
  Array copy() const {
    Array c(t_.dtype, std::vector<int64_t>(t_.shape, t_.shape + t_.rank));
    std::memcpy(c.t_.data, t_.data, size_t(t_.bytes()));
    return c;
  }
  bool intact() const { return memory_->intact(); }

 private:
  Tensor t_;
  std::shared_ptr<Guarded> memory_;
};

// A small counter-based generator: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  double uniform() { return double(next() >> 11) * 0x1p-53; }  // [0, 1)
  double normal() {
    const double u = uniform() + 0x1p-60, v = uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  int64_t below(int64_t n) { return int64_t(next() % uint64_t(n)); }
  void fill(Array& a, double scale = 1) {
    for (int64_t i = 0; i < a.size(); ++i) a.set(i, scale * normal());
  }

 private:
  uint64_t state_;
};

// max over elements of |a - b| / (atol + |b|), infinite where only one is NaN or infinities differ.
inline double worst(const std::vector<double>& a, const std::vector<double>& b, double atol) {
  if (a.size() != b.size()) return INFINITY;
  double w = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (a[i] == b[i]) continue;
    const double e = std::fabs(a[i] - b[i]) / (atol + std::fabs(b[i]));
    if (!(e <= w)) w = std::isfinite(e) ? e : INFINITY;
  }
  return w;
}

// ||a - b|| / ||b||.
inline double relative(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double e = 0, n = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    e += (a[i] - b[i]) * (a[i] - b[i]);
    n += b[i] * b[i];
  }
  return e == 0 ? 0 : std::sqrt(e / n);
}

}  // namespace attune::test
