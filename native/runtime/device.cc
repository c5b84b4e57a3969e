// The devices of this build. See device.h.
#include "device.h"

namespace attune {

namespace {

// One thread, no work: the null device's pool.
class NoPool final : public Pool {
 public:
  int threads() const override { return 1; }
  void run(int64_t count, void (*task)(void*, int64_t, int), void* arg) override {
    for (int64_t i = 0; i < count; ++i) task(arg, i, 0);
  }
};

}  // namespace

std::unique_ptr<Pool> make_no_pool(int) { return std::make_unique<NoPool>(); }

namespace {

const Device kNullDevice = {
    "null",
    nullptr,
    [](uint32_t, const void*) -> int64_t { return 0; },
    [](uint32_t, const void*) -> Copy { return {}; },
    make_no_pool,
    [](Pool&) -> Peak { return {}; },
};

const Device* const kDevices[] = {
#ifdef ATTUNE_DEVICE
    &kMachineDevice,
#endif
    &kCpuDevice, &kNullDevice};

}  // namespace

const Device* find_device(const std::string& name, std::string* why) {
  if (name == "auto") {
    for (const Device* d : kDevices)
      if (d->present != nullptr && d->present()) return d;
    return &kCpuDevice;
  }
  for (const Device* d : kDevices) {
    if (name == d->name) return d;
  }
  *why = name == "cuda" ? "device: must be auto or cpu in this build, got \"cuda\" (it has no CUDA backend; `attune build --cuda` builds one)"
                        : "device: must be auto, cpu, cuda or null, got \"" + name + "\"";
  return nullptr;
}

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  for (const Device* d : kDevices) names.emplace_back(d->name);
  return names;
}

}  // namespace attune
