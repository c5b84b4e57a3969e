// linear_logprob: log_softmax_gather of logits = hidden (M, C) weight (V, C)^T, which never exist at (M, V): a block of rows and 576
// columns of the vocabulary at a time goes from the micro-kernel into a thread's scratch and from there into the running softmax of
// its row and split (four such runs); the splits of a row are joined in order. What a backward needs of them is kept on the way, where it is
// asked for. source: lib/ops/linear_logprob.ts
#include "kernels.h"

#include <algorithm>
#include <cmath>

#include "../runtime/top_columns.h"
#include "common/gemm_core.h"

#define ATTUNE_FILE "../linear_logprob.cc"
#include "common/foreach_isa.h"
#include "common/softmax_part.inl"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kRunColumns = 3 * kTopColumns;    // of a run of logits
constexpr int64_t kWhole = 1536, kBlock = 512;      // units of k in one go; of a block of a longer sum
constexpr int64_t kPanelBytes = 4 << 20;            // of panels packed at a time, where weight is no persistent buffer
constexpr int64_t kPartBytes = 4 << 20;             // of running softmaxes
constexpr int64_t kRowsOfBlock = 112;

int64_t up(int64_t n, int64_t d) { return (n + d - 1) / d; }

struct Shape {
  const GemmCore& core;
  int64_t rows, width, columns, units, panels;
  int64_t run, split, splits;  // panels of a run and of a split; splits of a row
  int64_t row_chunk, panel_chunk;  // at a time
  explicit Shape(const LinearLogprob& a)
      : core(gemm_core(a.hidden.dtype)), rows(a.targets.size()), width(a.hidden.last()), columns(a.weight.rows()),
        units(core.units(width)), panels(core.panels(columns)), run(kRunColumns / core.columns), split(4 * run),
        splits(up(panels, split)) {
    const int64_t fit = kPartBytes / (std::max<int64_t>(splits, 1) * static_cast<int64_t>(sizeof(Part)));
    row_chunk = std::min(rows, std::max<int64_t>(fit / kRowsOfBlock, 1) * kRowsOfBlock);
    panel_chunk = std::min(panels, std::max<int64_t>(kPanelBytes / std::max<int64_t>(core.panel_bytes(width), 1) / run, 1) * run);
  }
  int64_t part_bytes() const { return up(row_chunk * splits * static_cast<int64_t>(sizeof(Part)), 64) * 64; }
  int64_t logit_bytes() const { return up(row_chunk * 4, 64) * 64; }
};

void pack(const LinearLogprob& a, const Shape& s, Context& c, int64_t first, int64_t last, void* dst) {
  const int64_t row_bytes = s.width * width(a.weight.dtype);
  c.parallel(last - first, [&](int64_t p, int) {
    const int64_t column = (first + p) * s.core.columns;
    s.core.pack_b_t(a.weight.as<char>() + column * row_bytes, s.width, s.width,
                    static_cast<int>(std::min<int64_t>(s.core.columns, s.columns - column)),
                    static_cast<char*>(dst) + p * s.core.panel_bytes(s.width));
  });
}

// Logits of rows [i0, i1) and panels [p0, p1) (packed ones from `b`, which starts at p0) into out, `stride` apart.
void logits_of(const LinearLogprob& a, const Shape& s, int64_t i0, int64_t i1, int64_t p0, int64_t p1, const char* b, char* copy,
               bool copied, float* out, int64_t stride) {
  const GemmCore& core = s.core;
  const int64_t block = s.units <= kWhole ? std::max<int64_t>(s.units, 1) : kBlock;
  for (int64_t u = 0; u < s.units || u == 0; u += block) {
    const int64_t count = std::min(block, s.units - u), k0 = u * core.pair, k = std::min(s.width - k0, count * core.pair);
    const int64_t row_units = up(count, 16) * 16 + 16;
    if (!copied)
      core.copy_a(a.hidden.as<char>() + (i0 * s.width + k0) * width(a.hidden.dtype), s.width, k, i1 - i0, copy, row_units);
    for (int64_t p = p0; p < p1; ++p) {
      const char* panel = b + (p - p0) * core.panel_bytes(s.width) + u * core.columns * 4;
      for (int64_t i = i0; i < i1; i += core.rows) {
        TileOut o;
        o.y = out + (i - i0) * stride + (p - p0) * core.columns;
        o.stride = stride;
        o.columns = core.columns;
        if (u > 0) o.add = o.y, o.add_stride = stride;
        core.by_rows[std::min<int64_t>(core.rows, i1 - i)](copy + (i - i0) * row_units * 4, row_units, panel, count, o);
      }
    }
  }
}

// Of a row's n logits x, which begin a tile: the tiles' tops, and shares = exp(x - top).
template <class T> void keep_row(const float* x, int64_t n, T* shares, float* tops) {
  for (int64_t i = 0; i < n; i += kTopColumns) {
    const int64_t count = std::min(kTopColumns, n - i);
    const V lowest = set(-__builtin_inff());
    V high = lowest;
    lanes(count, [&](int64_t k, auto m) { high = max(mask_in(load(x + i + k, m), lowest, m), high); });
    const float top = tops[i / kTopColumns] = highest(high);
    const V base = set(top == -__builtin_inff() ? 0.0f : top);
    lanes(count, [&](int64_t k, auto m) { store(shares + i + k, exp(load(x + i + k, m) - base), m); });
  }
}

// As gemm's copy of a weight that it multiplies transposed: the two share one.
Copy copy(const LinearLogprob& a) {
  const Shape s(a);
  return {a.weight.data, 1, s.panels * s.core.panel_bytes(s.width)};
}

void linear_logprob(const LinearLogprob& a, Context& c) {
  const Shape s(a);
  if (s.rows == 0) return;
  const RowOutputs out{a.logp.as<float>(), a.lse.as<float>(), a.entropy.as<float>(), a.hit.as<float>(), a.mean.as<float>(), s.columns};
  const int32_t* targets = a.targets.as<int32_t>();
  Part* parts = static_cast<Part*>(c.scratch());
  float* at_target = reinterpret_cast<float*>(static_cast<char*>(c.scratch()) + s.part_bytes());
  char* space = static_cast<char*>(c.scratch()) + s.part_bytes() + s.logit_bytes();
  bool valid = false;
  char* kept = static_cast<char*>(c.derived(copy(a), &valid));
  if (kept && !valid) pack(a, s, c, 0, s.panels, kept);
  const int64_t stride = s.run * s.core.columns, panel_chunk = kept ? s.panels : s.panel_chunk;
  const int64_t copy_bytes = kRowsOfBlock * (std::min(up(s.units, 16) * 16, kWhole) + 16) * 4;
  const int64_t block_rows = kRowsOfBlock / s.core.rows * s.core.rows;

  for (int64_t r0 = 0; r0 < s.rows; r0 += s.row_chunk) {
    const int64_t r1 = std::min(s.rows, r0 + s.row_chunk), blocks = up(r1 - r0, block_rows);
    for (int64_t p0 = 0; p0 < s.panels; p0 += panel_chunk) {
      const int64_t p1 = std::min(s.panels, p0 + panel_chunk), first = p0 / s.split;
      if (!kept) pack(a, s, c, p0, p1, space);
      const char* b = kept ? kept : space;
      c.parallel((up(p1, s.split) - first) * blocks, [&](int64_t task, int thread) {
        const int64_t split = first + task / blocks, i0 = r0 + task % blocks * block_rows, i1 = std::min(r1, i0 + block_rows);
        const int64_t from = std::max(p0, split * s.split), to = std::min(p1, (split + 1) * s.split);
        char* copy = static_cast<char*>(c.thread_scratch(thread));
        float* logits = reinterpret_cast<float*>(copy + copy_bytes);
        for (int64_t p = from; p < to; p += s.run) {
          const int64_t end = std::min(to, p + s.run), column = p * s.core.columns;
          const int64_t n = std::min((end - p) * s.core.columns, s.columns - column);
          logits_of(a, s, i0, i1, p, end, b + (p - p0) * s.core.panel_bytes(s.width), copy, p > from && s.units <= kWhole, logits, stride);
          for (int64_t i = i0; i < i1; ++i) {
            const float* x = logits + (i - i0) * stride;
            Part& part = parts[split * s.row_chunk + i - r0];
            if (p == split * s.split) part = Part{};
            join(part, part_of(x, n, out.entropy != nullptr, out.mean != nullptr));
            if (targets[i] >= column && targets[i] < column + n) at_target[i - r0] = x[targets[i] - column];
            if (a.shares) {
              float* tops = a.tops.as<float>() + i * up(s.columns, kTopColumns) + column / kTopColumns;
              typed(a.shares, [&](auto* shares) { keep_row(x, n, shares + i * s.columns + column, tops); });
            }
          }
        }
      });
    }
    c.parallel(up(r1 - r0, kRowsOfBlock), [&](int64_t task, int) {
      for (int64_t i = r0 + task * kRowsOfBlock, end = std::min(r1, i + kRowsOfBlock); i < end; ++i) {
        Part total;
        for (int64_t split = 0; split < s.splits; ++split) join(total, parts[split * s.row_chunk + i - r0]);
        const bool scored = targets[i] >= 0 && targets[i] < s.columns;
        out.write(i, scored, scored ? at_target[i - r0] : 0.0f, total);
      }
    });
  }
}

// The panels are asked for whether or not weight turns out to be a persistent buffer: that is not known yet.
[[maybe_unused]] int64_t bytes(const LinearLogprob& a) {
  const Shape s(a);
  return s.part_bytes() + s.logit_bytes() + s.panel_chunk * s.core.panel_bytes(s.width);
}

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(linear_logprob, LinearLogprob)
#if ATTUNE_LEVEL == 0
int64_t attune::cpu::linear_logprob_scratch(const LinearLogprob& a) { return ATTUNE_CALL(bytes, a); }
attune::Copy attune::cpu::linear_logprob_derived(const LinearLogprob& a) { return ATTUNE_CALL(copy, a); }
#endif
