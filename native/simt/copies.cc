// Copies that go on while their thread does: cp.async, and TMA with its tensor maps. In the early timing one happens where it is issued, in
// the late one where it is waited for: a TMA load when nothing else can run.
#include <algorithm>
#include <cstring>

#include "include/simt_ptx.h"
#include "machine.h"

namespace simt {
namespace {

constexpr uint64_t kMapMark = 0x70615D726F736E65;

const CUtensorMap& checked(const CUtensorMap* map, int rank, const char* what) {
  need_capability(90, what);
  if (reinterpret_cast<uintptr_t>(map) % 64 != 0 || map->magic != kMapMark) fault("%s: not a tensor map", what);
  if (map->rank != static_cast<uint32_t>(rank)) fault("%s: a map of %u dimensions, %d coordinates", what, map->rank, rank);
  if (map->swizzled && map->box[0] * map->width != 128) fault("%s: rows of %u bytes, swizzled as 128", what, map->box[0] * map->width);
  return *map;
}

size_t box_bytes(const CUtensorMap& map) { return size_t{map.box[0]} * map.box[1] * map.box[2] * map.width; }

size_t checked_offset(const CUtensorMap& map, const void* shared, const char* what) {
  const size_t offset = shared_offset(shared, box_bytes(map), what);
  const size_t alignment = map.swizzled ? 1024 : 128;
  if (offset % alignment != 0) fault("%s: shared address %zu is not a multiple of %zu", what, offset, alignment);
  return offset;
}

// Where the 16 bytes at `offset` of a swizzled tile lie: bits 4 to 6 of the address take in bits 7 to 9.
size_t swizzle(const CUtensorMap& map, size_t offset) { return map.swizzled ? offset ^ ((offset >> 7 & 7) << 4) : offset; }

// Calls f(shared offset, global address or null when outside, bytes) for every 16 bytes of a box.
template <class F> void for_each_chunk(const CUtensorMap& map, size_t shared, const int32_t (&c)[3], F f) {
  const int64_t per_chunk = 16 / map.width;
  for (uint32_t z = 0; z < map.box[2]; ++z) {
    for (uint32_t y = 0; y < map.box[1]; ++y) {
      for (uint32_t x = 0; x < map.box[0]; x += static_cast<uint32_t>(per_chunk)) {
        const size_t at = shared + ((size_t{z} * map.box[1] + y) * map.box[0] + x) * map.width;
        const int64_t i = int64_t{c[0]} + x, j = int64_t{c[1]} + y, k = int64_t{c[2]} + z;
        const bool row_inside = j >= 0 && j < static_cast<int64_t>(map.extents[1]) && k >= 0 && k < static_cast<int64_t>(map.extents[2]);
        char* row = map.base + (row_inside ? j * static_cast<int64_t>(map.strides[1]) + k * static_cast<int64_t>(map.strides[2]) : 0);
        f(swizzle(map, at), row_inside ? row : nullptr, i, std::min<int64_t>(per_chunk, int64_t{map.box[0]} - x));
      }
    }
  }
}

void land(const CUtensorMap& map, size_t shared, const int32_t (&c)[3]) {
  for_each_chunk(map, shared, c, [&](size_t at, const char* row, int64_t first, int64_t elements) {
    uint8_t bytes[16] = {};
    for (int64_t e = 0; row && e < elements; ++e)
      if (first + e >= 0 && first + e < static_cast<int64_t>(map.extents[0]))
        std::memcpy(bytes + e * map.width, row + (first + e) * map.width, map.width);
    async_write(at, bytes, static_cast<size_t>(elements) * map.width);
  });
}

void store(const CUtensorMap& map, size_t shared, const int32_t (&c)[3]) {
  for_each_chunk(map, shared, c, [&](size_t at, char* row, int64_t first, int64_t elements) {
    if (row) check_async_read(at, static_cast<size_t>(elements) * map.width, "a TMA store");
    for (int64_t e = 0; row && e < elements; ++e)
      if (first + e >= 0 && first + e < static_cast<int64_t>(map.extents[0]))
        std::memcpy(row + (first + e) * map.width, shared_memory + at + static_cast<size_t>(e) * map.width, map.width);
  });
}

// The part of the tensor that a box touches must be memory.
void check_global(const CUtensorMap& map, const int32_t (&c)[3], const char* what) {
  int64_t first = 0, last = 0;
  for (int d = 0; d < 3; ++d) {
    const int64_t extent = static_cast<int64_t>(map.extents[d]);
    const int64_t from = std::max<int64_t>(c[d], 0), to = std::min<int64_t>(int64_t{c[d]} + map.box[d], extent) - 1;
    if (from > to) return;  // wholly outside: nothing is touched
    first += from * static_cast<int64_t>(map.strides[d]);
    last += to * static_cast<int64_t>(map.strides[d]);
  }
  if (!in_device_memory(map.base + first, static_cast<size_t>(last - first) + map.width))
    fault("%s: the box at (%d, %d, %d) lies in memory that was not allocated", what, c[0], c[1], c[2]);
}

void perform(const Copy16& copy) {
  if (copy.from)
    std::memcpy(copy.to, copy.from, 16);
  else
    std::memset(copy.to, 0, 16);
}

}  // namespace

void tma_load(void* shared, const CUtensorMap* map, uint64_t* barrier, int rank, int32_t c0, int32_t c1, int32_t c2) {
  const Unwatched unwatched;
  const CUtensorMap copy = checked(map, rank, "a TMA load");
  const size_t offset = checked_offset(copy, shared, "a TMA load");
  const int32_t c[3] = {c0, c1, c2};
  check_global(copy, c, "a TMA load");
  shared_offset(barrier, 8, "a TMA load's barrier");
  block.pending.push_back({[copy, offset, barrier, c0, c1, c2] {
    const int32_t at[3] = {c0, c1, c2};
    land(copy, offset, at);
    mbarrier_landed(barrier, box_bytes(copy));
  }});
  if (!block.late && block.random.below(2) == 0) run_pending_copy();
}

void run_pending_copy() {
  const Unwatched unwatched;
  const size_t which = block.late ? block.random.below(block.pending.size()) : 0;
  const Pending copy = std::move(block.pending[which]);
  block.pending.erase(block.pending.begin() + static_cast<std::ptrdiff_t>(which));
  copy.run();
}

void tma_store(const CUtensorMap* map, const void* shared, int rank, int32_t c0, int32_t c1, int32_t c2) {
  const Unwatched unwatched;
  const CUtensorMap copy = checked(map, rank, "a TMA store");
  const size_t offset = checked_offset(copy, shared, "a TMA store");
  const int32_t c[3] = {c0, c1, c2};
  check_global(copy, c, "a TMA store");
  // Seen on an H200: a store into rows of 200 bytes wrote beyond them. It clips rows by 16 bytes, not by elements as a load does.
  if (copy.extents[0] * copy.width % 16 != 0)
    fault("a TMA store: the inner extent must be a multiple of 16 bytes, got %llu", static_cast<unsigned long long>(copy.extents[0] * copy.width));
  // Seen on an H100 and an H200: a store that begins before the tensor is an illegal instruction, where a load reads zeros.
  for (int i = 0; i < rank; ++i)
    if (c[i] < 0) fault("a TMA store: coordinates must be at least 0, got %d", c[i]);
  auto run = [copy, offset, c0, c1, c2] {
    const int32_t at[3] = {c0, c1, c2};
    store(copy, offset, at);
  };
  ThreadCopies& mine = block.thread_copies();
  if (block.late)
    mine.stores.emplace_back(run);
  else
    run();
  ++mine.open_stores;
}

void tma_store_commit() {
  const Unwatched unwatched;
  ThreadCopies& mine = block.thread_copies();
  mine.store_groups.push_back(mine.open_stores);
  mine.open_stores = 0;
}

void tma_store_wait(int pending) {
  const Unwatched unwatched;
  ThreadCopies& mine = block.thread_copies();
  while (mine.store_groups.size() > static_cast<size_t>(pending)) {
    for (size_t i = 0; i < mine.store_groups.front() && !mine.stores.empty(); ++i) {
      mine.stores.front()();
      mine.stores.pop_front();
    }
    mine.store_groups.pop_front();
  }
}

void cp_async_16(void* shared, const void* global, bool valid) {
  const Unwatched unwatched;
  need_capability(80, "cp.async");
  const size_t offset = shared_offset(shared, 16, "cp.async");
  if (offset % 16 != 0) fault("cp.async: shared address %zu is not a multiple of 16", offset);
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) fault("cp.async: the global address %p is not a multiple of 16", global);
  if (valid && !in_device_memory(global, 16)) fault("cp.async: 16 bytes at %p were not allocated", global);
  const Copy16 copy{shared_memory + offset, valid ? static_cast<const uint8_t*>(global) : nullptr};
  ThreadCopies& mine = block.thread_copies();
  if (block.late)
    mine.copies.push_back(copy);
  else
    perform(copy);
  ++mine.open;
}

void cp_async_commit() {
  const Unwatched unwatched;
  ThreadCopies& mine = block.thread_copies();
  mine.groups.push_back(mine.open);
  mine.open = 0;
}

void cp_async_wait(int pending) {
  const Unwatched unwatched;
  ThreadCopies& mine = block.thread_copies();
  while (mine.groups.size() > static_cast<size_t>(pending)) {
    for (size_t i = 0; i < mine.groups.front() && !mine.copies.empty(); ++i) {
      perform(mine.copies.front());
      mine.copies.pop_front();
    }
    mine.groups.pop_front();
  }
}

void check_copies_at_end() {
  if (!block.pending.empty()) fault("the block ended with %zu TMA loads in flight", block.pending.size());
  for (size_t i = 0; i < block.copies.size(); ++i) {
    if (block.copies[i].open_stores > 0 || !block.copies[i].store_groups.empty())
      fault("the block ended with TMA stores of thread %zu that it did not wait for", i);
  }
}

}  // namespace simt

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* base, const cuuint64_t* extents,
                                const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* steps, CUtensorMapInterleave,
                                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  const uint32_t width = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 ? 2 : 4;
  const auto aligned = [](uint64_t value, uint64_t to) { return value % to == 0; };
  bool ok = reinterpret_cast<uintptr_t>(map) % 64 == 0 && rank >= 1 && rank <= 3 && base && aligned(reinterpret_cast<uintptr_t>(base), 16);
  for (cuuint32_t i = 0; ok && i < rank; ++i) {
    ok = extents[i] > 0 && extents[i] <= uint64_t{1} << 32 && box[i] > 0 && box[i] <= 256 && steps[i] == 1;
    if (ok && i > 0) ok = aligned(strides[i - 1], 16) && strides[i - 1] > 0 && strides[i - 1] < uint64_t{1} << 40;
  }
  const uint64_t row = ok ? uint64_t{box[0]} * width : 0;
  if (!ok || !aligned(row, 16) || (swizzle == CU_TENSOR_MAP_SWIZZLE_128B && row > 128)) return CUDA_ERROR_INVALID_VALUE;
  *map = {};
  map->magic = simt::kMapMark;
  map->base = static_cast<char*>(base);
  map->rank = rank;
  map->width = width;
  map->swizzled = swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
  for (cuuint32_t i = 0; i < 3; ++i) {
    map->extents[i] = i < rank ? extents[i] : 1;
    map->box[i] = i < rank ? box[i] : 1;
    map->strides[i] = i == 0 ? width : i < rank ? strides[i - 1] : 0;
  }
  return CUDA_SUCCESS;
}
