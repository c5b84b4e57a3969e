// A block's shared memory: NaN bytes at first, gaps that AddressSanitizer knows of, and a second copy that holds what the async proxy
// (TMA, wgmma) is allowed to see. A plain store shows in the copy only after a fence; the async proxy reading a byte that differs from
// its copy reads a store that no fence ordered. A fence publishes every thread's stores so far: one thread fencing for another passes.
#include <cstring>

#include "machine.h"

extern "C" {
void __asan_poison_memory_region(void const volatile* from, size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(void const volatile* from, size_t bytes) __attribute__((weak));
}

namespace simt {
namespace {

alignas(1024) uint8_t memory[kSharedBytes];
alignas(1024) uint8_t known[kSharedBytes];  // to the async proxy
uint32_t fenced_warps;  // have fenced since stores were last published

constexpr size_t kGap = 32;
constexpr size_t kStaticLimit = 48 * 1024;
constexpr uint8_t kNan = 0xFF;

void poison(size_t from, size_t bytes) {
  if (__asan_poison_memory_region) __asan_poison_memory_region(memory + from, bytes);
}
void open(size_t from, size_t bytes) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(memory + from, bytes);
  const Unwatched unwatched;
  std::memset(memory + from, kNan, bytes);
  std::memset(known + from, kNan, bytes);
}

}  // namespace

uint8_t* const shared_memory = memory;

void begin_shared(size_t dynamic_bytes) {
  static const bool once = (poison(0, kSharedBytes), true);
  static_cast<void>(once);
  open(kSharedReserved, dynamic_bytes);
  block.statics.clear();
  block.static_top = kSharedReserved + dynamic_bytes + kGap;
  fenced_warps = 0;
}

void end_shared() { poison(kSharedReserved, block.static_top - kSharedReserved); }

uint8_t* dynamic_shared() { return memory + kSharedReserved; }

void* static_shared(const void* tag, size_t bytes, size_t align, const char* name) {
  for (const StaticArray& array : block.statics)
    if (array.tag == tag) return memory + array.offset;
  const size_t offset = (block.static_top + align - 1) / align * align;
  size_t used = bytes;
  for (const StaticArray& array : block.statics) used += array.bytes;
  if (used > kStaticLimit || used + block.dynamic_bytes > shared_limit())
    fault("shared memory: no room for %s, %zu bytes; %zu are static, %zu dynamic", name, bytes, used, block.dynamic_bytes);
  block.statics.push_back({tag, offset, bytes});
  block.static_top = (offset + bytes + kGap + 15) / 16 * 16;
  open(offset, bytes);
  return memory + offset;
}

uint32_t shared_address(const void* shared) {
  const auto* at = static_cast<const uint8_t*>(shared);
  if (at < memory + kSharedReserved || at > memory + block.static_top) fault("an address that is not in shared memory: %p", shared);
  return static_cast<uint32_t>(at - memory);
}

size_t shared_offset(const void* at, size_t bytes, const char* what) {
  const auto* from = static_cast<const uint8_t*>(at);
  const size_t end = block.static_top;
  if (from < memory + kSharedReserved || from + bytes > memory + end)
    fault("%s: %zu bytes at shared address %td, outside of the block's shared memory", what, bytes, from - memory);
  return static_cast<size_t>(from - memory);
}

void fence_proxy_async() {
  need_capability(90, "fence.proxy.async");
  fenced_warps |= 1u << (block.running / 32);
}

void publish_stores() {
  if (fenced_warps == 0) return;
  fenced_warps = 0;
  const Unwatched unwatched;
  std::memcpy(known + kSharedReserved, memory + kSharedReserved, block.dynamic_bytes);
  for (const StaticArray& array : block.statics) std::memcpy(known + array.offset, memory + array.offset, array.bytes);
}

void async_write(size_t offset, const void* from, size_t bytes) {
  const Unwatched unwatched;
  std::memcpy(memory + offset, from, bytes);
  std::memcpy(known + offset, from, bytes);
}

void check_async_read(size_t offset, size_t bytes, const char* what) {
  if (block.running >= 0 && (fenced_warps >> (block.running / 32) & 1)) publish_stores();  // its own; those of others, by a barrier
  const Unwatched unwatched;
  if (std::memcmp(memory + offset, known + offset, bytes) == 0) return;
  size_t at = offset;
  while (memory[at] == known[at]) ++at;
  fault("%s reads shared address %zu (dynamic byte %td), which a plain store wrote with no fence_proxy_async after it", what, at,
        static_cast<ptrdiff_t>(at) - static_cast<ptrdiff_t>(kSharedReserved));
}

}  // namespace simt
