// The table of devices: what the executor needs of each. A device is data; the executor never asks which one it is.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "context.h"

namespace attune {

using Kernel = void (*)(const void* args, Context& context);

// The most that a device does, measured: floating-point operations a second on float32 and bfloat16, bytes copied a second.
struct Peak {
  double float32 = 0, bfloat16 = 0, copy = 0;
};

class Machine;

struct Device {
  const char* name;
  const Kernel* kernels;  // by opcode; null: a machine runs them, or nobody does. A null entry: the op is not built
  int64_t (*scratch)(uint32_t opcode, const void* args);  // bytes an instruction of these shapes wants
  Copy (*derived)(uint32_t opcode, const void* args);      // the copy it keeps where that tensor is a weight
  std::unique_ptr<Pool> (*make_pool)(int threads);        // threads 0: the device's default
  Peak (*peak)(Pool& pool);                               // measured now, about half a second of work
  // For a device with memory of its own (machine.h): one for a session, or null and why not. Null: computes in host memory.
  std::unique_ptr<Machine> (*open)(std::string* why) = nullptr;
  // Whether `auto` may take it here, asked without opening it. Null: never.
  bool (*present)() = nullptr;
};

// A pool of the caller's thread alone.
std::unique_ptr<Pool> make_no_pool(int);

// `auto` is the best device of this build. Null with *why set when the device cannot be used.
const Device* find_device(const std::string& name, std::string* why);
std::vector<std::string> device_names();

extern const Device kCpuDevice;  // native/cpu/table.cc
#ifdef ATTUNE_DEVICE
extern const Device kMachineDevice;  // native/cuda/device.cc: cuda, or simt in the tests' build
#endif

}  // namespace attune
