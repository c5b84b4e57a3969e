// swiglu: y = silu(gate) * up with x = [gate | up] along the last axis.
// source: lib/ops/swiglu.ts; Shazeer 2020 (arXiv:2002.05202) eq. 6. fp32 inside, one rounding at the end.
#include "kernels.h"

#include <algorithm>

#define ATTUNE_FILE "../swiglu.cc"
#include "common/foreach_isa.h"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kRows = 8;  // of one task

void swiglu(const Swiglu& a, Context& c) {
  const int64_t f = a.y.last(), n = f ? a.y.size() / f : 0;
  typed(a.x, [&](auto* data) {
    decltype(data) out = static_cast<decltype(data)>(a.y.data);
    c.parallel((n + kRows - 1) / kRows, [&](int64_t task, int) {
      for (int64_t i = task * kRows, end = std::min(n, i + kRows); i < end; ++i) {
        auto* x = data + i * 2 * f;
        lanes(f, [&](int64_t j, auto m) {
          const V gate = load(x + j, m), up = load(x + f + j, m);
          store(out + i * f + j, gate / (set(1.0f) + exp(zero() - gate)) * up, m);
        });
      }
    });
  });
}

// dx may lie over x: both halves of a lane are read before either is written.
void swiglu_backward(const SwigluBackward& a, Context& c) {
  const int64_t f = a.dy.last(), n = f ? a.dy.size() / f : 0;
  typed(a.x, [&](auto* data) {
    decltype(data) up_stream = static_cast<decltype(data)>(a.dy.data), out = static_cast<decltype(data)>(a.dx.data);
    c.parallel((n + kRows - 1) / kRows, [&](int64_t task, int) {
      for (int64_t i = task * kRows, end = std::min(n, i + kRows); i < end; ++i) {
        auto* x = data + i * 2 * f;
        auto* dx = out + i * 2 * f;
        lanes(f, [&](int64_t j, auto m) {
          const V one = set(1.0f), gate = load(x + j, m), up = load(x + f + j, m), dy = load(up_stream + i * f + j, m);
          const V s = one / (one + exp(zero() - gate));
          store(dx + j, dy * up * s * fma(gate, one - s, one), m);
          store(dx + f + j, dy * gate * s, m);
        });
      }
    });
  });
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(swiglu, Swiglu)
ATTUNE_KERNEL(swiglu_backward, SwigluBackward)
