// attune-stand-in: the emulator's stand-in for cuBLASLt against what the library's manual says of it: what a product is, when it happens, which
// algorithms are proposed, and what is refused with nothing written. For the emulator only; ATTUNE_CUBLASLT names the stand-in.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "../cuda/common/cublaslt_library.h"

namespace attune::cuda::lt {
namespace {

constexpr int kSuccess = 0, kFound = 4;
constexpr size_t kFloats = 64, kEnough = 1 << 16;
constexpr float kUntouched = -77;

int failed = 0;
void say(const std::string& name, bool good) {
  failed += !good;
  std::printf("%s %s\n", good ? "ok  " : "FAIL", name.c_str());
}

float* on_device(const std::vector<float>& values) {
  void* at = nullptr;
  cudaMalloc(&at, kFloats * sizeof(float));
  cudaMemcpy(at, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice);
  cudaDeviceSynchronize();
  return static_cast<float*>(at);
}

// D (m, n) = alpha op(A) op(B) + beta C, column-major in fp32; each part may be spoilt before it is asked for.
struct Call {
  const Library& l = library();
  Handle handle = l.handle;
  Description product = nullptr, a = nullptr, b = nullptr, c = nullptr, d = nullptr, wish = nullptr;
  float *a_data, *b_data, *c_data, *d_data;
  float alpha = 1, beta = 0;
  Algorithm algorithm;
  void* scratch = nullptr;
  size_t scratch_bytes = kEnough;
  cudaStream_t stream = nullptr;

  // A (m, k) with strides of its own, all k products of a sum being those of `row`.
  explicit Call(const std::vector<float>& row = {1, 2, 3, 4}, uint64_t m = 2, uint64_t n = 3) {
    const uint64_t k = row.size();
    std::vector<float> left(kFloats, kUntouched);
    for (uint64_t x = 0; x < k; ++x)
      for (uint64_t i = 0; i < m; ++i) left[x * (m + 1) + i] = row[x] * static_cast<float>(i + 1);
    std::vector<float> right(kFloats, kUntouched);
    for (uint64_t j = 0; j < n; ++j)
      for (uint64_t x = 0; x < k; ++x) right[j * (k + 2) + x] = static_cast<float>(j + 1);
    a_data = on_device(left);
    b_data = on_device(right);
    c_data = on_device(std::vector<float>(kFloats, 5));
    d_data = on_device(std::vector<float>(kFloats, kUntouched));
    cudaMalloc(&scratch, kEnough);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    l.MatmulDescCreate(&product, kCompute32, kReal32);
    a = matrix(m, k, m + 1);
    b = matrix(k, n, k + 2);
    c = matrix(m, n, m);
    d = matrix(m, n, m + 3);
    l.MatmulPreferenceCreate(&wish);
    prefer(kMaxWorkspace, uint64_t{kEnough});
    prefer(kReductionMask, uint32_t{kReduceInOrder});
    Found found[kFound];
    int count = 0;
    if (propose(found, &count) == kSuccess) algorithm = found[0].algorithm;
  }
  Description matrix(uint64_t rows, uint64_t columns, uint64_t stride, int type = kReal32) const {
    Description made = nullptr;
    return l.MatrixLayoutCreate(&made, type, rows, columns, static_cast<int64_t>(stride)) == kSuccess ? made : nullptr;
  }
  template <class T> Status set(int what, T value) const { return l.MatmulDescSetAttribute(product, what, &value, sizeof value); }
  template <class T> Status prefer(int what, T value) const { return l.MatmulPreferenceSetAttribute(wish, what, &value, sizeof value); }
  Status propose(Found* found, int* count) const { return l.MatmulAlgoGetHeuristic(handle, product, a, b, c, d, wish, kFound, found, count); }
  // The words that name the algorithms proposed, in their order.
  std::string proposed() const {
    Found found[kFound];
    int count = 0;
    if (propose(found, &count) != kSuccess) return "none";
    std::string all;
    for (int i = 0; i < count; ++i) all += std::to_string(found[i].algorithm.data[1]);
    return all;
  }
  Status multiply() const {
    return l.Matmul(handle, product, &alpha, a_data, a, b_data, b, &beta, c_data, c, d_data, d, &algorithm, scratch, scratch_bytes, stream);
  }
  std::vector<float> result() const {
    cudaStreamSynchronize(stream);
    return std::vector<float>(d_data, d_data + kFloats);  // the emulator's memory is the host's
  }
  bool untouched() const {
    for (float x : result())
      if (x != kUntouched) return false;
    return true;
  }
};

void products() {
  Call plain;
  say("a product that nobody waited for has not happened", plain.multiply() == kSuccess && plain.d_data[0] == kUntouched);
  std::vector<float> want(kFloats, kUntouched);
  for (size_t j = 0; j < 3; ++j)
    for (size_t i = 0; i < 2; ++i) want[j * 5 + i] = 10.f * static_cast<float>((i + 1) * (j + 1));
  say("strides are obeyed, and nothing between them is written", plain.result() == want);

  Call scaled;
  scaled.alpha = 2, scaled.beta = 3;
  const bool good = scaled.multiply() == kSuccess;
  for (size_t j = 0; j < 3; ++j)
    for (size_t i = 0; i < 2; ++i) want[j * 5 + i] = 20.f * static_cast<float>((i + 1) * (j + 1)) + 15;
  say("alpha scales the product, beta adds another matrix", good && scaled.result() == want);

  Call unread;
  for (size_t i = 0; i < kFloats; ++i) unread.c_data[i] = std::numeric_limits<float>::quiet_NaN();
  say("a beta of 0 reads nothing", unread.multiply() == kSuccess && unread.result()[0] == 10);

  Call graphed;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  cudaStreamBeginCapture(graphed.stream, cudaStreamCaptureModeRelaxed);
  const bool captured = graphed.multiply() == kSuccess;
  cudaStreamEndCapture(graphed.stream, &graph);
  say("a captured product has not happened", captured && graphed.untouched());
  cudaGraphInstantiate(&ready, graph, 0);
  for (float first : {1.f, 11.f}) {  // the sums' first term: the graph reads its operands anew
    graphed.a_data[0] = first;
    cudaGraphLaunch(ready, graphed.stream);
    say("a graph multiplies each time it is launched", graphed.result()[0] == first + 9);
  }
}

void algorithms() {
  std::string orders;
  for (uint64_t i = 0; i < 3; ++i) {
    Call c({1, 1e8f, -1e8f, 3}, 1, 1);
    c.algorithm.data[1] = i;
    if (c.multiply() == kSuccess) orders += std::to_string(static_cast<int>(c.result()[0]));
  }
  say("each algorithm sums in an order of its own", orders == "310");
  Call c;
  say("sums that are split in order are proposed", c.proposed() == "012");
  c.prefer(kReductionMask, uint32_t{0});
  say("none is split where the mask is 0", c.proposed() == "01");
  c.prefer(kReductionMask, uint32_t{1});
  say("the mask can ask for those in place", c.proposed() == "013");
  c.prefer(kMaxWorkspace, uint64_t{8});
  say("none is proposed that wants more memory", c.proposed() == "01");
}

// What each spoils is refused by status, and D stays as it was. `asked`: the proposals refuse it too.
template <class Spoil> void refuses(const char* name, bool asked, Spoil spoil) {
  Call c;
  const Algorithm valid = c.algorithm;
  spoil(c);
  Found found[kFound];
  int count = 0;
  const bool proposals = !asked || c.propose(found, &count) != kSuccess;
  if (asked) c.algorithm = valid;
  say(std::string("refused: ") + name, proposals && c.multiply() != kSuccess && c.untouched());
}

void refusals() {
  refuses("no handle", true, [](Call& c) { c.handle = nullptr; });
  refuses("another library's handle", true, [](Call& c) { c.handle = &c; });
  refuses("no description", true, [](Call& c) { c.product = nullptr; });
  refuses("no layout", true, [](Call& c) { c.b = nullptr; });
  refuses("inner sizes that differ", true, [](Call& c) { c.b = c.matrix(5, 3, 5); });
  refuses("inner sizes that differ once transposed", true, [](Call& c) { c.set(kTransA, int32_t{1}); });
  refuses("rows of D that are not A's", true, [](Call& c) { c.d = c.matrix(3, 3, 5); });
  refuses("columns of D that are not B's", true, [](Call& c) { c.d = c.matrix(2, 4, 5); });
  refuses("a C of another size than D", true, [](Call& c) { c.c = c.matrix(2, 2, 2); });
  refuses("a stride below the rows", true, [](Call& c) { c.a = c.matrix(2, 4, 1); });
  refuses("operands of two types", true, [](Call& c) { c.b = c.matrix(4, 3, 6, kBfloat16); });
  refuses("a result narrower than the operands", true, [](Call& c) { c.d = c.c = c.matrix(2, 3, 5, kBfloat16); });
  refuses("a compute type that attune never asks for", true, [](Call& c) { c.l.MatmulDescCreate(&c.product, 77, kReal32); });
  refuses("an epilogue that attune never asks for", true, [](Call& c) { c.set(kEpilogue, uint32_t{2}); });
  refuses("a bias without its place", true, [](Call& c) { c.set(kEpilogue, uint32_t{kEpilogueBias}); });
  refuses("no addend for a beta", false, [](Call& c) { c.beta = 1, c.c_data = nullptr; });
  refuses("no operand", false, [](Call& c) { c.a_data = nullptr; });
  refuses("words that are no algorithm's", false, [](Call& c) { c.algorithm.data[0] ^= 1; });
  refuses("an algorithm that is not known", false, [](Call& c) { c.algorithm.data[1] = 9; });
  refuses("less scratch than the algorithm wants", false, [](Call& c) { c.algorithm.data[1] = 2, c.scratch_bytes = 23; });
  refuses("no scratch for an algorithm that wants it", false, [](Call& c) { c.algorithm.data[1] = 2, c.scratch = nullptr; });

  Call c;
  say("refused: an attribute that is not known", c.set(99, int32_t{1}) != kSuccess && c.prefer(99, uint64_t{1}) != kSuccess);
  say("refused: an attribute of another size",
      c.set(kTransA, int64_t{1}) != kSuccess && c.set(kBiasPointer, int32_t{0}) != kSuccess && c.prefer(kMaxWorkspace, uint32_t{1}) != kSuccess &&
          c.prefer(kReductionMask, uint64_t{1}) != kSuccess);
  say("refused: values that an attribute cannot have", c.set(kTransB, int32_t{7}) != kSuccess && c.set(kBiasType, int32_t{5}) != kSuccess);
  say("refused: a type that no matrix of attune has", c.matrix(2, 3, 2, 3) == nullptr);
  say("what was refused left the call as it was", c.multiply() == kSuccess && c.result()[0] == 10);
}

}  // namespace
}  // namespace attune::cuda::lt

int main() {
  using namespace attune::cuda::lt;
  if (!library()) {
    std::printf("%s\n", library().name.c_str());
    return 2;
  }
  products();
  algorithms();
  refusals();
  std::printf("%d failed\n", failed);
  return failed > 0;
}
