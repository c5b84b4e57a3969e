// XXH64 after the published specification. See hash.h.
#include "hash.h"

#include <bit>
#include <cstring>

namespace attune {

namespace {

constexpr uint64_t kP1 = 0x9e3779b185ebca87u, kP2 = 0xc2b2ae3d27d4eb4fu, kP3 = 0x165667b19e3779f9u,
                   kP4 = 0x85ebca77c2b2ae63u, kP5 = 0x27d4eb2f165667c5u;

template <class T> uint64_t read(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}
uint64_t round(uint64_t lane, uint64_t input) { return std::rotl(lane + input * kP2, 31) * kP1; }
uint64_t merge(uint64_t h, uint64_t lane) { return (h ^ round(0, lane)) * kP1 + kP4; }

}  // namespace

uint64_t hash64(const void* data, size_t bytes) {
  const uint8_t* p = static_cast<const uint8_t*>(data);
  const uint8_t* const end = p + bytes;
  uint64_t h = kP5;
  if (bytes >= 32) {
    uint64_t lane[4] = {kP1 + kP2, kP2, 0, 0 - kP1};
    for (; end - p >= 32; p += 32) {
      for (int i = 0; i < 4; ++i) lane[i] = round(lane[i], read<uint64_t>(p + 8 * i));
    }
    h = std::rotl(lane[0], 1) + std::rotl(lane[1], 7) + std::rotl(lane[2], 12) + std::rotl(lane[3], 18);
    for (uint64_t l : lane) h = merge(h, l);
  }
  h += bytes;
  for (; end - p >= 8; p += 8) h = std::rotl(h ^ round(0, read<uint64_t>(p)), 27) * kP1 + kP4;
  if (end - p >= 4) {
    h = std::rotl(h ^ read<uint32_t>(p) * kP1, 23) * kP2 + kP3;
    p += 4;
  }
  for (; p < end; ++p) h = std::rotl(h ^ *p * kP5, 11) * kP1;
  h = (h ^ h >> 33) * kP2;
  h = (h ^ h >> 29) * kP3;
  return h ^ h >> 32;
}

}  // namespace attune
