// Allocation for buffers, the arena and derived copies. See memory.h.
#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#define ATTUNE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ATTUNE_ASAN 1
#endif
#endif
#ifdef ATTUNE_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace attune {

namespace {
#ifdef ATTUNE_ASAN
constexpr int64_t kMapFrom = 256 << 20;  // malloc puts guard bytes around a piece
constexpr int64_t kMostPoison = int64_t{1} << 30;
#else
constexpr int64_t kMapFrom = 256 << 10;
#endif
constexpr int64_t kMost = int64_t{1} << 46;

void unmap(void* data, int64_t bytes) {
  allow(data, bytes);
  munmap(data, static_cast<size_t>(bytes));
}
void free_host(void* data, int64_t bytes) {
  allow(data, bytes);
  std::free(data);
}
}  // namespace

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(release_, other.release_);
  return *this;
}

Memory::~Memory() {
  if (data_ != nullptr) release_(data_, bytes_);
}

Memory Memory::own(void* data, int64_t bytes, Release release) {
  Memory m;
  m.data_ = static_cast<uint8_t*>(data);
  m.bytes_ = bytes;
  m.release_ = release;
  return m;
}

Memory Memory::allocate(int64_t bytes, bool huge) {
  if (bytes < 0 || bytes > kMost) return {};
  if (bytes < 1) bytes = 1;  // an empty tensor still has an address: null means "absent"
  void* place = nullptr;
  if (bytes >= kMapFrom) {
    place = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return {};
#ifdef MADV_HUGEPAGE
    if (huge) madvise(place, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#else
    (void)huge;
#endif
    return own(place, bytes, unmap);
  }
  if (posix_memalign(&place, 64, static_cast<size_t>(bytes)) != 0) return {};
  std::memset(place, 0, static_cast<size_t>(bytes));
  return own(place, bytes, free_host);
}

Memory Memory::part(int64_t offset, int64_t bytes) const {
  return own(data_ + offset, bytes, [](void*, int64_t) {});
}

Memory Memory::reserve(int64_t bytes) {
  if (bytes < 0 || bytes > kMost) return {};
  if (bytes < 1) bytes = 1;
  void* place = mmap(nullptr, static_cast<size_t>(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) return {};
  return own(place, bytes, unmap);
}

#ifdef ATTUNE_ASAN
void forbid(const void* data, int64_t bytes) {
  if (bytes <= kMostPoison) ASAN_POISON_MEMORY_REGION(data, static_cast<size_t>(bytes));
}
void allow(const void* data, int64_t bytes) { ASAN_UNPOISON_MEMORY_REGION(data, static_cast<size_t>(bytes)); }
#else
void forbid(const void*, int64_t) {}
void allow(const void*, int64_t) {}
#endif

}  // namespace attune
