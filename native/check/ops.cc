// attune-check: every op's samples on a device, against the values of the oracle, which computes in float64. Needs no Node: the cases, their values
// and tolerances come in a file (test/ops/bundle.test.ts writes it, bundle.ts says how it is laid out).
//   attune-check BUNDLE [--only OP] [--skip-nan] [--smallest: one case an op and type]
// A case passes where every element is within its tolerance, a second run gives the same bits, an output over an input that may
// be shared gives them too, and the guard bytes around every tensor, and every input, are as they were. Exit 1 where one fails.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "../cuda/common/cublaslt.h"
#include "../cuda/common/open.h"
#include "../cuda/kernels.h"
#include "../runtime/op_info.h"
#include "../runtime/program.h"

namespace attune {
namespace {

constexpr size_t kGuard = 256;
constexpr uint8_t kFill = 0x5a;

void must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(error));
  std::exit(3);
}

// The bundle, read front to back.
class Reader {
 public:
  explicit Reader(const char* path) {
    std::FILE* f = std::fopen(path, "rb");
    if (f == nullptr) die("cannot be read");
    std::fseek(f, 0, SEEK_END);
    all_.resize(static_cast<size_t>(std::ftell(f)));
    std::rewind(f);
    if (std::fread(all_.data(), 1, all_.size(), f) != all_.size()) die("cannot be read");
    std::fclose(f);
  }
  const uint8_t* bytes(size_t n) {
    if (n > all_.size() - at_) die("is cut short");
    const uint8_t* p = all_.data() + at_;
    at_ += (n + 7) / 8 * 8;
    return p;
  }
  uint32_t number() {
    uint32_t n;
    std::memcpy(&n, bytes(8), 4);
    return n;
  }
  uint32_t second() {  // the other half of the number just read
    uint32_t n;
    std::memcpy(&n, all_.data() + at_ - 4, 4);
    return n;
  }

 private:
  [[noreturn]] static void die(const char* what) {
    std::printf("bundle: the file %s\n", what);
    std::exit(2);
  }
  std::vector<uint8_t> all_;
  size_t at_ = 0;
};

struct Case {
  bool nan = false;
  Instruction code;
  std::string title;
  struct Slot {
    const uint8_t* input = nullptr;
    const uint8_t* want = nullptr;       // float32 each; a byte each where a NaN is in: 1 where one may come out
    const uint8_t* tolerance = nullptr;  // float32 each; none where a NaN is in
  };
  std::vector<Slot> slots;
  std::vector<std::pair<uint32_t, uint32_t>> shared;
};

Case read(Reader& r) {
  Case c;
  c.nan = r.number() == 1;
  const uint32_t n = r.number();
  if (Status s = decode_instruction(r.bytes(n), n, &c.code); !s.ok()) {
    std::printf("bundle: %s\n", s.message.c_str());
    std::exit(2);
  }
  const uint32_t length = r.number();
  c.title.assign(reinterpret_cast<const char*>(r.bytes(length)), length);
  if (c.nan) c.title += " with a NaN";
  const OpInfo& op = kOps[c.code.opcode];
  c.slots.resize(c.code.slots.size());
  for (size_t i = 0; i < c.slots.size(); ++i) {
    if (c.code.slots[i].space == attune::Slot::kAbsent) continue;
    const uint8_t** into[2] = {&c.slots[i].input, nullptr};
    if (i >= static_cast<size_t>(op.inputs + op.optionals)) into[0] = &c.slots[i].want, into[1] = c.nan ? nullptr : &c.slots[i].tolerance;
    for (const uint8_t** to : into) {
      if (to == nullptr) continue;
      const uint32_t size = r.number();
      *to = r.bytes(size);
    }
  }
  for (uint32_t pairs = r.number(); pairs > 0; --pairs) {
    const uint32_t out = r.number();
    c.shared.emplace_back(out, r.number());
  }
  return c;
}

// Device memory of one tensor between guards.
struct Place {
  uint8_t* data = nullptr;
  size_t bytes = 0;
};

class Runner {
 public:
  Runner(cudaStream_t stream, const cuda::Properties& device) : stream_(stream), device_(device) {}

  // Runs the case; `over` puts an output into an input's place. What every output holds afterwards, by slot; a reason where it failed.
  std::string run(const Case& c, const std::pair<uint32_t, uint32_t>* over, std::map<size_t, std::vector<uint8_t>>* out) {
    std::vector<Place> places(c.slots.size());
    Tensor tensors[kMaxSlots];
    for (size_t i = 0; i < c.slots.size(); ++i) {
      const attune::Slot& s = c.code.slots[i];
      if (s.space == attune::Slot::kAbsent) continue;
      places[i].bytes = static_cast<size_t>(s.type.bytes());
      if (!(over && over->first == i)) places[i].data = take(places[i].bytes, c.slots[i].input);
      tensors[i].dtype = s.type.dtype;
      tensors[i].rank = s.type.rank;
      std::copy(s.type.size, s.type.size + 4, tensors[i].shape);
    }
    if (over) places[over->first].data = places[over->second].data;
    for (size_t i = 0; i < places.size(); ++i) tensors[i].data = places[i].data;
    alignas(64) uint8_t args[kMaxArgs];
    fill_args(c.code, tensors, args);
    const size_t scratch = static_cast<size_t>(cuda::scratch(c.code.opcode, args));
    Place extra{take(scratch, nullptr), scratch};
    cuda::Stream launches(stream_, device_);
    launches.use_scratch(extra.data);
    cuda::run(c.code.opcode, args, launches);
    std::string why = launches.failure();
    if (why.empty()) must(cudaStreamSynchronize(stream_), c.title.c_str());
    for (size_t i = 0; i < places.size() && why.empty(); ++i) {
      if (places[i].data == nullptr) continue;
      std::vector<uint8_t> now;
      if (!give(places[i], &now)) why = "slot " + std::to_string(i) + ": a guard byte changed";
      const bool written = c.slots[i].want != nullptr || (over && over->second == i);
      if (!written && !now.empty() && std::memcmp(now.data(), c.slots[i].input, now.size()) != 0) why = "slot " + std::to_string(i) + ": an input changed";
      if (c.slots[i].want != nullptr) (*out)[i] = std::move(now);
    }
    std::vector<uint8_t> ignored;
    if (why.empty() && !give(extra, &ignored)) why = "a guard byte of the scratch changed";
    for (size_t i = 0; i < places.size(); ++i)
      if (places[i].data && !(over && over->first == i)) must(cudaFree(places[i].data - kGuard), "free");
    must(cudaFree(extra.data - kGuard), "free");
    return why;
  }

 private:
  uint8_t* take(size_t bytes, const uint8_t* content) {
    uint8_t* data = nullptr;
    must(cudaMalloc(reinterpret_cast<void**>(&data), bytes + 2 * kGuard), "allocation");
    must(cudaMemsetAsync(data, kFill, bytes + 2 * kGuard, stream_), "fill");
    if (content == nullptr) must(cudaMemsetAsync(data + kGuard, 0xff, bytes, stream_), "fill");  // NaN: nothing may be read before it is written
    if (content != nullptr && bytes > 0) must(cudaMemcpyAsync(data + kGuard, content, bytes, cudaMemcpyHostToDevice, stream_), "copy");
    must(cudaStreamSynchronize(stream_), "copy");
    return data + kGuard;
  }
  // False where a guard byte is not as it was.
  bool give(const Place& p, std::vector<uint8_t>* out) {
    std::vector<uint8_t> all(p.bytes + 2 * kGuard);
    must(cudaMemcpyAsync(all.data(), p.data - kGuard, all.size(), cudaMemcpyDeviceToHost, stream_), "copy");
    must(cudaStreamSynchronize(stream_), "copy");
    for (size_t i = 0; i < kGuard; ++i)
      if (all[i] != kFill || all[kGuard + p.bytes + i] != kFill) return false;
    out->assign(all.begin() + kGuard, all.end() - kGuard);
    return true;
  }
  cudaStream_t stream_;
  const cuda::Properties& device_;
};

double element(const uint8_t* data, DType dtype, size_t i) {
  if (dtype == DType::i32) {
    int32_t v;
    std::memcpy(&v, data + 4 * i, 4);
    return v;
  }
  uint32_t u = 0;
  if (dtype == DType::f32) std::memcpy(&u, data + 4 * i, 4);
  else {
    uint16_t h;
    std::memcpy(&h, data + 2 * i, 2);
    u = static_cast<uint32_t>(h) << 16;
  }
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

std::string compare(const Case& c, const std::map<size_t, std::vector<uint8_t>>& out) {
  size_t want_nan = 0, got_nan = 0;
  for (const auto& [slot, data] : out) {
    const DType dtype = c.code.slots[slot].type.dtype;
    const size_t n = data.size() / static_cast<size_t>(width(dtype));
    for (size_t i = 0; i < n; ++i) {
      const double got = element(data.data(), dtype, i);
      float want = NAN, tolerance = 0;
      bool good;
      if (c.nan) {  // a NaN stays where it belongs; values are the other cases' affair
        const bool may = c.slots[slot].want[i] == 1;
        want_nan += may;
        got_nan += std::isnan(got);
        if (!may) want = 0;
        good = !std::isnan(got) || may;
      } else {
        std::memcpy(&want, c.slots[slot].want + 4 * i, 4);
        std::memcpy(&tolerance, c.slots[slot].tolerance + 4 * i, 4);
        good = std::isfinite(want) ? std::abs(got - want) <= tolerance : (std::isnan(want) ? std::isnan(got) : got == want);
      }
      if (good) continue;
      char text[200];
      std::snprintf(text, sizeof text, "slot %zu [%zu of %zu]: %.9g expected, got %.9g, %.3g allowed", slot, i, n, want, got, tolerance);
      return text;
    }
  }
  if (c.nan && want_nan > 0 && got_nan == 0) return "a NaN went in and none came out";
  return "";
}

struct Options {
  std::string only;
  bool nan = true, smallest = false;
};

// Bytes of what a case works on; 0 where an output has no element.
int64_t bytes_of(const Case& c) {
  const OpInfo& op = kOps[c.code.opcode];
  int64_t all = 0;
  for (size_t i = 0; i < c.code.slots.size(); ++i) {
    if (c.code.slots[i].space == attune::Slot::kAbsent) continue;
    const int64_t bytes = c.code.slots[i].type.bytes();
    if (bytes == 0 && i >= static_cast<size_t>(op.inputs + op.optionals)) return 0;
    all += bytes;
  }
  return all;
}

// Of each op and type of its first operand, the smallest case that computes something.
std::vector<Case> smallest_of(const std::vector<Case>& all) {
  std::map<std::pair<uint32_t, DType>, const Case*> chosen;
  for (const Case& c : all) {
    if (c.nan || bytes_of(c) == 0) continue;
    const Case*& best = chosen[{c.code.opcode, c.code.slots[0].type.dtype}];
    if (best == nullptr || bytes_of(c) < bytes_of(*best)) best = &c;
  }
  std::vector<Case> cases;
  for (const auto& [key, c] : chosen) cases.push_back(*c);
  return cases;
}

int check(const char* bundle, const Options& o) {
  cuda::Properties device;
  if (std::string why = cuda::open(0, &device); !why.empty()) {
    std::printf("device: %s\n", why.c_str());
    return 5;
  }
  cudaStream_t stream;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  std::printf("products by %s\n", cuda::cublaslt_name().c_str());
  Runner runner(stream, device);
  Reader r(bundle);
  if (r.number() != 0x32425441) return std::printf("bundle: not one of ours\n"), 2;
  std::vector<Case> cases(r.second());
  for (Case& c : cases) c = read(r);
  if (o.smallest) cases = smallest_of(cases);
  std::map<std::string, std::pair<int, int>> tally;  // op: passed, failed
  for (const Case& c : cases) {
    const std::string op = kOps[c.code.opcode].name;
    if ((!o.only.empty() && op != o.only) || (c.nan && !o.nan)) continue;
    std::map<size_t, std::vector<uint8_t>> first, again;
    std::string why = runner.run(c, nullptr, &first);
    if (why.empty()) why = compare(c, first);
    if (why.empty() && !c.nan) {
      why = runner.run(c, nullptr, &again);
      if (why.empty() && again != first) why = "a second run gave other bits";
      for (const auto& pair : c.shared) {
        if (!why.empty()) break;
        again.clear();
        why = runner.run(c, &pair, &again);
        if (why.empty() && again != first) why = "slot " + std::to_string(pair.first) + " over slot " + std::to_string(pair.second) + " gave other bits";
      }
    }
    (why.empty() ? tally[op].first : tally[op].second) += 1;
    if (!why.empty()) std::printf("FAIL  %s: %s\n", c.title.c_str(), why.c_str());
  }
  int passed = 0, failed = 0;
  for (const auto& [op, t] : tally) {
    std::printf("%s  %-28s %d of %d\n", t.second ? "FAIL" : "ok  ", op.c_str(), t.first, t.first + t.second);
    passed += t.first;
    failed += t.second;
  }
  std::printf("%d cases passed, %d failed (compute capability %d.%d)\n", passed, failed, device.major, device.minor);
  return failed > 0 || passed == 0;
}

}  // namespace
}  // namespace attune

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  attune::Options o;
  for (int i = 2; i < argc; ++i) {
    if (std::string(argv[i]) == "--only" && i + 1 < argc) o.only = argv[++i];
    else if (std::string(argv[i]) == "--skip-nan") o.nan = false;
    else if (std::string(argv[i]) == "--smallest") o.smallest = true;
  }
  if (argc < 2) return std::printf("usage: attune-check BUNDLE [--only OP] [--skip-nan] [--smallest]\n"), 2;
  return attune::check(argv[1], o);
}
