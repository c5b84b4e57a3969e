// Mistakes that the emulator must catch: faults.cu has them, faults.cc runs them.
#pragma once
#include <cuda.h>

#include <cstdint>
#include <vector>

namespace attune::faults {

constexpr int kThreads = 128, kFloats = 4096, kSharedBytes = 64 * 1024;
constexpr uint32_t kTileBytes = 64 * 128;

struct Arguments {
  float* out;  // (kFloats), zeros
};
// A bf16 tensor (64, 64) of ones.
using Map = CUtensorMap;

struct Case {
  const char* name;
  void (*kernel)(const Map&, Arguments);
  const char* words;  // on stderr; null: out[0 ... kThreads) must not be ones
  int capability = 90;
  uint64_t columns = 64;  // of the tensor, as the map has it
};
const std::vector<Case>& cases();

}  // namespace attune::faults
