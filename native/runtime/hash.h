// XXH64 (Yann Collet's xxHash specification, seed 0): a fast 64-bit fingerprint of a buffer's bytes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace attune {

uint64_t hash64(const void* data, size_t bytes);

}  // namespace attune
