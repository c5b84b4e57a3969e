// One piece of zeroed, 64-byte aligned memory. Large pieces are mapped, so a page costs nothing until it is touched. A device
// with memory of its own makes pieces of that through `own`.
#pragma once
#include <cstdint>

namespace attune {

class Memory {
 public:
  Memory() = default;
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  // An empty Memory (data() is null) when the system has no room. `huge` asks for huge pages: faster, less exact.
  static Memory allocate(int64_t bytes, bool huge);

  // Addresses alone, which nothing may touch: what a plan counts.
  static Memory reserve(int64_t bytes);

  // A piece that somebody else made; `release` gives it back.
  using Release = void (*)(void* data, int64_t bytes);
  static Memory own(void* data, int64_t bytes, Release release);

  // A part of a piece that outlives it.
  Memory part(int64_t offset, int64_t bytes) const;

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
  Release release_ = nullptr;
};

// Under AddressSanitizer: everything in [data, data + bytes) becomes forbidden, or allowed again. No-ops otherwise.
void forbid(const void* data, int64_t bytes);
void allow(const void* data, int64_t bytes);

}  // namespace attune
