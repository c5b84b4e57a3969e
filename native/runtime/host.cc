// Reads the process's share of the machine from the kernel. See host.h.
#include "host.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace attune {

namespace {

// CPUs that a group's files allow, or 0 where they set no limit. v2: cpu.max "quota period"; v1: two files.
double quota_of(const std::string& folder, bool v2) {
  double quota = -1, period = 0;
  if (v2) {
    std::ifstream file(folder + "/cpu.max");
    std::string first;
    if (!(file >> first >> period) || first == "max") return 0;
    quota = std::strtod(first.c_str(), nullptr);
  } else {
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

void lower(double* least, double quota) {
  if (quota > 0) *least = std::min(*least, quota);
}

// The least quota of a group and all above it.
void walk(const std::string& root, std::string path, bool v2, double* least) {
  for (;;) {
    lower(least, quota_of(root + path, v2));
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos || path.empty()) return;
    path.resize(slash);
  }
}

}  // namespace

int cpu_share() {
  double least = std::max(1u, std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) least = std::min<double>(least, CPU_COUNT(&set));
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1)
    std::istringstream fields(line);
    std::string id, controllers, path;
    std::getline(fields, id, ':');
    std::getline(fields, controllers, ':');
    std::getline(fields, path);
    if (id == "0" && controllers.empty()) {
      walk("/sys/fs/cgroup", path, true, &least);
      walk("/sys/fs/cgroup/unified", path, true, &least);
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      walk("/sys/fs/cgroup/cpu", path, false, &least);
    }
  }
#endif
  return std::max(1, static_cast<int>(least));
}

void yield_to_others() {
#if defined(__linux__)
  const char* wanted = std::getenv("ATTUNE_NICE");
  [[maybe_unused]] const int now = nice(wanted != nullptr && *wanted != '\0' ? std::atoi(wanted) : 19);  // a thread's own, on Linux
#endif
}

void offer_cpu() {
#if defined(__linux__)
  constexpr int64_t kEvery = 200'000;  // ns; a call is 0.8 us, so 0.4% of the time at most
  thread_local int64_t last = 0;
  const int64_t now = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
  if (now - last < kEvery) return;
  last = now;
  sched_yield();
#endif
}

int64_t peak_rss() {
#if defined(__linux__)
  // getrusage counts what the process was before exec; the kernel's own mark does not.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::strtoll(line.c_str() + 6, nullptr, 10) * 1024;
  }
#endif
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#if defined(__APPLE__)
  return usage.ru_maxrss;
#else
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
#endif
}

}  // namespace attune
