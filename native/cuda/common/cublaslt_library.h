// The few declarations of cuBLASLt used here: its public C interface (cuBLASLt API reference, CUDA 12 and 13), written out because its
// header need not be on the box that builds. Private to cublaslt*.cc.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "../../runtime/ops.gen.h"
#include "launch.h"

namespace attune::cuda::lt {

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
  uint64_t data[8] = {};
};
struct Found {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  size_t workspace = 0;
  Status status = 0;
  float waves = 0;
  int reserved[4] = {};
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

const Library& library();

inline int type_of(DType t) { return t == DType::f32 ? kReal32 : kBfloat16; }

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

  // Up to `most` algorithms that the library proposes, its best guess first. Their number.
  int propose(Found* out, int most) const {
    Description wish = nullptr;
    if (!good_ || l_.MatmulPreferenceCreate(&wish) != 0) return 0;
    const uint64_t workspace = kWorkspace;
    const uint32_t reduce = kReduceInOrder;
    int count = 0;
    const bool asked = l_.MatmulPreferenceSetAttribute(wish, kMaxWorkspace, &workspace, sizeof workspace) == 0 &&
                       l_.MatmulPreferenceSetAttribute(wish, kReductionMask, &reduce, sizeof reduce) == 0 &&
                       l_.MatmulAlgoGetHeuristic(l_.handle, product_, a_, b_, y_, y_, wish, most, out, &count) == 0;
    l_.MatmulPreferenceDestroy(wish);
    return asked ? count : 0;
  }

  // y = the product, plus y where `onto`. The library's sums have other bits where C and D are two matrices: always in place.
  Status run(const Gemm& g, void* y, const Algorithm& algorithm, Stream& stream) const {
    const float one = 1, onto = g.onto ? 1 : 0;
    return l_.Matmul(l_.handle, product_, &one, g.b.data, a_, g.a.data, b_, &onto, y, y_, y, y_, &algorithm, stream.scratch<void>(),
                     kWorkspace, stream.handle());
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

// The algorithm of a product: of the stream's choices, of this machine's file, or timed now, unless a graph is being captured: then the
// library's first proposal. False: there is none.
bool choose(const Product& product, const Gemm& g, Stream& stream, Algorithm* out);

}  // namespace attune::cuda::lt
