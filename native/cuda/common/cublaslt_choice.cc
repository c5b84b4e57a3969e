// Which of cuBLASLt's algorithms multiplies: the fastest of those it proposes, timed once on the operands at hand and kept in a file
// beside attune's other caches, one for each GPU and version of the library. Two algorithms sum in two orders, so the file is also what makes
// a later run give an earlier one's bits. ATTUNE_CUBLASLT_TUNE=off takes the library's first proposal and keeps nothing.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "cublaslt_library.h"

namespace attune::cuda::lt {
namespace {

constexpr int kProposals = 8, kTimed = 3;
constexpr double kWorthTiming = 1e8;    // operations: smaller products take the first proposal
constexpr double kClearlyFaster = 0.98;  // of the first proposal's time

// m, n, k, ta, tb, dtypes, onto, bias
using Key = std::array<int64_t, 8>;

Key key_of(const Gemm& g) {
  return {g.y.shape[0], g.y.shape[1], g.a.shape[g.ta != 0 ? 0 : 1], g.ta != 0, g.tb != 0,
          static_cast<int64_t>(g.a.dtype) * 4 + static_cast<int64_t>(g.y.dtype), g.onto ? 1 : 0,
          g.bias ? 1 + static_cast<int64_t>(g.bias.dtype) : 0};
}

// The file's choices, read once; a line is the key's eight numbers and the algorithm's eight words.
class Choices {
 public:
  bool find(const Key& key, Algorithm* out) const {
    const auto at = all_.find(key);
    if (at == all_.end()) return false;
    *out = at->second;
    return true;
  }
  void keep(const Key& key, const Algorithm& algorithm, bool timed) {
    all_[key] = algorithm;
    if (!timed || path_.empty()) return;
    if (std::FILE* f = std::fopen(path_.c_str(), "a")) {  // one short write: lines of two processes do not mix
      const std::string line = text(key, algorithm);
      std::fwrite(line.data(), 1, line.size(), f);
      std::fclose(f);
    }
  }
  void open() {
    if (opened_) return;
    opened_ = true;
    int device = 0;
    cudaDeviceProp p;
    if (cudaGetDevice(&device) != cudaSuccess || cudaGetDeviceProperties(&p, device) != cudaSuccess) return;
    const char* cache = std::getenv("XDG_CACHE_HOME");
    const char* home = std::getenv("HOME");
    if ((cache == nullptr || *cache == 0) && (home == nullptr || *home == 0)) return;
    std::string folder = cache && *cache ? cache : std::string(home) + "/.cache";
    for (const char* part : {"", "/attune", "/cublaslt"}) mkdir((folder += part).c_str(), 0777);
    std::string name = std::string(p.name) + "-" + std::to_string(library().GetVersion());
    std::replace(name.begin(), name.end(), ' ', '-');
    std::replace(name.begin(), name.end(), '/', '-');
    path_ = folder + "/" + name;
    if (std::FILE* f = std::fopen(path_.c_str(), "r")) {
      char line[512];
      while (std::fgets(line, sizeof line, f) != nullptr) parse(line);
      std::fclose(f);
    }
  }

 private:
  static std::string text(const Key& key, const Algorithm& algorithm) {
    std::string s;
    char word[32];
    for (int64_t v : key) {
      std::snprintf(word, sizeof word, "%lld ", static_cast<long long>(v));
      s += word;
    }
    for (uint64_t v : algorithm.data) {
      std::snprintf(word, sizeof word, "%016llx ", static_cast<unsigned long long>(v));
      s += word;
    }
    s.back() = '\n';
    return s;
  }
  // The first line of a key counts: a run that began with it goes on with it.
  void parse(const char* line) {
    Key key;
    Algorithm algorithm;
    char* at = const_cast<char*>(line);
    for (int64_t& v : key) v = std::strtoll(at, &at, 10);
    for (uint64_t& v : algorithm.data) v = std::strtoull(at, &at, 16);
    if (*at == '\n') all_.emplace(key, algorithm);
  }
  std::map<Key, Algorithm> all_;
  std::string path_;
  bool opened_ = false;
};

// The index of the fastest proposal. y is left alone: the products go to memory of their own.
int fastest(const Product& product, const Gemm& g, const Found* found, int count, Stream& stream) {
  void* y = nullptr;
  if (cudaMalloc(&y, static_cast<size_t>(g.y.bytes())) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  cudaMemsetAsync(y, 0, static_cast<size_t>(g.y.bytes()), stream.handle());
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  int best = 0;
  float first = 0, least = 0;
  for (int i = 0; i < count; ++i) {
    if (found[i].status != 0 || product.run(g, y, found[i].algorithm, stream) != 0) continue;
    cudaEventRecord(begin, stream.handle());
    for (int k = 0; k < kTimed; ++k) product.run(g, y, found[i].algorithm, stream);
    cudaEventRecord(end, stream.handle());
    if (cudaEventSynchronize(end) != cudaSuccess) break;
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (i == 0) first = least = ms;
    if (ms < least && static_cast<double>(ms) < kClearlyFaster * static_cast<double>(first)) {
      least = ms;
      best = i;
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaFree(y);
  return best;
}

}  // namespace

bool choose(const Product& product, const Gemm& g, Stream& stream, Algorithm* out) {
  static Choices choices;
  static std::mutex lock;
  const std::lock_guard<std::mutex> held(lock);
  const char* tune = std::getenv("ATTUNE_CUBLASLT_TUNE");
  const bool tunes = tune == nullptr || std::strcmp(tune, "off") != 0;
  if (tunes) choices.open();
  const Key key = key_of(g);
  if (choices.find(key, out)) return true;
  Found found[kProposals];
  const int count = product.propose(found, kProposals);
  if (count == 0 || found[0].status != 0) return false;
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(stream.handle(), &capturing);
  const double operations = 2.0 * static_cast<double>(key[0]) * static_cast<double>(key[1]) * static_cast<double>(key[2]);
  const bool timed = tunes && capturing == cudaStreamCaptureStatusNone && operations >= kWorthTiming;
  *out = found[timed ? fastest(product, g, found, count, stream) : 0].algorithm;
  choices.keep(key, *out, timed);
  return true;
}

}  // namespace attune::cuda::lt
