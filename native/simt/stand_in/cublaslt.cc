// A stand-in for cuBLASLt on the emulator: its C interface (cuBLASLt API reference, CUDA 13), as far as native/cuda/common/cublaslt_library.h
// goes. It computes D = alpha op(A) op(B) + beta C, with a bias, from the descriptions alone, column-major, in fp32 sums; refuses what the
// library refuses; and works in the stream it is given, so a product that nobody waited for has not happened. Its algorithms sum in different
// orders, so bits tell which one ran. ATTUNE_STAND_IN_FIRST=0|1|2 says which is proposed first, ATTUNE_STAND_IN_VERSION what it calls itself.
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

namespace {

enum Status : int { kSuccess = 0, kInvalid = 7, kUnsupported = 15 };
enum Type : int { kFloat = 0, kBfloat16 = 14 };
constexpr int kCompute32 = 68;
constexpr uint32_t kNoEpilogue = 1, kBias = 4;
constexpr uint32_t kInPlace = 1, kInOrder = 2;  // reduction schemes, as bits of a mask
constexpr uint64_t kOurs = 0x617474756e65;

cudaError_t (*queue)(cudaStream_t, cudaHostFn_t, void*) = nullptr;
void* const our_handle = &queue;  // the only one

struct Description {
  int compute, scale;
  int32_t transposed[2] = {0, 0};
  uint32_t epilogue = kNoEpilogue;
  const void* bias = nullptr;
  int32_t bias_type = -1;  // that of D
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t stride;
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t reduction = kInPlace | kInOrder;
};
struct Algorithm {
  uint64_t data[8];
};
struct Found {
  Algorithm algorithm;
  size_t workspace;
  Status status;
  float waves;
  int reserved[4];
};

// 0: k rising. 1: k falling. 2: two halves of k, added in order. 3: two halves, added as they come, which the real library may do in any order.
constexpr int kAlgorithms = 4;
uint32_t scheme_of(int algorithm) { return algorithm == 2 ? kInOrder : algorithm == 3 ? kInPlace : 0; }

float load(const void* at, int type, int64_t i) {
  if (type == kFloat) return static_cast<const float*>(at)[i];
  const uint32_t bits = uint32_t{static_cast<const uint16_t*>(at)[i]} << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
void store(void* at, int type, int64_t i, float x) {
  if (type == kFloat) {
    static_cast<float*>(at)[i] = x;
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) <= 0x7f800000) bits += 0x7fff + (bits >> 16 & 1);
  static_cast<uint16_t*>(at)[i] = static_cast<uint16_t>(bits >> 16);
}

struct Job {
  Description product;
  Layout a, b, c, d;
  const void *a_data, *b_data, *c_data;
  void* d_data;
  float alpha, beta;
  int algorithm;
  int64_t m, n, k;

  float sum(int64_t i, int64_t j, int64_t from, int64_t to, bool falling) const {
    float total = 0;
    for (int64_t step = from; step < to; ++step) {
      const int64_t x = falling ? from + to - 1 - step : step;
      total += load(a_data, a.type, product.transposed[0] ? x + i * a.stride : i + x * a.stride) *
               load(b_data, b.type, product.transposed[1] ? j + x * b.stride : x + j * b.stride);
    }
    return total;
  }
  void run() const {
    for (int64_t j = 0; j < n; ++j)
      for (int64_t i = 0; i < m; ++i) {
        float x = algorithm < 2 ? sum(i, j, 0, k, algorithm == 1) : sum(i, j, 0, k / 2, false) + sum(i, j, k / 2, k, false);
        x *= alpha;
        if (beta != 0) x += beta * load(c_data, c.type, i + j * c.stride);
        if (product.epilogue == kBias) x += load(product.bias, product.bias_type < 0 ? d.type : product.bias_type, i);
        store(d_data, d.type, i + j * d.stride, x);
      }
  }
};

// A captured product runs as often as its graph: jobs stay.
std::deque<Job>& jobs() {
  static std::deque<Job> all;
  return all;
}

bool known(int type) { return type == kFloat || type == kBfloat16; }

// Why these descriptions are no product, or kSuccess and its sizes.
Status sizes(const Description* p, const Layout* a, const Layout* b, const Layout* c, const Layout* d, int64_t* m, int64_t* n, int64_t* k) {
  if (!p || !a || !b || !c || !d) return kInvalid;
  if (p->compute != kCompute32 || p->scale != kFloat || a->type != b->type || c->type != d->type || (a->type == kFloat && d->type != kFloat)) return kUnsupported;
  for (const Layout* l : {a, b, c, d})
    if (l->stride < static_cast<int64_t>(l->rows) || l->rows == 0 || l->columns == 0) return kInvalid;
  const auto side = [](const Layout* l, bool second) { return static_cast<int64_t>(second ? l->columns : l->rows); };
  *m = side(a, p->transposed[0]);
  *k = side(a, !p->transposed[0]);
  *n = side(b, !p->transposed[1]);
  if (side(b, p->transposed[1]) != *k) return kInvalid;
  for (const Layout* l : {c, d})
    if (static_cast<int64_t>(l->rows) != *m || static_cast<int64_t>(l->columns) != *n) return kInvalid;
  if (p->epilogue != kNoEpilogue && p->epilogue != kBias) return kUnsupported;
  return p->epilogue == kBias && !p->bias ? kInvalid : kSuccess;
}

size_t workspace_of(int algorithm, int64_t m, int64_t n) { return algorithm < 2 ? 0 : static_cast<size_t>(m * n * 4); }

// An attribute's value: of its size, and one that it can have.
template <class T> Status take(T* to, const void* from, size_t bytes, bool (*can_be)(std::type_identity_t<T>) = nullptr) {
  T value;
  if (!from || bytes != sizeof value) return kInvalid;
  std::memcpy(&value, from, bytes);
  if (can_be && !can_be(value)) return kInvalid;
  return *to = value, kSuccess;
}

int first_proposal() {
  const char* given = std::getenv("ATTUNE_STAND_IN_FIRST");
  return given ? std::atoi(given) % 3 : 0;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// The emulator's own cudaLaunchHostFunc: this library is loaded apart from it.
EXPORT void attuneStandInAttach(cudaError_t (*launch)(cudaStream_t, cudaHostFn_t, void*)) { queue = launch; }

EXPORT Status cublasLtCreate(void** handle) {
  if (!handle) return kInvalid;
  if (!queue) return kUnsupported;
  return *handle = our_handle, kSuccess;
}
EXPORT size_t cublasLtGetVersion() {
  const char* given = std::getenv("ATTUNE_STAND_IN_VERSION");
  return given ? static_cast<size_t>(std::atoll(given)) : 130100;
}
EXPORT Status cublasLtMatmulDescCreate(Description** out, int compute, int scale) {
  if (!out) return kInvalid;
  return *out = new Description{compute, scale}, kSuccess;
}
EXPORT Status cublasLtMatmulDescDestroy(Description* d) { return delete d, kSuccess; }
EXPORT Status cublasLtMatmulDescSetAttribute(Description* d, int what, const void* value, size_t bytes) {
  if (!d) return kInvalid;
  switch (what) {
    case 3:
    case 4:
      return take(&d->transposed[what - 3], value, bytes, [](int32_t t) { return t == 0 || t == 1; });
    case 7:
      return take(&d->epilogue, value, bytes);
    case 8:
      return take(&d->bias, value, bytes);
    case 26:
      return take(&d->bias_type, value, bytes, known);
    default:
      return kInvalid;
  }
}
EXPORT Status cublasLtMatrixLayoutCreate(Layout** out, int type, uint64_t rows, uint64_t columns, int64_t stride) {
  if (!out || !known(type)) return kInvalid;
  return *out = new Layout{type, rows, columns, stride}, kSuccess;
}
EXPORT Status cublasLtMatrixLayoutDestroy(Layout* l) { return delete l, kSuccess; }
EXPORT Status cublasLtMatmulPreferenceCreate(Preference** out) {
  if (!out) return kInvalid;
  return *out = new Preference, kSuccess;
}
EXPORT Status cublasLtMatmulPreferenceDestroy(Preference* p) { return delete p, kSuccess; }
EXPORT Status cublasLtMatmulPreferenceSetAttribute(Preference* p, int what, const void* value, size_t bytes) {
  if (!p) return kInvalid;
  return what == 1 ? take(&p->workspace, value, bytes) : what == 3 ? take(&p->reduction, value, bytes) : kInvalid;
}
EXPORT Status cublasLtMatmulAlgoGetHeuristic(void* handle, Description* p, Layout* a, Layout* b, Layout* c, Layout* d, Preference* wish, int most, Found* out,
                                             int* count) {
  int64_t m, n, k;
  if (handle != our_handle || !wish || !out || !count || most < 1) return kInvalid;
  if (const Status s = sizes(p, a, b, c, d, &m, &n, &k); s != kSuccess) return s;
  *count = 0;
  for (int i = 0; i < kAlgorithms && *count < most; ++i) {
    const int id = i == 3 ? 3 : (first_proposal() + i) % 3;
    if ((scheme_of(id) & ~wish->reduction) != 0 || workspace_of(id, m, n) > wish->workspace) continue;
    out[(*count)++] = {{{kOurs, static_cast<uint64_t>(id)}}, workspace_of(id, m, n), kSuccess, 1, {}};
  }
  return *count > 0 ? kSuccess : kUnsupported;
}
EXPORT Status cublasLtMatmul(void* handle, Description* p, const void* alpha, const void* a_data, Layout* a, const void* b_data, Layout* b, const void* beta,
                             const void* c_data, Layout* c, void* d_data, Layout* d, const Algorithm* algorithm, void* workspace, size_t bytes,
                             cudaStream_t stream) {
  static std::mutex lock;
  Job job{};
  if (handle != our_handle || !alpha || !beta || !a_data || !b_data || !d_data || !algorithm) return kInvalid;
  if (const Status s = sizes(p, a, b, c, d, &job.m, &job.n, &job.k); s != kSuccess) return s;
  std::memcpy(&job.alpha, alpha, 4);
  std::memcpy(&job.beta, beta, 4);
  if (job.beta != 0 && !c_data) return kInvalid;
  if (algorithm->data[0] != kOurs || algorithm->data[1] >= kAlgorithms) return kUnsupported;
  job.algorithm = static_cast<int>(algorithm->data[1]);
  const size_t wanted = workspace_of(job.algorithm, job.m, job.n);
  if (wanted > 0 && (!workspace || bytes < wanted)) return kInvalid;
  job.product = *p;
  job.a = *a, job.b = *b, job.c = *c, job.d = *d;
  job.a_data = a_data, job.b_data = b_data, job.c_data = c_data, job.d_data = d_data;
  const std::lock_guard<std::mutex> held(lock);
  jobs().push_back(job);
  return queue(stream, [](void* data) { static_cast<const Job*>(data)->run(); }, &jobs().back()) == cudaSuccess ? kSuccess : kInvalid;
}
