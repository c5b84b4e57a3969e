// gemm: y = op(a) op(b) (+ bias over rows) (+ onto), op transposing where ta, tb are 1; fp32 sums, any of y, onto and bias f32 or bf16.
// The forms of a model: x W^T (tb), dy W (neither), dW += dy^T x (ta). Blocking follows the shape alone, and the order of a sum
// depends on k alone: bits do not depend on threads, and a row of y not on how many other rows there are.
#include <algorithm>

#include "common/gemm_core.h"
#include "kernels.h"

namespace attune::cpu {
namespace {

constexpr int64_t kWhole = 1536;            // units of k taken in one go; a longer sum goes in blocks
constexpr int64_t kBlock = 512;             // units of such a block
constexpr int64_t kChunkBytes = 4 << 20;    // of panels packed into planned scratch at a time
constexpr int64_t kRun = 16;                // values of k packed of one tile of a before the next tile
constexpr int64_t kPackUnits = 128;         // of a packing task

int64_t up(int64_t n, int64_t d) { return (n + d - 1) / d; }

// Piece i of n things cut into `pieces` as evenly as whole things allow.
struct Piece {
  int64_t first, last;
  Piece(int64_t n, int64_t pieces, int64_t i) : first(n * i / pieces), last(n * (i + 1) / pieces) {}
  int64_t size() const { return last - first; }
};

struct Shape {
  int64_t m, n, k;
  bool ta, tb, long_sum_in_bf16;
  const GemmCore& core;
  int64_t units, panels, tiles, block;  // block: units of a block of k

  explicit Shape(const Gemm& g)
      : m(g.y.shape[0]), n(g.y.shape[1]), k(g.a.shape[g.ta != 0 ? 0 : 1]), ta(g.ta != 0), tb(g.tb != 0),
        core(gemm_core(g.a.dtype)), units(core.units(k)), panels(core.panels(n)), tiles(up(m, core.rows)) {
    const int64_t most = ta ? kBlock : kWhole;
    block = units <= most ? std::max<int64_t>(units, 1) : up(units, up(units, kBlock));
    long_sum_in_bf16 = g.y.dtype == DType::bf16 && units > block;
  }

  int64_t panel_bytes() const { return std::max<int64_t>(units, 1) * core.columns * 4; }

  // Panels packed at a time where b is no weight: all that fit, over the whole of k, but for a long k with y in fp32, which is also cut.
  int64_t chunk_units() const {
    if (long_sum_in_bf16 || !ta) return units;
    const int64_t blocks = std::max<int64_t>(1, kChunkBytes / (panels * core.columns * 4 * block));
    return std::min(units, blocks * block);
  }
  int64_t chunk_panels() const {
    const int64_t bytes = std::max<int64_t>(chunk_units(), 1) * core.columns * 4;
    return std::min(panels, std::max<int64_t>(8, kChunkBytes / bytes));
  }
};

// Packs panels [p0, p1) over units [u0, u1) of b to dst: [panel][unit][columns].
void pack(const Gemm& g, const Shape& s, Context& c, int64_t p0, int64_t p1, int64_t u0, int64_t u1, void* dst) {
  const int64_t width = attune::width(g.b.dtype), stride = s.tb ? s.k : s.n, length = u1 - u0;
  const int64_t pieces = up(length, kPackUnits);
  c.parallel((p1 - p0) * pieces, [&](int64_t task, int) {
    const int64_t p = s.tb ? task / pieces : task % (p1 - p0), piece = s.tb ? task % pieces : task / (p1 - p0);
    const int64_t u = u0 + piece * kPackUnits, count = std::min(kPackUnits, u1 - u);
    const int64_t k0 = u * s.core.pair, k = std::min(s.k - k0, count * s.core.pair), column = (p0 + p) * s.core.columns;
    const int columns = static_cast<int>(std::min<int64_t>(s.core.columns, s.n - column));
    char* to = static_cast<char*>(dst) + (p * length + u - u0) * s.core.columns * 4;
    const char* from = g.b.as<char>() + (s.tb ? column * stride + k0 : k0 * stride + column) * width;
    (s.tb ? s.core.pack_b_t : s.core.pack_b)(from, stride, k, columns, to);
  });
}

// y over panels [p0, p1), adding units [u0, u1), whose packed panels are at b.
void multiply(const Gemm& g, const Shape& s, Context& c, int64_t p0, int64_t p1, int64_t u0, int64_t u1, const char* b) {
  const GemmCore& core = s.core;
  const int64_t per_block = s.ta ? (s.tiles >= 256 ? 8 : 2) : std::max<int64_t>(1, 112 / core.rows);
  const int64_t rows = up(s.tiles, s.ta ? std::max<int64_t>(per_block * (core.rows < 14 ? 28 : 14) / core.rows, 1) : per_block);
  const int64_t most = s.ta ? 64 : 12 * 32 / core.columns;
  const int64_t groups = std::min(p1 - p0, std::max(up(p1 - p0, most), up(8, rows)));
  const int64_t a_width = attune::width(g.a.dtype), y_width = attune::width(g.y.dtype);
  const int64_t length = u1 - u0, a_stride = s.ta ? s.m : s.k;
  const bool as_it_is = !s.ta && !core.widened && s.k % core.pair == 0 && s.k * a_width % 1024 != 0;
  c.parallel(rows * groups, [&](int64_t task, int thread) {
    const Piece tiles(s.tiles, rows, task % rows), group(p1 - p0, groups, task / rows);
    const int64_t i0 = tiles.first * core.rows, i1 = std::min(s.m, tiles.last * core.rows);
    char* scratch = static_cast<char*>(c.thread_scratch(thread));
    // fp32 sums between blocks of k, where y cannot hold them.
    float* sums = reinterpret_cast<float*>(scratch);
    const int64_t sums_stride = group.size() * core.columns;
    char* packed = scratch + (s.long_sum_in_bf16 ? up((i1 - i0) * sums_stride * 4, 64) * 64 : 0);
    for (int64_t u = u0; u < u1 || u == 0; u += s.block) {
      const int64_t count = std::min(s.block, u1 - u), k0 = u * core.pair, k = std::min(s.k - k0, count * core.pair);
      const bool first = u == 0, last = u + count >= s.units;
      const int64_t row_stride = s.ta ? core.rows : as_it_is ? s.k / core.pair : up(count, 16) * 16 + 16;
      const int64_t tile_bytes = count * core.rows * 4 + 64;  // of a packed by k
      const char* a = packed;
      if (s.ta)
        for (int64_t at = 0; at < k; at += kRun)  // a few whole rows of a at a time: they lie far apart
          for (int64_t t = tiles.first; t < tiles.last; ++t)
            core.pack_a(g.a.as<char>() + ((k0 + at) * a_stride + t * core.rows) * a_width, a_stride, std::min(kRun, k - at),
                        static_cast<int>(std::min<int64_t>(core.rows, s.m - t * core.rows)), core.rows,
                        packed + (t - tiles.first) * tile_bytes + at / core.pair * core.rows * 4);
      else if (as_it_is)
        a = g.a.as<char>() + (i0 * a_stride + k0) * a_width;
      else
        core.copy_a(g.a.as<char>() + (i0 * a_stride + k0) * a_width, a_stride, k, i1 - i0, packed, row_stride);

      for (int64_t p = group.first; p < group.last; ++p) {
        const char* panel = b + (p * length + u - u0) * core.columns * 4;
        const int64_t column = (p0 + p) * core.columns;
        TileOut o;
        o.columns = static_cast<int>(std::min<int64_t>(core.columns, s.n - column));
        if (first && g.bias) {
          o.bias = g.bias.as<char>() + column * attune::width(g.bias.dtype);
          o.bias_type = g.bias.dtype;
        }
        for (int64_t t = tiles.first; t < tiles.last; ++t) {
          const int64_t i = t * core.rows, h = std::min<int64_t>(core.rows, s.m - i);
          char* y = g.y.as<char>() + (i * s.n + column) * y_width;
          float* kept = sums + (i - i0) * sums_stride + (p - group.first) * core.columns;
          o.type = g.y.dtype;
          o.y = y;
          o.stride = s.n;
          o.add = nullptr;
          if (first && g.onto) {
            o.add = g.onto.as<char>() + (i * s.n + column) * attune::width(g.onto.dtype);
            o.add_type = g.onto.dtype;
            o.add_stride = s.n;
          } else if (!first) {
            o.add = s.long_sum_in_bf16 ? static_cast<void*>(kept) : y;
            o.add_type = DType::f32;
            o.add_stride = s.long_sum_in_bf16 ? sums_stride : s.n;
          }
          if (s.long_sum_in_bf16 && !last) {
            o.type = DType::f32;
            o.y = kept;
            o.stride = sums_stride;
          }
          if (s.ta)
            core.by_k[h](a + (t - tiles.first) * tile_bytes, core.rows, panel, count, o);
          else
            core.by_rows[h](a + (i - i0) * row_stride * 4, row_stride, panel, count, o);
        }
      }
    }
  });
}

}  // namespace

int64_t gemm_scratch(const Gemm& g) {
  const Shape s(g);
  const int64_t all = s.panels * s.panel_bytes();
  const int64_t least = std::min<int64_t>(s.panels, 8) * s.panel_bytes();  // what whole sums need, however long
  return std::min(all, s.ta && !s.long_sum_in_bf16 ? kChunkBytes : std::max(kChunkBytes, least));
}

Copy gemm_derived(const Gemm& g) {
  const Shape s(g);
  if (s.ta) return {};
  return {g.b.data, s.tb ? 1 : 0, s.panels * s.panel_bytes()};
}

void gemm(const Gemm& g, Context& c) {
  const Shape s(g);
  if (s.m == 0 || s.n == 0) return;
  bool valid = false;
  if (void* kept = c.derived(gemm_derived(g), &valid)) {
    if (!valid) pack(g, s, c, 0, s.panels, 0, s.units, kept);
    return multiply(g, s, c, 0, s.panels, 0, s.units, static_cast<const char*>(kept));
  }
  const int64_t units = s.chunk_units(), panels = s.chunk_panels();
  for (int64_t u = 0; u < s.units || u == 0; u += std::max<int64_t>(units, 1))
    for (int64_t p = 0; p < s.panels; p += panels) {
      const int64_t u1 = std::min(s.units, u + units), p1 = std::min(s.panels, p + panels);
      pack(g, s, c, p, p1, u, u1, c.scratch());
      multiply(g, s, c, p, p1, u, u1, static_cast<const char*>(c.scratch()));
    }
}

}  // namespace attune::cpu
