// Which instruction set the kernels use on this machine: found out once, at first use.
// The environment variable ATTUNE_CPU=baseline|avx2|avx512|avx512_bf16 asks for a lower level; more than the machine has is
// lowered to what it has.
#pragma once
#include <vector>

namespace attune::cpu {

// baseline: plain C++ (SSE2 on x86-64). avx2: AVX2 + FMA. avx512: F, BW, DQ, VL. avx512_bf16: also the bf16 dot product.
enum class Level : int { baseline, avx2, avx512, avx512_bf16 };

Level level();
// The name of level().
const char* cpu_level();
// The names of every level that this machine has, lowest first, whatever ATTUNE_CPU says.
std::vector<const char*> cpu_levels();
// True when ATTUNE_CPU is set to something that is no level's name: no session opens then.
bool cpu_level_unknown();

}  // namespace attune::cpu
