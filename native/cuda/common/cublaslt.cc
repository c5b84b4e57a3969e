// See cublaslt.h. The few declarations used here are the library's public C interface (cuBLASLt API reference, CUDA 12 and 13),
// written out because its header need not be on the box that builds. Row-major y = op(a) op(b) is asked for as its transpose:
// column-major D (n, m) = op(b)' op(a)'.
#include "cublaslt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

namespace attune::cuda {
namespace {

constexpr int64_t kWorkspace = 32 << 20;

using Handle = void*;
using Description = void*;  // of a product, a matrix or a preference: the library's own create functions make them
using Status = int;         // 0: success

enum : int { kReal32 = 0, kBfloat16 = 14 };              // cudaDataType
enum : int { kCompute32 = 68 };                          // cublasComputeType_t: fp32 sums, no TF32
enum : int { kTransA = 3, kTransB = 4, kEpilogue = 7, kBiasPointer = 8, kBiasType = 26 };  // cublasLtMatmulDescAttributes_t
enum : int { kEpilogueBias = 4 };
enum : int { kMaxWorkspace = 1, kReductionMask = 3 };    // cublasLtMatmulPreferenceAttributes_t
// A split sum whose parts are added in a separate step, in their order. The other scheme, in place, adds them as blocks come.
enum : uint32_t { kReduceInOrder = 2 };

struct Algorithm {
  uint64_t data[8];
};
struct Found {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  size_t workspace;
  Status status;
  float waves;
  int reserved[4];
};

struct Library {
  Status (*Create)(Handle*) = nullptr;
  size_t (*GetVersion)() = nullptr;
  Status (*MatmulDescCreate)(Description*, int compute, int scale) = nullptr;
  Status (*MatmulDescDestroy)(Description) = nullptr;
  Status (*MatmulDescSetAttribute)(Description, int, const void*, size_t) = nullptr;
  Status (*MatrixLayoutCreate)(Description*, int type, uint64_t rows, uint64_t columns, int64_t stride) = nullptr;
  Status (*MatrixLayoutDestroy)(Description) = nullptr;
  Status (*MatmulPreferenceCreate)(Description*) = nullptr;
  Status (*MatmulPreferenceDestroy)(Description) = nullptr;
  Status (*MatmulPreferenceSetAttribute)(Description, int, const void*, size_t) = nullptr;
  Status (*MatmulAlgoGetHeuristic)(Handle, Description, Description, Description, Description, Description, Description, int,
                                   Found*, int*) = nullptr;
  Status (*Matmul)(Handle, Description, const void*, const void*, Description, const void*, Description, const void*,
                   const void*, Description, void*, Description, const Algorithm*, void*, size_t, cudaStream_t) = nullptr;
  Handle handle = nullptr;
  std::string name;  // what it is, or why it is not there

  explicit operator bool() const { return handle != nullptr; }
};

// ATTUNE_CUBLASLT names the file ("off": none); else the loader's own search, then CUDA_HOME.
void* open_library(std::string* file) {
  std::vector<std::string> places;
  const char* given = std::getenv("ATTUNE_CUBLASLT");
  if (given != nullptr && *given != 0) {
    if (std::strcmp(given, "off") == 0) return nullptr;
    places = {given};
  } else {
    places = {"libcublasLt.so.13", "libcublasLt.so.12"};
    const char* home = std::getenv("CUDA_HOME");
    for (const std::string& folder : {std::string(home ? home : "/usr/local/cuda"), std::string("/usr/local/cuda-13.0")})
      for (const char* major : {"13", "12"}) places.push_back(folder + "/lib64/libcublasLt.so." + major);
  }
  for (const std::string& place : places) {
    if (void* found = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      *file = place;
      return found;
    }
  }
  return nullptr;
}

Library load() {
  Library l;
  std::string file;
  void* opened = open_library(&file);
  if (opened == nullptr) {
    l.name = "none: no libcublasLt.so.13 or .12 was found (ATTUNE_CUBLASLT=FILE names one; the CUDA toolkit and the pip package nvidia-cublas carry it)";
    return l;
  }
  bool all = true;
  const auto get = [&](const char* name, auto* into) {
    void* symbol = dlsym(opened, (std::string("cublasLt") + name).c_str());
    all = all && symbol != nullptr;
    std::memcpy(into, &symbol, sizeof symbol);
  };
  get("Create", &l.Create);
  get("GetVersion", &l.GetVersion);
  get("MatmulDescCreate", &l.MatmulDescCreate);
  get("MatmulDescDestroy", &l.MatmulDescDestroy);
  get("MatmulDescSetAttribute", &l.MatmulDescSetAttribute);
  get("MatrixLayoutCreate", &l.MatrixLayoutCreate);
  get("MatrixLayoutDestroy", &l.MatrixLayoutDestroy);
  get("MatmulPreferenceCreate", &l.MatmulPreferenceCreate);
  get("MatmulPreferenceDestroy", &l.MatmulPreferenceDestroy);
  get("MatmulPreferenceSetAttribute", &l.MatmulPreferenceSetAttribute);
  get("MatmulAlgoGetHeuristic", &l.MatmulAlgoGetHeuristic);
  get("Matmul", &l.Matmul);
  if (!all) {
    l.name = "none: " + file + " lacks a function that products need";
  } else if (const Status s = l.Create(&l.handle); s != 0) {
    l.handle = nullptr;
    l.name = "none: " + file + " does not start (status " + std::to_string(s) + ")";
  } else {
    const size_t v = l.GetVersion();
    l.name = "cuBLASLt " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100) + " (" + file + ")";
  }
  return l;
}

const Library& library() {
  static const Library l = load();
  return l;
}

int type_of(DType t) { return t == DType::f32 ? kReal32 : kBfloat16; }

// One product's descriptions, which end with it.
class Product {
 public:
  Product(const Library& l, const Gemm& g) : l_(l) {
    const int64_t m = g.y.shape[0], n = g.y.shape[1];
    good_ = l.MatmulDescCreate(&product_, kCompute32, kReal32) == 0;
    layout(&a_, g.b);
    layout(&b_, g.a);
    matrix(&y_, g.y.dtype, n, m);
    set(kTransA, int32_t{g.tb != 0});
    set(kTransB, int32_t{g.ta != 0});
    if (g.bias) {
      set(kEpilogue, uint32_t{kEpilogueBias});
      set(kBiasPointer, static_cast<const void*>(g.bias.data));
      if (g.bias.dtype != g.y.dtype) set(kBiasType, int32_t{type_of(g.bias.dtype)});
    }
  }
  Product(const Product&) = delete;
  ~Product() {
    for (Description d : {a_, b_, y_})
      if (d) l_.MatrixLayoutDestroy(d);
    if (product_) l_.MatmulDescDestroy(product_);
  }

  bool choose(Found* out) const {
    Description wish = nullptr;
    if (!good_ || l_.MatmulPreferenceCreate(&wish) != 0) return false;
    const uint64_t workspace = kWorkspace;
    const uint32_t reduce = kReduceInOrder;
    int count = 0;
    const bool found = l_.MatmulPreferenceSetAttribute(wish, kMaxWorkspace, &workspace, sizeof workspace) == 0 &&
                       l_.MatmulPreferenceSetAttribute(wish, kReductionMask, &reduce, sizeof reduce) == 0 &&
                       l_.MatmulAlgoGetHeuristic(l_.handle, product_, a_, b_, y_, y_, wish, 1, out, &count) == 0 && count > 0 &&
                       out->status == 0;
    l_.MatmulPreferenceDestroy(wish);
    return found;
  }

  Status run(const Gemm& g, const Found& f, Stream& stream) const {
    // Always in place: the library's sums have other bits where C and D are two matrices.
    const float one = 1, onto = g.onto ? 1 : 0;
    if (g.onto && g.onto.data != g.y.data)
      cudaMemcpyAsync(g.y.data, g.onto.data, static_cast<size_t>(g.y.bytes()), cudaMemcpyDeviceToDevice, stream.handle());
    return l_.Matmul(l_.handle, product_, &one, g.b.data, a_, g.a.data, b_, &onto, g.y.data, y_, g.y.data, y_, &f.algorithm,
                     stream.scratch<void>(), kWorkspace, stream.handle());
  }

 private:
  template <class T> void set(int what, T value) {
    good_ = good_ && l_.MatmulDescSetAttribute(product_, what, &value, sizeof value) == 0;
  }
  void matrix(Description* out, DType t, int64_t rows, int64_t columns) {
    good_ = good_ && l_.MatrixLayoutCreate(out, type_of(t), static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), rows) == 0;
  }
  // A row-major matrix, as its column-major transpose.
  void layout(Description* out, const Tensor& t) { matrix(out, t.dtype, t.shape[1], t.shape[0]); }

  const Library& l_;
  Description product_ = nullptr, a_ = nullptr, b_ = nullptr, y_ = nullptr;
  bool good_ = true;
};

// What the choice of an algorithm depends on.
using Key = std::tuple<int64_t, int64_t, int64_t, int, int, int, int, int>;

}  // namespace

int64_t cublaslt_workspace() { return library() ? kWorkspace : 0; }

const std::string& cublaslt_name() { return library().name; }

bool cublaslt_gemm(const Gemm& g, Stream& stream) {
  const Library& l = library();
  const int64_t k = g.a.shape[g.ta != 0 ? 0 : 1];
  if (!l || k == 0) return false;
  const Product product(l, g);
  static std::map<Key, std::pair<bool, Found>> chosen;
  static std::mutex lock;
  const Key key{g.y.shape[0], g.y.shape[1], k, g.ta != 0, g.tb != 0, static_cast<int>(g.a.dtype) * 4 + static_cast<int>(g.y.dtype),
                g.onto ? 1 : 0, g.bias ? 1 + static_cast<int>(g.bias.dtype) : 0};
  std::pair<bool, Found> choice;
  {
    const std::lock_guard<std::mutex> held(lock);
    auto at = chosen.find(key);
    if (at == chosen.end()) {
      Found found{};
      const bool any = product.choose(&found);
      at = chosen.emplace(key, std::make_pair(any, found)).first;
    }
    choice = at->second;
  }
  if (!choice.first) return false;
  if (const Status s = product.run(g, choice.second, stream); s != 0)
    stream.fail("gemm: cuBLASLt says status " + std::to_string(s) + " for " + std::to_string(g.y.shape[0]) + " x " +
                std::to_string(g.y.shape[1]) + " x " + std::to_string(k));
  return true;
}

}  // namespace attune::cuda
