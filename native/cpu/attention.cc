// attention: y = softmax(scale q k^T) v per head, key j visible to query i iff j <= i < end[j] (and pos[i] - pos[j] <
// window). source: lib/ops/attention.ts; online softmax as Dao 2023 (arXiv:2307.08691) algorithm 1. tiling: task =
// (block of query rows, head). The panels of keys that a block sees are found once for it, so a branch of a prompt tree
// never meets its sibling's keys; up to kKeys of them are scored at a time, more go through the online softmax.
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "common/gemm_core.h"

#define ATTUNE_FILE "../attention.cc"
#include "common/foreach_isa.h"
#include "rows.inl"
#include "attention_part.inl"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kRows = 56;   // most query rows of a block: 4 tiles of 14
constexpr int64_t kKeys = 512;  // most keys scored at a time

struct Block {
  int32_t first, last, root;  // query rows, and the row where their segment begins
};

struct ForwardPlan {
  const GemmCore& core;
  int64_t n, H, K, D;
  Places at;
  Mask mask;
  Packed packed;
  HeadGroups heads;
  Block* blocks;
  char* panels;  // per head: k by dims, v by keys

  ForwardPlan(const Attention& a, void* scratch)
      : core(gemm_core(a.q.dtype)),
        n(a.q.shape[0]),
        H(a.q.shape[1]),
        K(a.k.shape[1]),
        D(a.q.shape[2]),
        at{static_cast<char*>(scratch)},
        mask(a, core.columns, at),
        packed{&core, D, mask.panels, core.panels(D)},
        heads(K, packed.dims_bytes() + packed.keys_bytes()),
        blocks(at.take<Block>(n)),
        panels(at.take<char>(heads.bytes)) {}
  char* k(int64_t head) const { return panels + head * (packed.dims_bytes() + packed.keys_bytes()); }
  char* v(int64_t head) const { return k(head) + packed.dims_bytes(); }
};

// Scores of one row, scaled and masked; returns the highest.
ATTUNE_INLINE float scale_and_mask(float* row, const Visible& seen, int slots, const Mask& mask, int64_t i, V scale) {
  const V none = set(-__builtin_inff());
  V top[2] = {none, none};
  for (int s = 0; s < slots; ++s) {
    float* x = row + s * 2 * V::W;
    for (int v = 0; v < 2; ++v) {
      V score = load(x + v * V::W) * scale;
      if (!seen.full[s]) score = select(mask.visible(i, seen.panel[s] * mask.columns + v * V::W), score, none);
      store(x + v * V::W, score);
      top[v] = max(score, top[v]);  // NaN leaves it as it is
    }
  }
  return highest_lane(max(top[0], top[1]));
}

// Scores become exp(score - base) in the type of the operand of the next product, in place; returns their sum.
template <class E>
ATTUNE_INLINE float exponentials(float* row, int slots, float base) {
  V sums[2] = {zero(), zero()};
  const V shift = set(base);
  E* p = reinterpret_cast<E*>(row);
  for (int s = 0; s < slots; ++s)
    for (int v = 0; v < 2; ++v) {
      const int64_t j = (2 * s + v) * V::W;
      const V e = exp(load(row + j) - shift);
      sums[v] = sums[v] + e;
      store(p + j, e);
    }
  return sum_lanes(sums[0] + sums[1]);
}

// E: what p is stored as, fp32 or (where the machine multiplies them) bf16.
template <class T, class E>
void forward_block(const Attention& a, const ForwardPlan& plan, Block b, int64_t h, const char* kp, const char* vp,
                   void* own) {
  const GemmCore& core = plan.core;
  const int64_t D = plan.D, rows = b.last - b.first, columns = core.columns, dims = plan.packed.dim_panels * columns;
  const int64_t q_stride = padded(core.units(D)), s_stride = padded(kKeys), o_stride = padded(dims);
  Places at{static_cast<char*>(own)};
  float* q = at.take<float>(kRows * q_stride);
  float* s = at.take<float>(kRows * s_stride);
  float* o = at.take<float>(kRows * o_stride);
  float high[kRows], sums[kRows];
  const float infinity = __builtin_inff();
  std::fill_n(high, rows, -infinity);
  std::fill_n(sums, rows, 0.0f);
  core.copy_a(a.q.as<T>() + (b.first * plan.H + h) * D, plan.H * D, D, rows, q, q_stride);

  Visible seen;
  bool begun = false;
  const int64_t last_panel = (b.last - 1) / columns + 1;
  for (int64_t from = b.root / columns; from < last_panel;) {
    from = seen.find(plan.mask, b.first, b.last, from, last_panel, static_cast<int>(kKeys / columns));
    if (!seen.count) continue;
    int slots[kRows];  // by tile: the panels that begin at or before its last row
    const int64_t tiles = (rows + core.rows - 1) / core.rows;
    auto tile_rows = [&](int64_t t) { return static_cast<int>(std::min<int64_t>(core.rows, rows - t * core.rows)); };
    for (int64_t t = 0; t < tiles; ++t) slots[t] = seen.up_to(b.first + t * core.rows + tile_rows(t) - 1, columns);
    for (int c = 0; c < seen.count; ++c)
      for (int64_t t = 0; t < tiles; ++t)
        if (c < slots[t])
          core.by_rows[tile_rows(t)](q + t * core.rows * q_stride, q_stride, plan.packed.by_dims(kp, seen.panel[c]),
                                     core.units(D),
                                     {s + t * core.rows * s_stride + c * columns, s_stride, static_cast<int>(columns)});
    for (int64_t r = 0; r < rows; ++r) {
      float* row = s + r * s_stride;
      const int count = slots[r / core.rows];
      const float next =
          std::max(high[r], scale_and_mask(row, seen, count, plan.mask, b.first + r, set(static_cast<float>(a.scale))));
      const float base = next == -infinity ? 0.0f : next, sum = exponentials<E>(row, count, base);
      const float shrink = begun ? std::exp(high[r] - base) : 0.0f;
      if (begun && shrink != 1.0f)
        for (int64_t d = 0; d < dims; d += V::W) store(o + r * o_stride + d, load(o + r * o_stride + d) * set(shrink));
      sums[r] = sums[r] * shrink + sum;
      high[r] = next;
    }
    for (int64_t p = 0; p < plan.packed.dim_panels; ++p)
      for (int64_t t = 0; t < tiles; ++t) {
        float* to = o + t * core.rows * o_stride + p * columns;
        TileOut out{to, o_stride, static_cast<int>(columns)};
        out.add = begun ? to : nullptr;
        out.add_stride = o_stride;
        seen.runs(slots[t], [&](int slot, int count, int64_t panel) {
          core.by_rows[tile_rows(t)](s + t * core.rows * s_stride + slot * columns / core.pair, s_stride,
                                     plan.packed.by_keys(vp, panel, p), count * columns / core.pair, out);
          out.add = to;
        });
        if (!begun && !slots[t])
          for (int r = 0; r < tile_rows(t); ++r) std::fill_n(to + r * o_stride, columns, 0.0f);
      }
    begun = true;
  }

  for (int64_t r = 0; r < rows; ++r) {
    const int64_t i = b.first + r;
    const bool none = sums[r] == 0;
    T* y = a.y.as<T>() + (i * plan.H + h) * D;
    const V scale = set(none ? 0.0f : 1.0f / sums[r]);
    lanes(D, [&](int64_t d, auto m) { store(y + d, none ? zero() : load(o + r * o_stride + d, m) * scale, m); });
    if (a.lse) a.lse.as<float>()[h * plan.n + i] = none ? infinity : high[r] + std::log(sums[r]);
  }
}

template <class T>
void forward(const Attention& a, Context& c) {
  using E = std::conditional_t<ATTUNE_LEVEL >= 3, T, float>;
  ForwardPlan plan(a, c.scratch());
  plan.mask.fill(a);
  int64_t count = 0;
  plan.mask.segments([&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i += kRows)
      plan.blocks[count++] = {static_cast<int32_t>(i), static_cast<int32_t>(std::min(end, i + kRows)),
                              static_cast<int32_t>(first)};
  });
  const int64_t G = plan.H / plan.K, panels = plan.mask.panels;
  for (int64_t kv = 0; kv < plan.K; kv += plan.heads.at_once) {
    const int64_t heads = std::min(plan.heads.at_once, plan.K - kv);
    c.parallel(heads * panels, [&](int64_t task, int) {
      plan.packed.pack_dims(a.k, kv + task / panels, task % panels, plan.k(task / panels));
      plan.packed.pack_keys(a.v, kv + task / panels, task % panels, plan.mask, plan.v(task / panels));
    });
    c.parallel(count * heads * G,
               [&](int64_t task, int thread) {  // the last blocks of a long document are the largest: first
                 const int64_t g = task % (heads * G);
                 forward_block<T, E>(a, plan, plan.blocks[count - 1 - task / (heads * G)], kv * G + g, plan.k(g / G),
                                     plan.v(g / G), c.thread_scratch(thread));
               });
  }
}

void attention(const Attention& a, Context& c) {
  if (a.q.dtype == DType::bf16)
    forward<bf16>(a, c);
  else
    forward<float>(a, c);
}

int64_t attention_bytes(const Attention& a) { return ForwardPlan(a, nullptr).at.used; }

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(attention, Attention)
#if ATTUNE_LEVEL == 0
int64_t attune::cpu::attention_scratch(const Attention& a) { return ATTUNE_CALL(attention_bytes, a); }
#endif
