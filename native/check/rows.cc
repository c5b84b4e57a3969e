// attune-rows: the streaming ops at sizes that cross tiles, parts and blocks, against the CPU's kernels. The samples of attune-check
// are small; here blocks take several rows, sums have several parts, rows are longer than a block and of no multiple of a vector.
// Two runs must give the same bits, and an output over the input that it may replace too. Exit 1 where a case fails.
//   attune-rows [--only OP]
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../cpu/kernels.h"
#include "../cuda/kernels.h"
#include "../runtime/device.h"
#include "../runtime/op_info.h"
#include "../runtime/program.h"
#include "../runtime/top_columns.h"
#include "gpu.h"
#include "value.h"

namespace attune {
namespace {

void must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("FAIL  %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// ---- Cases

struct Case {
  std::string op, title;
  std::vector<Value> slots;  // inputs, optionals, outputs, in the struct's order
  std::vector<double> params;
  std::vector<double> list;                 // of a parameter that is a list
  std::vector<std::array<size_t, 2>> over;  // (output, input) that may share a place: tried all at once
};

uint32_t opcode_of(const std::string& op) {
  for (uint32_t i = 0; i < kOpCount; ++i)
    if (op == kOps[i].name) return i;
  std::printf("FAIL  %s: no such op\n", op.c_str());
  std::exit(1);
}

struct Args {
  alignas(64) uint8_t bytes[kMaxArgs];

  Args(const Case& c, const std::vector<void*>& places) {
    uint8_t* at = bytes;
    auto append = [&](const auto& x) {
      std::memcpy(at, &x, sizeof x);
      at += sizeof x;
    };
    for (size_t i = 0; i < c.slots.size(); ++i) {
      Tensor t = c.slots[i].type;
      t.data = places[i];
      append(t);
    }
    size_t next = 0;
    for (const char* kind = kOps[opcode_of(c.op)].params; *kind; ++kind) {
      if (*kind == 'l')
        append(Doubles{c.list.data(), static_cast<int64_t>(c.list.size())});
      else
        append(c.params.at(next++));
    }
  }
};

class Cpu : public Context {
 public:
  explicit Cpu(size_t scratch) : scratch_(scratch + 64), own_(kThreadScratch + 64), pool_(make_no_pool(1)) {}
  Pool& pool() override { return *pool_; }
  void* scratch() override { return aligned(scratch_); }
  void* thread_scratch(int) override { return aligned(own_); }
  void* derived(const Copy&, bool*) override { return nullptr; }

 private:
  static void* aligned(Bytes& b) { return b.data() + (-reinterpret_cast<uintptr_t>(b.data()) & 63); }
  Bytes scratch_, own_;
  std::unique_ptr<Pool> pool_;
};

// Every slot's bytes afterwards.
std::vector<Bytes> on_cpu(const Case& c) {
  std::vector<Bytes> memory;
  std::vector<void*> places;
  for (const Value& v : c.slots) {
    memory.emplace_back(v.bytes.size() + 64);
    uint8_t* data = memory.back().data() + (-reinterpret_cast<uintptr_t>(memory.back().data()) & 63);
    std::copy(v.bytes.begin(), v.bytes.end(), data);
    places.push_back(v.present ? data : nullptr);
  }
  Args args(c, places);
  const uint32_t opcode = opcode_of(c.op);
  Cpu context(static_cast<size_t>(cpu::scratch(opcode, args.bytes)));
  kCpuDevice.kernels[opcode](args.bytes, context);
  std::vector<Bytes> after;
  for (size_t i = 0; i < c.slots.size(); ++i) {
    const uint8_t* data = static_cast<const uint8_t*>(places[i]);
    after.emplace_back(data, data + (data ? c.slots[i].bytes.size() : 0));
  }
  return after;
}

class Gpu {
 public:
  std::vector<Bytes> run(const Case& c, bool in_place) {
    std::vector<void*> places, owned;
    for (const Value& v : c.slots) places.push_back(v.present ? take(v.bytes, &owned) : nullptr);
    if (in_place)
      for (const auto& [output, input] : c.over) places[output] = places[input];
    Args args(c, places);
    const uint32_t opcode = opcode_of(c.op);
    cuda::Stream launches(stream_, device_);
    launches.use_scratch(take(Bytes(static_cast<size_t>(cuda::scratch(opcode, args.bytes)), 0xff), &owned));
    cuda::run(opcode, args.bytes, launches);
    if (!launches.ok()) {
      std::printf("FAIL  %s\n", launches.failure().c_str());
      std::exit(1);
    }
    must(cudaStreamSynchronize(stream_), c.op.c_str());
    std::vector<Bytes> after;
    for (size_t i = 0; i < c.slots.size(); ++i) {
      after.emplace_back(c.slots[i].output ? c.slots[i].bytes.size() : 0);
      must(cudaMemcpy(after[i].data(), places[i], after[i].size(), cudaMemcpyDeviceToHost), "copy");
    }
    for (void* data : owned) must(cudaFree(data), "free");
    return after;
  }

 private:
  static void* take(const Bytes& bytes, std::vector<void*>* owned) {
    void* data = nullptr;
    must(cudaMalloc(&data, bytes.size() + 256), "allocation");
    must(cudaMemcpy(data, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "copy");
    owned->push_back(data);
    return data;
  }
  cuda::Properties device_;
  cudaStream_t stream_ = open_gpu(&device_);
};

// Both sides round once from fp32: a last place of bf16, and of fp32 what two orders of a sum differ by.
std::string differ(const Value& want, const Value& got) {
  double squares = 0;
  for (int64_t i = 0; i < want.type.size(); ++i)
    if (const double x = element(want, i); std::isfinite(x)) squares += x * x;
  const double scale = std::sqrt(squares / static_cast<double>(std::max<int64_t>(1, want.type.size())));
  const double share = want.type.dtype == bf16_ ? 1.0 / 128 : want.type.dtype == f32 ? 1e-5 : 0;
  for (int64_t i = 0; i < want.type.size(); ++i) {
    const double x = element(want, i), y = element(got, i);
    if (x == y || (std::isnan(x) && std::isnan(y)) || std::abs(x - y) <= share * (std::abs(x) + scale)) continue;
    char text[120];
    std::snprintf(text, sizeof text, " [%lld of %lld]: %.9g expected, got %.9g", static_cast<long long>(i),
                  static_cast<long long>(want.type.size()), x, y);
    return text;
  }
  return "";
}

std::string try_case(const Case& c, Gpu& gpu) {
  const std::vector<Bytes> want = on_cpu(c), got = gpu.run(c, false);
  if (gpu.run(c, false) != got) return "a second run gave other bits";
  if (!c.over.empty() && gpu.run(c, true) != got) return "in place gave other bits";
  for (size_t i = 0; i < c.slots.size(); ++i) {
    if (!c.slots[i].output) continue;
    Value a = c.slots[i], b = c.slots[i];
    a.bytes = want[i];
    b.bytes = got[i];
    if (std::string why = differ(a, b); !why.empty()) return "slot " + std::to_string(i) + why;
  }
  return "";
}

// ---- The list

std::string text(std::initializer_list<int64_t> sizes) {
  std::string all;
  for (int64_t n : sizes) all += (all.empty() ? "" : " x ") + std::to_string(n);
  return all;
}

void norms(std::vector<Case>& all, DType t) {
  for (auto [n, c] :
       {std::array<int64_t, 2>{5, 8}, {3, 2056}, {2, 8192}, {2, 8200}, {3, 5001}, {280, 4096}, {1100, 64}, {140, 8192}}) {
    all.push_back({"rms_norm", text({n, c}), {normal(t, {n, c}), normal(t, {c}), out(t, {n, c}), out(f32, {n})}, {1e-5}, {}, {}});
    const Value x = normal(t, {n, c}), w = normal(t, {c}), rstd = positive(f32, {n}), dy = normal(t, {n, c}), dx = out(t, {n, c}),
                dw = out(f32, {c});
    all.push_back({"rms_norm_backward", text({n, c}), {x, w, rstd, dy, none(), none(), dx, dw}, {1e-5}, {}, {{6, 3}}});
    const Value onto_dx = normal(t, {n, c}), onto_dw = normal(f32, {c});
    all.push_back(
        {"rms_norm_backward", text({n, c}) + " onto", {x, w, rstd, dy, onto_dx, onto_dw, dx, dw}, {1e-5}, {}, {{6, 4}, {7, 5}}});
    all.push_back({"rms_norm_backward", text({n, c}) + ", dw alone", {x, w, rstd, dy, none(), none(), none(), dw}, {1e-5}, {}, {}});
  }
}

void heads(std::vector<Case>& all, DType t) {
  for (auto [n, h, k, d] : {std::array<int64_t, 4>{3, 32, 8, 128},
                            {5, 14, 2, 64},
                            {2, 9, 3, 96},
                            {2, 5, 1, 80},
                            {2, 3, 1, 256},
                            {2, 3, 1, 20},
                            {600, 2, 1, 16},
                            {2, 40, 40, 8}}) {
    const Value cos = normal(f32, {n, d / 2}), sin = normal(f32, {n, d / 2}), qkv = normal(t, {n, (h + 2 * k) * d});
    const Value q_norm = normal(t, {d}), k_norm = normal(t, {d}), rstd = positive(f32, {n, h + k});
    const Value q = out(t, {n, h, d}), kv = out(t, {n, k, d}), dqkv = out(t, {n, (h + 2 * k) * d});
    const Value dq = normal(t, {n, h, d}), dk = normal(t, {n, k, d}), dv = normal(t, {n, k, d});
    const std::vector<double> params = {static_cast<double>(h), static_cast<double>(k), 1e-6};
    const std::string size = text({n, h, k, d});
    all.push_back({"qkv_rope", size, {qkv, cos, sin, none(), none(), q, kv, kv, none()}, params, {}, {}});
    all.push_back({"qkv_rope", size + " normed", {qkv, cos, sin, q_norm, k_norm, q, kv, kv, out(f32, {n, h + k})}, params, {}, {}});
    all.push_back({"qkv_rope_backward",
                   size,
                   {cos, sin, none(), none(), none(), none(), dq, dk, dv, none(), none(), dqkv, none(), none()},
                   params,
                   {},
                   {}});
    all.push_back({"qkv_rope_backward",
                   size + " normed",
                   {cos, sin, q_norm, k_norm, qkv, rstd, dq, dk, dv, none(), normal(f32, {d}), dqkv, out(f32, {d}), out(f32, {d})},
                   params,
                   {},
                   {{13, 10}}});
  }
}

void gates(std::vector<Case>& all, DType t) {
  for (auto [n, f] : {std::array<int64_t, 2>{3, 14336}, {2, 4864}, {4, 40}, {2, 5001}}) {
    all.push_back({"swiglu", text({n, f}), {normal(t, {n, 2 * f}), out(t, {n, f})}, {}, {}, {}});
    all.push_back(
        {"swiglu_backward", text({n, f}), {normal(t, {n, 2 * f}), normal(t, {n, f}), out(t, {n, 2 * f})}, {}, {}, {{2, 0}}});
  }
}

void softmaxes(std::vector<Case>& all, DType t) {
  for (auto [m, v] : {std::array<int64_t, 2>{3, 32000}, {2, 50257}, {4, 40}}) {
    const Value logits = make(t, {m, v}, [&, columns = v](int64_t i) -> double {
      return i % columns % 7 == 3 ? -INFINITY : i == 10 ? 30 : 3 * static_cast<double>(random_bits() >> 11) * 0x1p-53;
    });
    const Value targets =
        make(i32, {m}, [&, columns = v](int64_t i) { return i == 1 ? -1 : static_cast<double>((i * 37 + 10) % columns); });
    const Value row = out(f32, {m});
    all.push_back({"log_softmax_gather", text({m, v}), {logits, targets, row, row, row, row, row}, {}, {}, {}});
    const Value lse = make(f32, {m}, [](int64_t) { return 12; });
    for (DType d : {f32, bf16_})
      all.push_back({"log_softmax_gather_backward",
                     text({m, v}),
                     {logits, targets, lse, normal(f32, {m}), out(d, {m, v})},
                     {},
                     {},
                     d == t ? std::vector<std::array<size_t, 2>>{{4, 0}} : std::vector<std::array<size_t, 2>>{}});
    const Value shares = positive(t, {m, v}), tops = normal(f32, {m, (v + kTopColumns - 1) / kTopColumns});
    all.push_back(
        {"softmax_shares_backward", text({m, v}), {shares, tops, targets, lse, normal(f32, {m}), normal(f32, {m}), out(t, {m, v})}, {}, {}, {{6, 0}}});
  }
}

void gathers(std::vector<Case>& all, DType t) {
  for (auto [m, r, c] :
       {std::array<int64_t, 3>{5000, 300, 16}, {2048, 100000, 8}, {2049, 1, 3}, {700, 200, 2056}, {10000, 9000, 4}}) {
    const Value idx = indices(m, r);
    const Case transpose{"index_transpose", text({m, r}), {idx, out(i32, {r}), out(i32, {r}), out(i32, {m})}, {}, {}, {}};
    const std::vector<Bytes> lists = on_cpu(transpose);
    all.push_back(transpose);
    Value list[3];
    for (int i = 0; i < 3; ++i) {
      list[i] = transpose.slots[static_cast<size_t>(i) + 1];
      list[i].bytes = lists[static_cast<size_t>(i) + 1];
      list[i].output = false;
    }
    all.push_back({"gather_rows", text({m, r, c}), {normal(t, {r, c}), idx, out(t, {m, c})}, {}, {}, {}});
    for (DType d : {f32, bf16_}) {
      all.push_back({"gather_rows_backward",
                     text({m, r, c}),
                     {idx, list[0], list[1], list[2], normal(t, {m, c}), none(), out(d, {r, c})},
                     {},
                     {},
                     {}});
      all.push_back({"gather_rows_backward",
                     text({m, r, c}) + " onto",
                     {idx, list[0], list[1], list[2], normal(t, {m, c}), normal(d, {r, c}), out(d, {r, c})},
                     {},
                     {},
                     {{6, 5}}});
    }
  }
}

void sums(std::vector<Case>& all, DType t) {
  for (auto [n, c] : {std::array<int64_t, 2>{1000, 40}, {300, 4096}, {257, 13}, {70000, 8}, {1, 5}}) {
    all.push_back({"sum_rows", text({n, c}), {normal(t, {n, c}), normal(f32, {c}), out(f32, {c})}, {}, {}, {{2, 1}}});
    all.push_back({"sum_squares", text({n, c}), {normal(t, {n, c}), out(f32, {})}, {}, {}, {}});
  }
  all.push_back({"segment_sum", "5000", {normal(f32, {5000}), indices(5000, 70), out(f32, {70})}, {}, {}, {}});
  all.push_back({"reduce_sum", "300 x 7 x 50", {normal(t, {300, 7, 50}), out(f32, {300, 1, 50})}, {}, {1}, {}});
  all.push_back({"reduce_sum", "300 x 7 x 50, all but one", {normal(t, {300, 7, 50}), out(f32, {1, 7, 1})}, {}, {0, 2}, {}});
}

void updates(std::vector<Case>& all, DType t) {
  for (int64_t n : {3, 4096, 40001}) {
    const Value m = normal(f32, {n}), v = positive(f32, {n}), w = normal(t, {n}), g = normal(t, {n});
    const Value master = t == f32 ? none() : normal(f32, {n}), master2 = t == f32 ? none() : out(f32, {n});
    all.push_back({"adamw",
                   text({n}),
                   {g, m, v, scalar(0.7), scalar(1e-3), scalar(0.1), scalar(1e-3), w, master, out(t, {n}), master2, out(f32, {n}),
                    out(f32, {n})},
                   {0.9, 0.999, 1e-8, 0.1},
                   {},
                   {{9, 7}, {10, 8}, {11, 1}, {12, 2}}});
    all.push_back({"add", text({n}), {g, w, out(t, {n})}, {}, {}, {{2, 0}}});
    all.push_back({"cast", text({n}), {g, out(t == f32 ? bf16_ : f32, {n})}, {}, {}, {}});
  }
}

int check(const std::string& only) {
  Gpu gpu;
  std::vector<Case> all;
  for (DType t : {f32, bf16_})
    for (auto* list : {norms, heads, gates, softmaxes, gathers, sums, updates}) list(all, t);
  int failed = 0, passed = 0;
  for (const Case& c : all) {
    if (!only.empty() && c.op != only) continue;
    const std::string why = try_case(c, gpu);
    ++(why.empty() ? passed : failed);
    if (!why.empty())
      std::printf("FAIL  %s %s %s: %s\n", c.op.c_str(), dtype_name(c.slots[0].type.dtype), c.title.c_str(), why.c_str());
  }
  std::printf("%d cases passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace attune

int main(int count, char** words) { return attune::check(count == 3 && std::strcmp(words[1], "--only") == 0 ? words[2] : ""); }
