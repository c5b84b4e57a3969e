// How native/runtime reports failure: a kind that lib/errors.ts has a class for, and one sentence. Nothing here throws.
#pragma once
#include <string>
#include <utility>

namespace attune {

enum class Fault { none, config, data, shape, memory, device, write, state, cancelled };

struct [[nodiscard]] Status {
  Fault fault = Fault::none;
  std::string message;

  bool ok() const { return fault == Fault::none; }
  static Status good() { return {}; }
  static Status bad(Fault fault, std::string message) { return {fault, std::move(message)}; }
};

// The word that crosses to JavaScript.
constexpr const char* fault_name(Fault f) {
  switch (f) {
    case Fault::none: return "none";
    case Fault::config: return "config";
    case Fault::data: return "data";
    case Fault::shape: return "shape";
    case Fault::memory: return "memory";
    case Fault::device: return "device";
    case Fault::write: return "write";
    case Fault::state: return "state";
    case Fault::cancelled: return "cancelled";
  }
  return "state";
}

}  // namespace attune
