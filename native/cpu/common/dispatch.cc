// CPU detection, and the environment variable that lowers it.
#include "dispatch.h"

#include <cstdlib>
#include <cstring>

namespace attune::cpu {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512_bf16"};

Level machine() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Level::baseline;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl"))
    return Level::avx2;
  return __builtin_cpu_supports("avx512bf16") ? Level::avx512_bf16 : Level::avx512;
#else
  return Level::baseline;
#endif
}

struct Choice {
  Level level;
  bool unknown;
};

Choice choose() {
  const Level most = machine();
  const char* asked = std::getenv("ATTUNE_CPU");
  if (!asked || !*asked) return {most, false};
  for (int i = 0; i < 4; ++i)
    if (std::strcmp(asked, kNames[i]) == 0) return {i < static_cast<int>(most) ? static_cast<Level>(i) : most, false};
  return {most, true};
}

const Choice& choice() {
  static const Choice c = choose();
  return c;
}

}  // namespace

Level level() { return choice().level; }
const char* cpu_level() { return kNames[static_cast<int>(level())]; }
std::vector<const char*> cpu_levels() { return {kNames, kNames + static_cast<int>(machine()) + 1}; }
bool cpu_level_unknown() { return choice().unknown; }

}  // namespace attune::cpu
