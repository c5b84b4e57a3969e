// Choosing an algorithm for a product: the session's own choice, that of the machine's file, or the fastest of those that cuBLASLt proposes, timed
// once on the operands at hand. The file stands beside attune's other caches, one for each GPU and version of the library.
// ATTUNE_CUBLASLT_TUNE=off takes the library's first proposal and keeps nothing.
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cublaslt_choices.h"

namespace attune::cuda::lt {
namespace {

constexpr int kProposals = 8, kTimed = 3;
constexpr double kWorthTiming = 1e8;    // operations: smaller products take the first proposal
constexpr double kClearlyFaster = 0.98;  // of the first proposal's time

using Key = Choices::Key;

Key key_of(const Gemm& g) {
  return {g.y.shape[0], g.y.shape[1], g.a.shape[g.ta != 0 ? 0 : 1], g.ta != 0, g.tb != 0,
          static_cast<int64_t>(g.a.dtype) * 4 + static_cast<int64_t>(g.y.dtype), g.onto ? 1 : 0,
          g.bias ? 1 + static_cast<int64_t>(g.bias.dtype) : 0};
}

bool tunes() {
  const char* tune = std::getenv("ATTUNE_CUBLASLT_TUNE");
  return tune == nullptr || std::strcmp(tune, "off") != 0;
}

// Empty where the GPU does not answer.
std::string gpu() {
  int device = 0;
  cudaDeviceProp p;
  return cudaGetDevice(&device) == cudaSuccess && cudaGetDeviceProperties(&p, device) == cudaSuccess ? p.name : "";
}

// Whose choices they are: a text's first line. Where there is no library, gemm.cu's kernels multiply, and that is said too.
std::string made_by() {
  const std::string name = gpu();
  return name.empty() ? "" : name + ", " + (library() ? "cuBLASLt " + std::to_string(library().GetVersion()) : "no cuBLASLt");
}

// A line: the key's eight numbers and the algorithm's eight words.
std::string line_of(const Key& key, const Algorithm& algorithm) {
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
bool parse(const char* line, Key* key, Algorithm* algorithm) {
  bool good = true;
  const auto word = [&](auto read, auto* to, int base) {
    char* end = nullptr;
    *to = read(line, &end, base);
    good = good && end != line;
    line = end;
  };
  for (int64_t& v : *key) word(std::strtoll, &v, 10);
  for (uint64_t& v : algorithm->data) word(std::strtoull, &v, 16);
  return good && *line == '\n';
}

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

void Choices::open() {
  if (opened_) return;
  opened_ = true;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::string name = gpu();
  if (name.empty() || ((cache == nullptr || *cache == 0) && (home == nullptr || *home == 0))) return;
  std::string folder = cache && *cache ? cache : std::string(home) + "/.cache";
  for (const char* part : {"", "/attune", "/cublaslt"}) mkdir((folder += part).c_str(), 0777);
  name += "-" + std::to_string(library().GetVersion());
  std::replace(name.begin(), name.end(), ' ', '-');
  std::replace(name.begin(), name.end(), '/', '-');
  path_ = folder + "/" + name;
  if (std::FILE* f = std::fopen(path_.c_str(), "r")) {
    char line[512];
    Key key;
    Algorithm algorithm;
    while (std::fgets(line, sizeof line, f) != nullptr)
      if (parse(line, &key, &algorithm)) file_.emplace(key, algorithm);  // the first line of a key counts
    std::fclose(f);
  }
}

bool Choices::find(const Key& key, Algorithm* out) {
  if (const auto at = used_.find(key); at != used_.end()) return *out = at->second, true;
  if (!tunes()) return false;
  open();
  const auto at = file_.find(key);
  if (at == file_.end()) return false;
  used_[key] = *out = at->second;
  return true;
}

void Choices::keep(const Key& key, const Algorithm& algorithm, bool timed) {
  used_[key] = algorithm;
  if (!timed || path_.empty()) return;
  if (std::FILE* f = std::fopen(path_.c_str(), "a")) {  // one short write: lines of two processes do not mix
    const std::string line = line_of(key, algorithm);
    std::fwrite(line.data(), 1, line.size(), f);
    std::fclose(f);
  }
}

std::string Choices::text() const {
  const std::string maker = made_by();
  if (maker.empty()) return "";
  std::string all = maker + "\n";
  for (const auto& [key, algorithm] : used_) all += line_of(key, algorithm);
  return all;
}

bool Choices::adopt(const std::string& text) {
  const size_t first = text.find('\n');
  if (first == std::string::npos || text.substr(0, first) != made_by()) return false;
  std::map<Key, Algorithm> all;
  for (size_t at = first + 1; at < text.size();) {
    const size_t end = text.find('\n', at);
    Key key;
    Algorithm algorithm;
    if (end == std::string::npos || !parse(text.substr(at, end + 1 - at).c_str(), &key, &algorithm)) return false;
    all[key] = algorithm;
    at = end + 1;
  }
  used_ = std::move(all);
  return true;
}

bool choose(const Product& product, const Gemm& g, Stream& stream, Algorithm* out) {
  static Choices of_process;  // for who multiplies without a session
  Choices& choices = stream.choices() != nullptr ? *stream.choices() : of_process;
  const Key key = key_of(g);
  if (choices.find(key, out)) return true;
  Found found[kProposals];
  const int count = product.propose(found, kProposals);
  if (count == 0 || found[0].status != 0) return false;
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(stream.handle(), &capturing);
  const double operations = 2.0 * static_cast<double>(key[0]) * static_cast<double>(key[1]) * static_cast<double>(key[2]);
  const bool timed = tunes() && capturing == cudaStreamCaptureStatusNone && operations >= kWorthTiming;
  *out = found[timed ? fastest(product, g, found, count, stream) : 0].algorithm;
  choices.keep(key, *out, timed);
  return true;
}

}  // namespace attune::cuda::lt
