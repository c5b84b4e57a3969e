// attune-large: tensors of more than 2^31 elements, and so of more than 4 GiB. What an op makes of their last rows must be what it makes of
// those rows alone, which the other checks hold to float64. Exit 1 where a case fails; a case that does not fit is skipped.
//   attune-large [ELEMENTS [CASE]]      of each case's largest tensor; 0, the default: 2^31 and some
// On the emulator few ELEMENTS, or with ATTUNE_SIMT_SPARSE=64 ATTUNE_SIMT_SMS=4194304 ATTUNE_SIMT_MEMORY=1<<40 all of them: then the first
// and last blocks of each grid alone run, a block to an item where blocks are dealt items, and the last kSparseTail rows are looked at, of
// attention the last document. A case says how many blocks it wants where 64 are too few or too slow.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../cuda/kernels.h"
#include "../runtime/op_info.h"
#include "gpu.h"
#include "value.h"

namespace attune {
namespace {

constexpr int64_t kTail = 512;   // rows that are looked at: one document of attention's
constexpr int64_t kSparseTail = 4;
constexpr int64_t kBlock = (1 << 20) + 7;  // numbers that a tensor repeats

const bool kSparse = std::getenv("ATTUNE_SIMT_SPARSE") != nullptr;

struct NoRoom {};

void must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw NoRoom();
  }
  std::printf("FAIL  %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

class Device {
 public:
  // All that was taken since is free again.
  void clear() {
    for (void* data : owned_) cudaFree(data);
    owned_.clear();
  }
  // A sparse emulator: of the grids to come with more than `whole` blocks, the first and the last so many run.
  void run_ends([[maybe_unused]] uint64_t ends, [[maybe_unused]] uint64_t whole) {
#ifdef ATTUNE_SIMT
    static const uint64_t otherwise = simt::options().ends;
    if (!kSparse) return;
    simt::options().ends = ends > 0 ? ends : otherwise;
    simt::options().whole = whole;
#endif
  }
  void* take(int64_t bytes) {
    void* data = nullptr;
    must(cudaMalloc(&data, static_cast<size_t>(bytes) + 256), "allocation");
    owned_.push_back(data);
    return data;
  }
  Tensor tensor(DType dtype, const Shape& shape) {
    Tensor t;
    t.dtype = dtype;
    t.rank = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), t.shape);
    t.data = take(t.bytes());
    return t;
  }
  // Normal numbers, a block again and again.
  Tensor normal(DType dtype, const Shape& shape) { return repeated(attune::normal(dtype, {kBlock}), shape); }
  Tensor positive(DType dtype, const Shape& shape) { return repeated(attune::positive(dtype, {kBlock}), shape); }
  Tensor from(const Value& v) {
    Tensor t = v.type;
    t.data = take(t.bytes());
    must(cudaMemcpy(t.data, v.bytes.data(), v.bytes.size(), cudaMemcpyHostToDevice), "copy");
    return t;
  }
  // Returns the bytes of scratch that it had.
  template <class Op> int64_t run(const char* name, const Op& args) {
    uint32_t opcode = 0;
    while (std::string(kOps[opcode].name) != name) ++opcode;
    cuda::Stream launches(stream_, properties_);
    const int64_t scratch = cuda::scratch(opcode, &args);
    launches.use_scratch(take(scratch));
    cuda::run(opcode, &args, launches);
    if (!launches.ok()) std::printf("FAIL  %s: %s\n", name, launches.failure().c_str()), std::exit(1);
    must(cudaStreamSynchronize(stream_), name);
    return scratch;
  }
  Value read(const Tensor& t) {
    Value v;
    v.type = t;
    v.bytes.resize(static_cast<size_t>(t.bytes()));
    must(cudaMemcpy(v.bytes.data(), t.data, v.bytes.size(), cudaMemcpyDeviceToHost), "copy");
    return v;
  }

 private:
  Tensor repeated(const Value& block, const Shape& shape) {
    Tensor t = tensor(block.type.dtype, shape);
    auto* const to = static_cast<uint8_t*>(t.data);
    int64_t done = std::min(t.bytes(), block.type.bytes());
    must(cudaMemcpy(to, block.bytes.data(), static_cast<size_t>(done), cudaMemcpyHostToDevice), "copy");
    if (kSparse) {
      const int64_t tail = std::min(t.bytes(), int64_t{kTail} * t.bytes() / t.shape[0]);
      for (int64_t at = t.bytes() - tail; at < t.bytes(); at += done)
        must(cudaMemcpy(to + at, block.bytes.data(), static_cast<size_t>(std::min(done, t.bytes() - at)), cudaMemcpyHostToDevice), "copy");
      return t;
    }
    for (int64_t all = t.bytes(); done < all;) {
      const int64_t more = std::min(done, all - done);
      must(cudaMemcpyAsync(to + done, to, static_cast<size_t>(more), cudaMemcpyDeviceToDevice, stream_), "copy");
      must(cudaStreamSynchronize(stream_), "copy");
      done += more;
    }
    return t;
  }
  cuda::Properties properties_;
  cudaStream_t stream_ = open_gpu(&properties_);
  std::vector<void*> owned_;
};

Tensor last_rows(Tensor t, int64_t rows = kSparse ? kSparseTail : kTail) {
  const int64_t tail = std::min(rows, t.shape[0]), row = t.size() / t.shape[0];
  t.data = static_cast<uint8_t*>(t.data) + (t.shape[0] - tail) * row * width(t.dtype);
  t.shape[0] = tail;
  return t;
}

// Both are bf16 or float32 of the same shape; `share`: of a value and of the largest, by which two orders of a sum may differ.
std::string differ(const Value& whole, const Value& alone, double share) {
  double most = 0;
  for (int64_t i = 0; i < alone.type.size(); ++i) most = std::max(most, std::abs(element(alone, i)));
  if (!(most > 0)) return "nothing was computed";
  for (int64_t i = 0; i < alone.type.size(); ++i) {
    const double x = element(alone, i), y = element(whole, i);
    if (x == y || std::abs(x - y) <= share * (std::abs(x) + most)) continue;
    char text[120];
    std::snprintf(text, sizeof text, "element %lld of the last rows: %.9g alone, %.9g in the whole", static_cast<long long>(i), x, y);
    return text;
  }
  return "";
}

// `apply` twice: over the last rows into y, then over the whole, whose inputs it may overwrite.
template <class Apply>
std::string rows_agree(Device& gpu, const std::vector<Tensor>& inputs, const Tensor& y, Apply apply, double share = 0) {
  std::vector<Tensor> tails;
  for (const Tensor& t : inputs) tails.push_back(last_rows(t));
  Tensor of_tail = last_rows(y);
  of_tail.data = gpu.take(of_tail.bytes());
  apply(tails, of_tail);
  const Value alone = gpu.read(of_tail);
  apply(inputs, y);
  return differ(gpu.read(last_rows(y)), alone, share);
}

struct Case {
  const char* name;
  std::function<std::string(Device&, int64_t)> run;  // the tensor of so many elements
  uint64_t ends = 0, whole = 0;                      // of run_ends; 0 ends: as the environment says
};

std::string norm(Device& gpu, int64_t rows, int64_t columns) {
  const Tensor x = gpu.normal(bf16_, {rows, columns}), w = gpu.normal(bf16_, {columns}), y = gpu.tensor(bf16_, {rows, columns});
  const Tensor dy = gpu.normal(bf16_, {rows, columns}), rstd = gpu.positive(f32, {rows});
  std::string why = rows_agree(gpu, {x}, y, [&](auto& in, const Tensor& out) {
    gpu.run("rms_norm", RmsNorm{in[0], w, out, gpu.tensor(f32, {in[0].shape[0]}), 1e-5});
  });
  if (!why.empty()) return why;
  why = rows_agree(gpu, {x, rstd, dy}, y, [&](auto& in, const Tensor& out) {
    gpu.run("rms_norm_backward", RmsNormBackward{in[0], w, in[1], in[2], {}, {}, out, {}, 1e-5});
  });
  return why.empty() ? "" : "backward: " + why;
}

// Rows that a block holds in registers, and longer ones.
std::string norms(Device& gpu, int64_t n) {
  // Of 512 columns the backward's blocks take every kParts-th row: of whole rounds the last rows are the last blocks'.
  constexpr int64_t kParts = 2112;
  const int64_t rows = n / 512;
  std::string why = norm(gpu, rows > kParts ? rows / kParts * kParts : rows, 512);
  gpu.clear();
  return why.empty() ? norm(gpu, n / 16384, 16384) : why;
}

std::string gate(Device& gpu, int64_t n) {
  const int64_t rows = n / 16384;
  const Tensor x = gpu.normal(bf16_, {rows, 16384}), dy = gpu.normal(bf16_, {rows, 8192});
  const Tensor y = gpu.tensor(bf16_, {rows, 8192}), dx = gpu.tensor(bf16_, {rows, 16384});
  std::string why = rows_agree(gpu, {x}, y, [&](auto& in, const Tensor& out) { gpu.run("swiglu", Swiglu{in[0], out}); });
  if (!why.empty()) return why;
  why = rows_agree(gpu, {x, dy}, dx, [&](auto& in, const Tensor& out) { gpu.run("swiglu_backward", SwigluBackward{in[0], in[1], out}); });
  return why.empty() ? "" : "backward: " + why;
}

std::string rope(Device& gpu, int64_t n) {
  const int64_t rows = n / 6144;
  const Tensor qkv = gpu.normal(bf16_, {rows, 6144}), cos = gpu.normal(f32, {rows, 64}), sin = gpu.normal(f32, {rows, 64});
  const Tensor q = gpu.tensor(bf16_, {rows, 32, 128});
  return rows_agree(gpu, {qkv, cos, sin}, q, [&](auto& in, const Tensor& out) {
    const int64_t m = in[0].shape[0];
    gpu.run("qkv_rope", QkvRope{in[0], in[1], in[2], {}, {}, out, gpu.tensor(bf16_, {m, 8, 128}), gpu.tensor(bf16_, {m, 8, 128}), {}, 32, 8, 1e-6});
  });
}

std::string softmax(Device& gpu, int64_t n) {
  constexpr int64_t kVocab = 32768;
  const int64_t rows = n / kVocab;
  const Tensor logits = gpu.normal(f32, {rows, kVocab}), dlogp = gpu.normal(f32, {rows}), dlogits = gpu.tensor(bf16_, {rows, kVocab});
  const Tensor targets = gpu.from(make(i32, {rows}, [](int64_t i) { return static_cast<double>(i * 37 % kVocab); }));
  const Tensor lse = gpu.tensor(f32, {rows});
  std::string why = rows_agree(gpu, {logits, targets}, lse, [&](auto& in, const Tensor& out) {
    gpu.run("log_softmax_gather", LogSoftmaxGather{in[0], in[1], gpu.tensor(f32, {in[0].shape[0]}), out, {}, {}, {}});
  });
  if (!why.empty()) return why;
  why = rows_agree(gpu, {logits, targets, lse, dlogp}, dlogits, [&](auto& in, const Tensor& out) {
    gpu.run("log_softmax_gather_backward", LogSoftmaxGatherBackward{in[0], in[1], in[2], in[3], out});
  });
  return why.empty() ? "" : "backward: " + why;
}

std::string gather(Device& gpu, int64_t n) {
  const int64_t rows = n / 4096, tail = std::min(kTail, rows);
  const Tensor table = gpu.normal(bf16_, {rows, 4096}), y = gpu.tensor(bf16_, {tail, 4096}), alone = gpu.tensor(bf16_, {tail, 4096});
  const auto index = [&](int64_t first) { return gpu.from(make(i32, {tail}, [&](int64_t i) { return static_cast<double>(first + (i * 7 + 3) % tail); })); };
  gpu.run("gather_rows", GatherRows{table, index(rows - tail), y});
  gpu.run("gather_rows", GatherRows{last_rows(table, tail), index(0), alone});
  return differ(gpu.read(last_rows(y)), gpu.read(last_rows(alone)), 0);
}

std::string update(Device& gpu, int64_t n) {
  const Tensor g = gpu.normal(f32, {n}), m = gpu.normal(f32, {n}), v = gpu.positive(f32, {n}), w = gpu.normal(bf16_, {n}), master = gpu.normal(f32, {n});
  const auto number = [&](double x) { return gpu.from(scalar(x)); };
  const Tensor scale = number(0.7), lr = number(1e-3), bias1 = number(0.1), bias2 = number(1e-3);
  return rows_agree(gpu, {g, m, v, w, master}, master, [&](auto& in, const Tensor& out) {
    const bool whole = in[0].shape[0] == n;  // in place, as a step does it
    const auto home = [&](const Tensor& t) { return whole ? t : gpu.tensor(t.dtype, {t.shape[0]}); };
    gpu.run("adamw", Adamw{in[0], in[1], in[2], scale, lr, bias1, bias2, in[3], in[4], home(in[3]), out, home(in[1]), home(in[2]), 0.9, 0.999, 1e-8, 0.1});
  });
}

std::string product(Device& gpu, int64_t n) {
  const Tensor a = gpu.normal(bf16_, {n / 4096, 4096}), b = gpu.normal(bf16_, {4096, 256}), y = gpu.tensor(f32, {n / 4096, 256});
  return rows_agree(gpu, {a}, y, [&](auto& in, const Tensor& out) { gpu.run("gemm", Gemm{in[0], b, {}, {}, out, 0, 0}); }, 1e-5);
}

struct Attended {
  Tensor q, k, v, dy, y, lse, dq, dk, dv;
  int64_t scratch = 0;  // of the backward
};

// Documents of so many tokens. On a sparse emulator nobody sees those before the last, so that its tiles are the first to be dealt.
Attended attend(Device& gpu, Attended s, int64_t document) {
  const int64_t rows = s.q.shape[0], heads = s.q.shape[1];
  const Tensor end = gpu.from(make(i32, {rows}, [&](int64_t i) {
    const int64_t own = i / document * document + document;
    return static_cast<double>(kSparse && own < rows ? 0 : own);
  }));
  s.lse = gpu.tensor(f32, {heads, rows});
  for (auto [of, like] : {std::pair{&s.y, &s.q}, {&s.dq, &s.q}, {&s.dk, &s.k}, {&s.dv, &s.v}})
    *of = gpu.tensor(like->dtype, {rows, like->shape[1], like->shape[2]});
  gpu.run("attention", Attention{s.q, s.k, s.v, end, {}, s.y, s.lse, 0.088, 0});
  s.scratch = gpu.run("attention_backward", AttentionBackward{s.q, s.k, s.v, end, {}, s.y, s.lse, s.dy, s.dq, s.dk, s.dv, 0.088, 0});
  return s;
}

// The last document is a sequence of its own. kept: dS goes through memory.
std::string attention(Device& gpu, DType dtype, int64_t rows, int64_t heads, int64_t kv_heads, bool kept) {
  constexpr int64_t kSize = 128;
  const int64_t document = !kSparse ? kTail : dtype == f32 ? 64 : 128;  // sparse: two tiles of the plain family, of mma
  rows = std::max<int64_t>(1, rows / kTail) * kTail;
  Attended all, tail;
  for (auto [of, count] : {std::pair{&Attended::q, heads}, {&Attended::dy, heads}, {&Attended::k, kv_heads}, {&Attended::v, kv_heads}}) {
    all.*of = gpu.normal(dtype, {rows, count, kSize});
    tail.*of = last_rows(all.*of, document);
  }
  const Attended alone = attend(gpu, tail, document), whole = attend(gpu, all, document);
  if (kept && whole.scratch < heads * rows * rows) return "dS was not kept";
  for (const auto& [name, of] : {std::pair{"y", &Attended::y}, {"dq", &Attended::dq}, {"dk", &Attended::dk}, {"dv", &Attended::dv}})
    if (std::string why = differ(gpu.read(last_rows(whole.*of, document)), gpu.read(alone.*of), 1.0 / 128); !why.empty())
      return std::string(name) + ": " + why;
  return "";
}

std::string attentions(Device& gpu, int64_t n) {
  // Many heads where nothing is computed anyway: the tables of the mask grow with the square of the rows. k and v are as large as q there.
  const int64_t heads = kSparse ? 128 : 32, kv_heads = kSparse ? heads : 8;
  std::string why = attention(gpu, bf16_, n / (heads * 128), heads, kv_heads, false);
  gpu.clear();
  if (!why.empty()) return why;
  // Of 2 heads over n / 2 pairs each, half of them visible to a causal mask, dS is n bytes in bf16.
  why = attention(gpu, bf16_, static_cast<int64_t>(std::sqrt(static_cast<double>(n) / 2)), 2, 2, true);
  gpu.clear();
  if (!why.empty()) return "dS kept: " + why;
  // A GPU would need 43 GB for it, and the emulator a minute for few elements.
  if (kSparse) why = attention(gpu, f32, n / (heads * 128), heads, kv_heads, false);
  return why.empty() ? "" : "float32: " + why;
}

int check(int64_t elements, const std::string& only) {
  const Case cases[] = {{"rms_norm", norms, 4}, {"swiglu", gate}, {"qkv_rope", rope},     {"log_softmax_gather", softmax},
                        {"gather_rows", gather}, {"adamw", update}, {"gemm", product, 4}, {"attention", attentions, 256, 2048}};
  Device gpu;
  int failed = 0, passed = 0;
  for (const Case& c : cases) {
    if (!only.empty() && only != c.name) continue;
    std::string why;
    try {
      gpu.run_ends(c.ends, c.whole);
      why = c.run(gpu, elements);
      ++(why.empty() ? passed : failed);
    } catch (NoRoom) {
      std::printf("skip  %s: no room on the device\n", c.name);
    }
    gpu.clear();
    if (!why.empty()) std::printf("FAIL  %s: %s\n", c.name, why.c_str());
  }
  std::printf("%d cases passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace attune

int main(int count, char** words) {
  const int64_t elements = count > 1 ? std::atoll(words[1]) : 0;
  return attune::check(elements > 0 ? elements : (int64_t{1} << 31) + (int64_t{1} << 24), count > 2 ? words[2] : "");
}
