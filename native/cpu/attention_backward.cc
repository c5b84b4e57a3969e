// attention_backward: dq, dk, dv of attention from what it saved. With P = exp(scale q k^T - lse), dS = P (dy v^T - dy
// . y): dv = P^T dy, dq = scale dS k, dk = scale dS^T q. source: lib/ops/attention.ts; Dao 2023 (arXiv:2307.08691)
// algorithm 2. tiling: each segment (document or tree) is cut into chunks of about kChunk rows. A task takes one chunk
// of keys, one of queries of the same segment, and one kv head with all its query heads. Tasks run by distance between
// the two chunks: 0 for all, then 1, ...; so at any time each row of dq, dk and dv has one owner, and its terms add up
// in one order. No atomics, nothing computed twice. Where a long row would want more scratch than the budgets below, a
// few query heads go at a time, and a range of keys, the last range first.
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "common/gemm_core.h"

#define ATTUNE_FILE "../attention_backward.cc"
#include "common/foreach_isa.h"
#include "rows.inl"
#include "attention_part.inl"

namespace attune::cpu::ISA {
namespace {

constexpr int64_t kRows = 56;    // most query rows of a block
constexpr int64_t kChunk = 320;  // about how many rows a chunk has
constexpr int64_t kPackedBytes = 24 << 20;  // of one kv head's packed keys at a time
constexpr int64_t kLowBytes = 24 << 20;     // of what bf16 outputs lose, for one kv head; more where one query head needs it

struct Chunk {
  int32_t first, last;  // rows
  int32_t after;        // how many chunks of its segment come after it
};

// What bf16 outputs that are added to more than once would lose to rounding: y + low is the sum so far.
struct Lows {
  bf16 *dq = nullptr, *dk = nullptr, *dv = nullptr;
};

struct BackwardPlan {
  const GemmCore& core;
  int64_t n, H, K, D, G, most_panels;
  Places at;
  Mask mask;
  Packed packed;
  int64_t low_bytes, group;  // of a kv head: what is kept for a group of so many of its query heads, and for dk and dv
  HeadGroups heads;
  Chunk* chunks;
  float* delta;  // (H, n): dy . y
  char* panels;  // per head: k by dims, v by dims, k by keys, lows

  BackwardPlan(const AttentionBackward& a, void* scratch)
      : core(gemm_core(a.q.dtype)),
        n(a.q.shape[0]),
        H(a.q.shape[1]),
        K(a.k.shape[1]),
        D(a.q.shape[2]),
        G(H / K),
        most_panels(kChunk / core.columns + 3),
        at{static_cast<char*>(scratch)},
        mask(a, core.columns, at),
        packed{&core, D, range(), core.panels(D)},
        low_bytes(a.q.dtype == DType::bf16 && n > kChunk ? std::min(n * (G + 2), std::max(kLowBytes / (D * 2), n * 3)) * D * 2 : 0),
        group(low_bytes ? std::min(G, low_bytes / (n * D * 2) - 2) : G),
        heads(K, head_bytes()),
        chunks(at.take<Chunk>(n)),
        delta(at.take<float>(H * n)),
        panels(at.take<char>(heads.bytes)) {}

  // Panels of keys that are packed at a time.
  int64_t range() const {
    const int64_t each = 2 * core.panel_bytes(D) + core.panels(D) * core.panel_bytes(core.columns);
    return std::min(mask.panels, std::max(most_panels, kPackedBytes / each));
  }
  int64_t head_bytes() const { return 2 * packed.dims_bytes() + packed.keys_bytes() + low_bytes; }
  char* k_dims(int64_t head) const { return panels + head * head_bytes(); }
  char* v_dims(int64_t head) const { return k_dims(head) + packed.dims_bytes(); }
  char* k_keys(int64_t head) const { return v_dims(head) + packed.dims_bytes(); }
  Lows lows(int64_t head) const {
    if (!low_bytes) return {};
    bf16* p = reinterpret_cast<bf16*>(k_keys(head) + packed.keys_bytes());
    return {p, p + n * group * D, p + n * (group + 1) * D};
  }
};

// y (= or +=) scale * x, keeping in `low` what the rounding of y drops.
template <class T>
ATTUNE_INLINE void add_to(T* y, [[maybe_unused]] bf16* low, const float* x, int64_t D, V scale, bool first) {
  lanes(D, [&](int64_t d, auto m) {
    V v = load(x + d, m) * scale;
    if (!first) v = v + load(y + d, m);
    if constexpr (std::is_same_v<T, bf16>) {
      if (!first) v = v + load(low + d, m);
      store(y + d, v, m);
      if (low) store(low + d, v - load(y + d, m), m);
    } else {
      store(y + d, v, m);
    }
  });
}

// One thread's places.
struct Room {
  float *q, *dy, *s, *dp, *dq, *dk, *dv;  // s becomes P, dp becomes dS
  char *q_panels, *dy_panels;
  int64_t in_stride, s_stride, out_stride;

  Room(const BackwardPlan& p, void* own) {
    Places at{static_cast<char*>(own)};
    const int64_t columns = p.core.columns, dims = p.packed.dim_panels * columns;
    in_stride = padded(p.core.units(p.D));
    s_stride = padded(p.most_panels * columns);
    out_stride = padded(dims);
    q = at.take<float>(kRows * in_stride);
    dy = at.take<float>(kRows * in_stride);
    s = at.take<float>(kRows * s_stride);
    dp = at.take<float>(kRows * s_stride);
    dq = at.take<float>(kRows * out_stride);
    dk = at.take<float>(p.most_panels * columns * out_stride);
    dv = at.take<float>(p.most_panels * columns * out_stride);
    q_panels = at.take<char>(p.packed.dim_panels * p.core.panel_bytes(kRows));
    dy_panels = at.take<char>(p.packed.dim_panels * p.core.panel_bytes(kRows));
  }
};

#if ATTUNE_LEVEL >= 3
// Lane by lane a pair of bf16, the first one low.
ATTUNE_INLINE void store_pairs(float* to, V first, V second) {
  _mm512_storeu_si512(to, _mm512_or_si512(_mm512_cvtepu16_epi32(to_bf16(first)),
                                          _mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bf16(second)), 16)));
}
#endif

struct RowStats {
  int64_t row;
  V lse, delta;
};

struct Gradients {
  V p, ds;
};

ATTUNE_INLINE Gradients gradients(const Mask& mask, bool full, const RowStats& r, int64_t key, const float* s,
                                  const float* dp, V scale) {
  V p = exp(load(s) * scale - r.lse);
  V ds = p * (load(dp) - r.delta);
  if (!full) {
    const M m = mask.visible(r.row, key);
    p = select(m, p, zero()), ds = select(m, ds, zero());
  }
  return {p, ds};
}

// Turns scores and dP of rows [r, r + 2) into P and dS, panels beyond `slots` into 0. fp32: each in its place. bf16: dS
// by rows at the front of its row; P and dS paired over the two rows, as the operand of products over queries, in s: P
// in the first row, dS in the second.
template <class E>
void softmax_backward(const BackwardPlan& plan, const Room& w, const Visible& seen, int slots, int64_t r, bool second,
                      const RowStats* stats, V scale) {
  const int64_t columns = plan.core.columns;
  float *s0 = w.s + r * w.s_stride, *s1 = s0 + w.s_stride, *d0 = w.dp + r * w.s_stride, *d1 = d0 + w.s_stride;
  for (int c = 0; c < slots; ++c)
    for (int64_t j = c * columns; j < (c + 1) * columns; j += V::W) {
      const int64_t key = seen.panel[c] * columns + j - c * columns;
      const Gradients a = gradients(plan.mask, seen.full[c], stats[0], key, s0 + j, d0 + j, scale);
      const Gradients b =
          second ? gradients(plan.mask, seen.full[c], stats[1], key, s1 + j, d1 + j, scale) : Gradients{zero(), zero()};
      if constexpr (std::is_same_v<E, float>) {
        store(s0 + j, a.p), store(d0 + j, a.ds);
        if (second) store(s1 + j, b.p), store(d1 + j, b.ds);
      } else {
#if ATTUNE_LEVEL >= 3
        store_pairs(s0 + j, a.p, b.p);
        store_pairs(s1 + j, a.ds, b.ds);
        store(reinterpret_cast<bf16*>(d0) + j, a.ds);
        if (second) store(reinterpret_cast<bf16*>(d1) + j, b.ds);
#endif
      }
    }
  constexpr bool kPaired = !std::is_same_v<E, float>;
  auto clear = [&](float* x) { std::fill(x + slots * columns, x + seen.count * columns, 0.0f); };
  clear(s0);
  if (kPaired || second) clear(s1);
  if (!kPaired) clear(d0);
  if (!kPaired && second) clear(d1);
}

// One block of query rows and one head against the panels of a chunk of keys that it sees.
template <class T, class E>
void block_backward(const AttentionBackward& a, const BackwardPlan& plan, const Room& w, int64_t first, int64_t last,
                    int64_t h, const Visible& seen, int64_t first_panel, int64_t head, bool diagonal) {
  const GemmCore& core = plan.core;
  const int64_t D = plan.D, rows = last - first, columns = core.columns, tiles = (rows + core.rows - 1) / core.rows;
  const int64_t at = (first * plan.H + h) * D, stride = plan.H * D, panel_bytes = core.panel_bytes(kRows);
  core.copy_a(a.q.as<T>() + at, stride, D, rows, w.q, w.in_stride);
  core.copy_a(a.dy.as<T>() + at, stride, D, rows, w.dy, w.in_stride);
  for (int64_t p = 0; p < plan.packed.dim_panels; ++p) {
    const int some = static_cast<int>(std::min(columns, D - p * columns));
    if (a.dk) core.pack_b(a.q.as<T>() + at + p * columns, stride, rows, some, w.q_panels + p * panel_bytes);
    if (a.dv) core.pack_b(a.dy.as<T>() + at + p * columns, stride, rows, some, w.dy_panels + p * panel_bytes);
  }

  int slots[kRows];  // by tile: the panels that begin at or before its last row
  auto tile_rows = [&](int64_t t) { return static_cast<int>(std::min<int64_t>(core.rows, rows - t * core.rows)); };
  for (int64_t t = 0; t < tiles; ++t) slots[t] = seen.up_to(first + t * core.rows + tile_rows(t) - 1, columns);
  for (int c = 0; c < seen.count; ++c)
    for (int64_t t = 0; t < tiles; ++t) {
      if (c >= slots[t]) continue;
      const int64_t in = t * core.rows * w.in_stride, out = t * core.rows * w.s_stride + c * columns;
      core.by_rows[tile_rows(t)](w.q + in, w.in_stride, plan.packed.by_dims(plan.k_dims(head), seen.panel[c]),
                                 core.units(D), {w.s + out, w.s_stride, static_cast<int>(columns)});
      core.by_rows[tile_rows(t)](w.dy + in, w.in_stride, plan.packed.by_dims(plan.v_dims(head), seen.panel[c]),
                                 core.units(D), {w.dp + out, w.s_stride, static_cast<int>(columns)});
    }

  const float* lse = a.lse.as<float>() + h * plan.n;
  const float* delta = plan.delta + h * plan.n;
  for (int64_t r = 0; r < rows; r += 2) {
    const int64_t i = first + r;
    const bool second = r + 1 < rows;
    const RowStats stats[2] = {{i, set(lse[i]), set(delta[i])},
                               {i + 1, set(second ? lse[i + 1] : 0.0f), set(second ? delta[i + 1] : 0.0f)}};
    softmax_backward<E>(plan, w, seen, slots[r / core.rows], r, second, stats, set(static_cast<float>(a.scale)));
  }

  if (a.dq) {
    for (int64_t p = 0; p < plan.packed.dim_panels; ++p)
      for (int64_t t = 0; t < tiles; ++t) {
        float* to = w.dq + t * core.rows * w.out_stride + p * columns;
        TileOut out{to, w.out_stride, static_cast<int>(columns)};
        out.add_stride = w.out_stride;
        seen.runs(slots[t], [&](int slot, int count, int64_t panel) {
          core.by_rows[tile_rows(t)](w.dp + t * core.rows * w.s_stride + slot * columns / core.pair, w.s_stride,
                                     plan.packed.by_keys(plan.k_keys(head), panel, p), count * columns / core.pair,
                                     out);
          out.add = to;
        });
        if (!slots[t])
          for (int r = 0; r < tile_rows(t); ++r) std::fill_n(to + r * w.out_stride, columns, 0.0f);
      }
    bf16* low = plan.lows(head).dq;
    for (int64_t r = 0; r < rows; ++r)
      add_to(a.dq.as<T>() + at + r * stride, low ? low + ((first + r) * plan.group + h % plan.G % plan.group) * D : nullptr,
             w.dq + r * w.out_stride, D, set(static_cast<float>(a.scale)), diagonal);
  }

  // Sums over queries: P and dS lie unit by unit, `pair` rows deep.
  const float* ds = core.pair == 2 ? w.s + w.s_stride : w.dp;
  seen.runs(seen.count, [&](int slot, int count, int64_t panel) {
    for (int64_t key = 0; key < count * columns; key += core.rows) {
      const int some = static_cast<int>(std::min<int64_t>(core.rows, count * columns - key));
      const int64_t skip = std::max<int64_t>(0, panel * columns + key - first) / core.pair,
                    units = core.units(rows) - skip;  // earlier rows see none of them
      if (units <= 0) continue;
      const int64_t from = skip * core.pair * w.s_stride + slot * columns + key,
                    to = ((panel - first_panel) * columns + key) * w.out_stride;
      for (int64_t p = 0; p < plan.packed.dim_panels; ++p) {
        auto product = [&](const float* x, const char* panels, float* y) {
          y += to + p * columns;
          TileOut out{y, w.out_stride, static_cast<int>(columns)};
          out.add = y, out.add_stride = w.out_stride;
          core.by_k[some](x + from, core.pair * w.s_stride, panels + p * panel_bytes + skip * columns * 4, units, out);
        };
        if (a.dv) product(w.s, w.dy_panels, w.dv);
        if (a.dk) product(ds, w.q_panels, w.dk);
      }
    }
  });
}

// One chunk of keys, the chunk of queries `distance` further on, one kv head of those packed, query heads of it from `g` on.
template <class T, class E>
void chunk_backward(const AttentionBackward& a, const BackwardPlan& plan, const Chunk* keys, int distance, int64_t kv,
                    int64_t head, int64_t g, void* own) {
  const int64_t columns = plan.core.columns, D = plan.D, first_panel = keys->first / columns,
                end_panel = (keys->last - 1) / columns + 1;
  const Chunk queries = keys[distance];
  const Room w(plan, own);
  const int64_t zeros = (end_panel - first_panel) * columns * w.out_stride;
  std::fill_n(w.dk, zeros, 0.0f);
  std::fill_n(w.dv, zeros, 0.0f);
  const bool begins = distance == 0 && g == 0;
  bool any = begins;
  Visible seen;
  for (int64_t first = queries.first; first < queries.last; first += kRows) {
    const int64_t last = std::min<int64_t>(first + kRows, queries.last);
    seen.find(plan.mask, first, last, first_panel, std::min(end_panel, (last - 1) / columns + 1), Visible::kMost);
    if (!seen.count && distance > 0) continue;
    any = true;
    for (int64_t h = kv * plan.G + g; h < kv * plan.G + std::min(plan.G, g + plan.group); ++h)
      block_backward<T, E>(a, plan, w, first, last, h, seen, first_panel, head, distance == 0);
  }
  if (!any) return;
  const Lows low = plan.lows(head);
  for (int64_t j = keys->first; j < keys->last; ++j) {
    const int64_t from = (j - first_panel * columns) * w.out_stride, to = (j * plan.K + kv) * D;
    if (a.dk)
      add_to(a.dk.as<T>() + to, low.dk ? low.dk + j * D : nullptr, w.dk + from, D, set(static_cast<float>(a.scale)),
             begins);
    if (a.dv) add_to(a.dv.as<T>() + to, low.dv ? low.dv + j * D : nullptr, w.dv + from, D, set(1.0f), begins);
  }
}

template <class T>
void backward(const AttentionBackward& a, Context& c) {
  using E = std::conditional_t<ATTUNE_LEVEL >= 3, T, float>;
  BackwardPlan plan(a, c.scratch());
  plan.mask.fill(a);
  int64_t count = 0, farthest = -1;
  plan.mask.segments([&](int64_t first, int64_t end) {
    const int64_t parts = (end - first + kChunk - 1) / kChunk;
    for (int64_t m = 0, from = first; m < parts; ++m) {  // cut between panels
      const int64_t cut = m + 1 == parts ? end
                                         : (first + (m + 1) * (end - first) / parts + plan.core.columns - 1) /
                                               plan.core.columns * plan.core.columns;
      plan.chunks[count++] = {static_cast<int32_t>(from), static_cast<int32_t>(cut),
                              static_cast<int32_t>(parts - 1 - m)};
      from = cut;
    }
    farthest = std::max(farthest, parts - 1);
  });
  c.parallel((plan.n + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t i = task * kRows; i < std::min(plan.n, (task + 1) * kRows); ++i)
      for (int64_t h = 0; h < plan.H; ++h) {
        const T *y = a.y.as<T>() + (i * plan.H + h) * plan.D, *dy = a.dy.as<T>() + (i * plan.H + h) * plan.D;
        V s = zero();
        lanes(plan.D, [&](int64_t d, auto m) { s = fma(load(y + d, m), load(dy + d, m), s); });
        plan.delta[h * plan.n + i] = sum_lanes(s);
      }
  });
  const int64_t columns = plan.core.columns;
  for (int64_t kv = 0; kv < plan.K; kv += plan.heads.at_once) {
    const int64_t heads = std::min(plan.heads.at_once, plan.K - kv);
    for (int64_t g = 0; g < plan.G; g += plan.group)
      for (int64_t end = count, from; end > 0; end = from) {  // chunks [from, end): queries meet their own chunk first
        const int64_t last_panel = (plan.chunks[end - 1].last - 1) / columns;
        auto first_panel = [&](int64_t chunk) { return plan.chunks[chunk].first / columns; };
        from = end - 1;
        while (from > 0 && last_panel - first_panel(from - 1) < plan.packed.panels) --from;
        const bool packed = count == end && from == 0 && g > 0;  // by the group before
        plan.packed.from = first_panel(from);
        const int64_t panels = last_panel - plan.packed.from + 1;
        c.parallel(packed ? 0 : heads * panels, [&](int64_t task, int) {
          const int64_t head = task / panels, panel = plan.packed.from + task % panels;
          plan.packed.pack_dims(a.k, kv + head, panel, plan.k_dims(head));
          plan.packed.pack_dims(a.v, kv + head, panel, plan.v_dims(head));
          plan.packed.pack_keys(a.k, kv + head, panel, plan.mask, plan.k_keys(head));
        });
        for (int distance = 0; distance <= farthest; ++distance)
          c.parallel(heads * (end - from), [&](int64_t task, int thread) {
            const int64_t chunk = from + task / heads, head = task % heads;
            if (plan.chunks[chunk].after >= distance)
              chunk_backward<T, E>(a, plan, plan.chunks + chunk, distance, kv + head, head, g, c.thread_scratch(thread));
          });
      }
  }
}

void attention_backward(const AttentionBackward& a, Context& c) {
  if (a.q.dtype == DType::bf16)
    backward<bf16>(a, c);
  else
    backward<float>(a, c);
}

int64_t attention_backward_bytes(const AttentionBackward& a) { return BackwardPlan(a, nullptr).at.used; }

}  // namespace
}  // namespace attune::cpu::ISA

ATTUNE_KERNEL(attention_backward, AttentionBackward)
#if ATTUNE_LEVEL == 0
int64_t attune::cpu::attention_backward_scratch(const AttentionBackward& a) {
  return ATTUNE_CALL(attention_backward_bytes, a);
}
#endif
