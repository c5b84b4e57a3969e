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
}  // namespace

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

Memory::~Memory() {
  if (data_ == nullptr) return;
  allow(data_, bytes_);
  if (mapped_) {
    munmap(data_, static_cast<size_t>(bytes_));
  } else {
    std::free(data_);
  }
}

Memory Memory::allocate(int64_t bytes, bool huge) {
  Memory m;
  if (bytes < 0 || bytes > kMost) return m;
  if (bytes < 1) bytes = 1;  // an empty tensor still has an address: null means "absent"
  void* place = nullptr;
  if (bytes >= kMapFrom) {
    place = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return m;
#ifdef MADV_HUGEPAGE
    if (huge) madvise(place, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#else
    (void)huge;
#endif
    m.mapped_ = true;
  } else {
    if (posix_memalign(&place, 64, static_cast<size_t>(bytes)) != 0) return m;
    std::memset(place, 0, static_cast<size_t>(bytes));
  }
  m.data_ = static_cast<uint8_t*>(place);
  m.bytes_ = bytes;
  return m;
}

Memory Memory::reserve(int64_t bytes) {
  Memory m;
  if (bytes < 0 || bytes > kMost) return m;
  if (bytes < 1) bytes = 1;
  void* place = mmap(nullptr, static_cast<size_t>(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) return m;
  m.data_ = static_cast<uint8_t*>(place);
  m.bytes_ = bytes;
  m.mapped_ = true;
  return m;
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
