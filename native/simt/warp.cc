// What a warp does together: collectives, ldmatrix, mma.sync. Lanes meet one by one; the last to come does the work.
#include <cstring>

#include "include/cuda_bf16.h"
#include "include/simt_ptx.h"
#include "machine.h"

namespace simt {

bool same_site(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

bool join(Warp& warp, const char* op, uint32_t mask, Site site) {
  if ((mask & warp.present) != warp.present) fault("%s: the mask 0x%08x lacks lanes of the warp", op, mask);
  if (warp.ended) fault("%s at line %u: lanes 0x%08x of the warp have ended", op, site.line(), warp.ended);
  if (warp.arrived == 0) {
    warp.op = op;
    warp.site = site;
  } else if (std::strcmp(warp.op, op) != 0 || !same_site(warp.site, site)) {
    fault("lane %d is in %s at line %u, others of its warp in %s at line %u", block.lane(), op, site.line(), warp.op, warp.site.line());
  }
  return ++warp.arrived == __builtin_popcount(warp.present);
}

void leave(Warp& warp) {
  warp.arrived = 0;
  ++warp.generation;
}

namespace {

void need_whole_warp(const Warp& warp, const char* op) {
  if (warp.present != kFullWarp) fault("%s: a warp of fewer than 32 lanes", op);
}

}  // namespace

Lanes exchange(const char* op, uint32_t mask, uint64_t value, Site site) {
  Warp& warp = block.warp();
  const uint64_t generation = warp.generation;
  uint64_t* values = warp.values[generation & 1];
  values[block.lane()] = value;
  if (join(warp, op, mask, site))
    leave(warp);
  else
    wait_until({&warp.generation, generation, ~uint64_t{0}, op, site});
  return {values, warp.present, block.lane()};
}

void sync_warp(uint32_t mask, Site site) {
  Warp& warp = block.warp();
  release(&warp.ended);
  exchange("__syncwarp", mask, 0, site);
  acquire(&warp.ended);
}

// Matrix m's rows are named by lanes 8 m to 8 m + 7; lane l gets row l / 4, columns 2 (l % 4) and the next, or the transposed.
void ldmatrix_x4(uint32_t* r, const void* row, bool transposed, Site site) {
  Warp& warp = block.warp();
  need_whole_warp(warp, "ldmatrix");
  if (shared_offset(row, 16, "ldmatrix") % 16 != 0) fault("ldmatrix: a row must be 16-byte aligned");
  warp.operands[block.lane()] = {r, row, nullptr};
  const uint64_t generation = warp.generation;
  if (!join(warp, transposed ? "ldmatrix_x4_transposed" : "ldmatrix_x4", kFullWarp, site)) {
    wait_until({&warp.generation, generation, ~uint64_t{0}, "ldmatrix", site});
    return;
  }
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t element[8][8];
    for (int i = 0; i < 8; ++i) std::memcpy(element[i], warp.operands[8 * matrix + i].a, 16);
    for (int lane = 0; lane < 32; ++lane) {
      const int i = lane / 4, j = 2 * (lane % 4);
      const uint16_t low = transposed ? element[j][i] : element[i][j];
      const uint16_t high = transposed ? element[j + 1][i] : element[i][j + 1];
      static_cast<uint32_t*>(warp.operands[lane].out)[matrix] = low | static_cast<uint32_t>(high) << 16;
    }
  }
  leave(warp);
}

namespace {

float half(uint32_t packed, int which) {
  return __ushort_as_bfloat16(static_cast<uint16_t>(packed >> (16 * which)));
}

// The whole warp's product, by the fragment maps of the PTX manual.
void multiply(const Warp& warp) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, pair = 2 * (lane % 4);
    const auto* packed_a = static_cast<const uint32_t*>(warp.operands[lane].a);
    const auto* packed_b = static_cast<const uint32_t*>(warp.operands[lane].b);
    for (int which = 0; which < 2; ++which) {
      for (int j = 0; j < 2; ++j) {
        for (int i = 0; i < 2; ++i) a[group + 8 * i][8 * j + pair + which] = half(packed_a[2 * j + i], which);
        b[8 * j + pair + which][group] = half(packed_b[j], which);
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto* d = static_cast<float*>(warp.operands[lane].out);
    for (int i = 0; i < 2; ++i) {
      for (int c = 0; c < 2; ++c) {
        const int row = lane / 4 + 8 * i, column = 2 * (lane % 4) + c;
        float sum = d[2 * i + c];
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
        d[2 * i + c] = sum;
      }
    }
  }
}

}  // namespace

void mma_16x8x16(float* d, const uint32_t* a, const uint32_t* b, Site site) {
  Warp& warp = block.warp();
  need_whole_warp(warp, "mma.sync");
  warp.operands[block.lane()] = {d, a, b};
  const uint64_t generation = warp.generation;
  if (!join(warp, "mma_16x8x16", kFullWarp, site)) {
    wait_until({&warp.generation, generation, ~uint64_t{0}, "mma.sync", site});
    return;
  }
  multiply(warp);
  leave(warp);
}

}  // namespace simt
