// wgmma: each warp of a warpgroup multiplies its 16 rows. Operands are decoded from the descriptors as the PTX manual lays them out
// (SWIZZLE_128B, K-major or MN-major). In the early timing an instruction is done when the warp's last lane has issued it, in the late one
// when it is waited for. All four warps must issue the same instructions, and the registers must be fenced after a wait.
#include <cstring>

#include "include/cuda_bf16.h"
#include "include/simt_ptx.h"
#include "machine.h"

namespace simt {
namespace {

constexpr int kMostColumns = 256;

struct Instruction {
  Wgmma what{};
  float* d[32];
  uint32_t a[32][4];
  int lanes = 0;  // that have issued it
  bool done = false;
};

struct WarpQueue {
  std::deque<Instruction> instructions;
  uint64_t first = 0;               // number of the queue's first
  uint64_t issued[32] = {};         // instructions, per lane
  std::vector<uint64_t> groups;     // numbers where committed groups end
  uint64_t committed[32] = {};      // groups, per lane
  uint64_t finished = 0;            // instructions that were waited for
  bool fenced[32] = {};
};

}  // namespace

struct WarpgroupState {
  WarpQueue warps[4];
  std::vector<Wgmma> issued;  // by the warpgroup, for its warps to agree on
};

namespace {

WarpgroupState& warpgroup() {
  need_capability(90, "wgmma");
  const size_t which = static_cast<size_t>(block.running) / 128;
  if (block.warpgroups.size() <= which) block.warpgroups.resize(which + 1, nullptr);
  if (!block.warpgroups[which]) {
    if ((which + 1) * 128 > block.count) fault("wgmma: four whole warps form a warpgroup; the block has %u threads", block.count);
    block.warpgroups[which] = new WarpgroupState;
  }
  return *block.warpgroups[which];
}
WarpQueue& queue() { return warpgroup().warps[block.running / 32 % 4]; }

bool same(const Wgmma& x, const Wgmma& y) {
  return x.n == y.n && x.transpose_a == y.transpose_a && x.transpose_b == y.transpose_b && x.accumulate == y.accumulate &&
         x.from_registers == y.from_registers && x.a == y.a && x.b == y.b;
}

// A matrix operand in shared memory, by its descriptor.
struct Operand {
  size_t start, lbo, sbo;
  bool transposed;  // MN-major

  Operand(uint64_t descriptor, bool transposed)
      : start((descriptor & 0x3FFF) << 4),
        lbo((descriptor >> 16 & 0x3FFF) << 4),
        sbo((descriptor >> 32 & 0x3FFF) << 4),
        transposed(transposed) {
    if (descriptor >> 62 != 1) fault("wgmma: a descriptor that is not of SWIZZLE_128B");
    if ((start >> 7 & 7) != 0) fault("wgmma: the operand at shared address %zu does not begin in row 0 of an aligned panel", start);
  }
  // Eight elements: K-major (row `mn`, k from `k`), MN-major (`k`, mn from `mn`).
  void read(int mn, int k, float (&values)[8]) const {
    size_t at = start;
    if (transposed)
      at += static_cast<size_t>(k / 8) * sbo + static_cast<size_t>(k % 8) * 128 + static_cast<size_t>(mn / 64) * lbo +
            static_cast<size_t>(mn % 64) * 2;
    else
      at += static_cast<size_t>(mn / 8) * sbo + static_cast<size_t>(mn % 8) * 128 + static_cast<size_t>(k) * 2;
    at ^= (at >> 7 & 7) << 4;
    shared_offset(shared_memory + at, 16, "wgmma reads");
    check_async_read(at, 16, "wgmma");
    uint16_t bits[8];
    std::memcpy(bits, shared_memory + at, 16);
    for (int i = 0; i < 8; ++i) values[i] = __ushort_as_bfloat16(bits[i]);
  }
};

struct Tile {
  float a[16][16];            // (row of the warp, k)
  float b[16][kMostColumns];  // (k, n)
  float d[16][kMostColumns];
};

__attribute__((target_clones("arch=haswell", "default"))) void multiply(Tile& tile, int n) {
  for (int row = 0; row < 16; ++row) {
    float* d = tile.d[row];
    for (int k = 0; k < 16; ++k) {
      const float a = tile.a[row][k];
      const float* b = tile.b[k];
      for (int column = 0; column < n; ++column) d[column] += a * b[column];
    }
  }
}

void load_a(Tile& tile, const Instruction& instruction, int warp) {
  if (instruction.what.from_registers) {
    for (int lane = 0; lane < 32; ++lane)
      for (int which = 0; which < 8; ++which) {
        const int i = which / 2 % 2, j = which / 4, c = which % 2;
        const auto bits = static_cast<uint16_t>(instruction.a[lane][2 * j + i] >> (16 * c));
        tile.a[lane / 4 + 8 * i][8 * j + 2 * (lane % 4) + c] = __ushort_as_bfloat16(bits);
      }
    return;
  }
  // All 64 rows are read, though 16 are the warp's: which warp reads which is nobody's to know.
  const Operand a(instruction.what.a, instruction.what.transpose_a);
  float values[8];
  for (int row = 0; !a.transposed && row < 64; ++row) {
    for (int k = 0; k < 16; k += 8) {
      a.read(row, k, values);
      if (row / 16 == warp) std::memcpy(&tile.a[row % 16][k], values, sizeof values);
    }
  }
  for (int k = 0; a.transposed && k < 16; ++k) {
    for (int row = 0; row < 64; row += 8) {
      a.read(row, k, values);
      for (int i = 0; row / 16 == warp && i < 8; ++i) tile.a[row % 16 + i][k] = values[i];
    }
  }
}

void load_b(Tile& tile, const Wgmma& what) {
  const Operand b(what.b, what.transpose_b);
  float values[8];
  if (b.transposed) {
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < what.n; n += 8) {
        b.read(n, k, values);
        std::memcpy(&tile.b[k][n], values, sizeof values);
      }
  } else {
    for (int n = 0; n < what.n; ++n)
      for (int k = 0; k < 16; k += 8) {
        b.read(n, k, values);
        for (int i = 0; i < 8; ++i) tile.b[k + i][n] = values[i];
      }
  }
}

// Calls f(row of the warp, column, the accumulator) for each of a warp's.
template <class F> void for_each_accumulator(const Instruction& instruction, F f) {
  for (int lane = 0; lane < 32; ++lane)
    for (int index = 0; index < instruction.what.n / 2; ++index) {
      const int j = index / 4, i = index / 2 % 2, c = index % 2;
      f(lane / 4 + 8 * i, 8 * j + 2 * (lane % 4) + c, instruction.d[lane][index]);
    }
}

void execute(Instruction& instruction, int warp) {
  static Tile tile;
  load_a(tile, instruction, warp);
  load_b(tile, instruction.what);
  const bool accumulate = instruction.what.accumulate;
  for_each_accumulator(instruction, [&](int row, int column, float& d) { tile.d[row][column] = accumulate ? d : 0.f; });
  multiply(tile, instruction.what.n);
  for_each_accumulator(instruction, [&](int row, int column, float& d) { d = tile.d[row][column]; });
  instruction.done = true;
}

}  // namespace

void wgmma(float* d, const Wgmma& what, Site site) {
  const Unwatched unwatched;
  WarpgroupState& group = warpgroup();
  WarpQueue& mine = queue();
  const int lane = block.lane();
  const uint64_t number = mine.issued[lane]++;
  if (!mine.fenced[lane]) fault("wgmma at line %u: no wgmma_fence() since the kernel began, or since the last wait", site.line());
  if (group.issued.size() == number) group.issued.push_back(what);
  if (number > group.issued.size() || !same(group.issued[number], what))
    fault("wgmma at line %u: its %zu-th instruction differs from another lane's", site.line(), static_cast<size_t>(number));
  while (mine.first + mine.instructions.size() <= number) mine.instructions.emplace_back();
  Instruction& instruction = mine.instructions[number - mine.first];
  instruction.what = what;
  instruction.d[lane] = d;
  std::memcpy(instruction.a[lane], what.registers, sizeof what.registers);
  if (++instruction.lanes == 32 && !block.late) execute(instruction, block.running / 32 % 4);
}

void wgmma_fence() {
  const Unwatched unwatched;  // the first instruction makes the queue
  queue().fenced[block.lane()] = true;
}

void wgmma_commit() {
  const Unwatched unwatched;
  WarpQueue& mine = queue();
  const int lane = block.lane();
  const uint64_t number = mine.committed[lane]++;
  if (mine.groups.size() <= number) mine.groups.push_back(mine.issued[lane]);
  if (mine.groups[number] != mine.issued[lane]) fault("wgmma_commit: lanes of the warp commit different instructions");
}

void wgmma_wait(int pending, Site site) {
  const Unwatched unwatched;
  WarpQueue& mine = queue();
  Warp& warp = block.warp();
  mine.fenced[block.lane()] = false;
  const uint64_t generation = warp.generation;
  if (!join(warp, "wgmma_wait", kFullWarp, site)) {
    wait_until({&warp.generation, generation, ~uint64_t{0}, "wgmma_wait", site});
    return;
  }
  for (int lane = 1; lane < 32; ++lane)
    if (mine.issued[lane] != mine.issued[0] || mine.committed[lane] != mine.committed[0])
      fault("wgmma_wait at line %u: lanes of the warp have issued different instructions", site.line());
  const size_t groups = mine.groups.size();
  const uint64_t until = groups > static_cast<size_t>(pending) ? mine.groups[groups - static_cast<size_t>(pending) - 1] : 0;
  for (; mine.finished < until; ++mine.finished, ++mine.first) {
    Instruction& instruction = mine.instructions.front();
    if (!instruction.done) execute(instruction, block.running / 32 % 4);
    mine.instructions.pop_front();
  }
  leave(warp);
}

void set_registers(int, bool) { need_capability(90, "setmaxnreg"); }

void reset_warpgroups() {
  for (WarpgroupState* group : block.warpgroups) delete group;
  block.warpgroups.clear();
}

void check_warpgroups_at_end() {
  for (const WarpgroupState* group : block.warpgroups) {
    if (!group) continue;
    for (const WarpQueue& warp : group->warps) {
      if (!warp.instructions.empty()) fault("the block ended with wgmma instructions that were not waited for");
      if (warp.finished != group->issued.size()) fault("a warp of a warpgroup issued fewer wgmma instructions than another");
    }
  }
}

}  // namespace simt
