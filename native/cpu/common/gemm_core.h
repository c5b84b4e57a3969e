// The one micro-kernel behind gemm, the head and attention: a tile of up to `rows` x `columns` results from an A operand and a
// panel of B, in fp32 accumulators, the sum over k in ascending order (so a result depends on nothing but its row of A and its
// column of B). Chosen by level and input type through a table of function pointers.
//
// A unit is 32 bits of one operand: one fp32, or, where the machine has the bf16 dot product, two bf16 neighbours along k. Without it
// bf16 operands are widened to fp32 while they are packed or copied (`pair` is then 1 and `widened` true).
//   A by rows   row r at a + r * stride units: a row-major matrix as it lies in memory (not where `widened`, nor with an odd stride)
//   A by k      unit u of row r at a[u * stride + r]
//   B panel     [units][columns], 64-byte aligned, columns beyond the matrix 0; panel p of a matrix holds columns p * columns ...
// An odd k is padded with 0 in the pair's second half, in both operands.
#pragma once
#include "../../runtime/tensor.h"

namespace attune::cpu {

// Where a tile's results go: y = sum (+ bias[column]) (+ add[row, column]). add may lie over y. Strides in elements.
struct TileOut {
  void* y;
  int64_t stride;
  int columns;  // at most GemmCore::columns: how many are written
  DType type = DType::f32, add_type = DType::f32, bias_type = DType::f32;
  const void* add = nullptr;
  int64_t add_stride = 0;
  const void* bias = nullptr;
};

using Tile = void (*)(const void* a, int64_t stride, const void* panel, int64_t units, const TileOut& out);

struct GemmCore {
  static constexpr int kMaxRows = 14;
  int rows, columns;  // of a full tile
  int pair;           // values of k in a unit
  bool widened;       // bf16 inputs become fp32 units
  Tile by_rows[kMaxRows + 1], by_k[kMaxRows + 1];  // by the number of rows, 1 to `rows`

  // Packing of values [k0, k0 + k) (k0 even where pair is 2) of a matrix in memory with `stride` elements between its rows.
  // One panel of B from (n, k): src is at row 0 of the panel, column k0; `columns` rows of it exist.
  void (*pack_b_t)(const void* src, int64_t stride, int64_t k, int columns, void* panel);
  // One panel of B from (k, n): src is at row k0, column 0 of the panel.
  void (*pack_b)(const void* src, int64_t stride, int64_t k, int columns, void* panel);
  // A by k with stride `tile` from (k, m): src is at row k0, the tile's first column; `rows` of at most `tile` <= 16 columns exist.
  // May write up to 64 bytes from the start of the last unit: leave room behind it.
  void (*pack_a)(const void* src, int64_t stride, int64_t k, int rows, int tile, void* dst);
  // A by rows from (m, k), to rows `dst_stride` units apart.
  void (*copy_a)(const void* src, int64_t stride, int64_t k, int64_t rows, void* dst, int64_t dst_stride);

  int64_t units(int64_t k) const { return (k + pair - 1) / pair; }
  int64_t panels(int64_t n) const { return (n + columns - 1) / columns; }
  int64_t panel_bytes(int64_t k) const { return units(k) * columns * 4; }
};

// For inputs of this type (f32 or bf16) at the level in use.
const GemmCore& gemm_core(DType inputs);

}  // namespace attune::cpu
