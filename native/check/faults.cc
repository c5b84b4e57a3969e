// attune-faults: the emulator against kernels that are wrong on purpose. Each runs in a process of its own and must end with the words
// written beside it, or with a wrong result. For the emulator only.
//   attune-faults [NAME]       NAME runs one, here
#include "faults.h"

#include <sys/wait.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "../cuda/common/tensor_map.h"

namespace attune::faults {
namespace {

using namespace cuda;

// In this process: the kernel once. 0: it ran and gave ones.
int run(const Case& c) {
  cudaStream_t handle;
  cudaStreamCreate(&handle);
  const Properties properties{9, 0, 1, 227 * 1024};
  Stream stream(handle, properties);
  float* out = nullptr;
  uint16_t* tensor = nullptr;
  cudaMalloc(&out, kFloats * sizeof(float));
  cudaMemset(out, 0, kFloats * sizeof(float));
  cudaMalloc(&tensor, 64 * 64 * 2);
  const std::vector<uint16_t> ones(64 * 64, 0x3F80);
  cudaMemcpy(tensor, ones.data(), 64 * 64 * 2, cudaMemcpyHostToDevice);
  Map map;
  make_tensor_map_2d(&map, tensor, {c.columns, 64}, {128}, {64, 64}, stream);
  simt::launch(c.name, dim3(1), dim3(kThreads), kSharedBytes, handle, [&] { c.kernel(map, Arguments{out}); });
  if (cudaStreamSynchronize(handle) != cudaSuccess) return 2;
  std::vector<float> values(kThreads);
  cudaMemcpy(values.data(), out, kThreads * sizeof(float), cudaMemcpyDeviceToHost);
  if (cudaFree(out) != cudaSuccess) return 2;
  for (float value : values)
    if (value != 1) return 1;
  return 0;
}

// In a process of its own; what it printed on stderr, and its exit code.
std::string run_apart(const char* program, const Case& c, const char* timing, int seed, int* code) {
  const std::string command = std::string("ATTUNE_SIMT_ARCH=") + std::to_string(c.capability) + " ATTUNE_SIMT_TIMING=" + timing +
                              " ATTUNE_SIMT_SEED=" + std::to_string(seed) + " '" + program + "' " + c.name + " 2>&1";
  std::FILE* pipe = popen(command.c_str(), "r");
  std::string said;
  char line[512];
  while (std::fgets(line, sizeof line, pipe)) said += line;
  *code = WEXITSTATUS(pclose(pipe));
  return said;
}

// Some seed in some timing must show it.
bool caught(const char* program, const Case& c, std::string* said) {
  for (const char* timing : {"early", "late"}) {
    for (int seed = 1; seed <= 20; ++seed) {
      int code = 0;
      *said = run_apart(program, c, timing, seed, &code);
      if (c.words ? said->find(c.words) != std::string::npos : code == 1) return true;
      if (c.words && code == 2) return false;  // another fault than expected
    }
  }
  return false;
}

}  // namespace
}  // namespace attune::faults

int main(int count, char** arguments) {
  using namespace attune::faults;
  int missed = 0;
  for (const Case& c : cases()) {
    if (count > 1 && std::strcmp(arguments[1], c.name) == 0) return run(c);
    if (count > 1) continue;
    std::string said;
    const bool good = caught(arguments[0], c, &said);
    missed += !good;
    std::printf("%s %s %s", good ? "ok  " : "FAIL", c.name, said.empty() ? "\n" : said.c_str());
  }
  std::printf("%d missed\n", missed);
  return missed > 0;
}
