// Runs that write over a buffer what they would add onto it: an instruction that is the first of its program to touch a range of the buffer,
// and would add onto it, gets nothing to add onto.
#include <algorithm>

#include "op_info.h"
#include "session_loaded.h"

namespace attune {

namespace {

struct Range {
  int64_t begin, end;
};

// Parts begin at such multiples; what lies between two of them is zeros, and nobody's.
constexpr int64_t kPartAlign = 512;

}  // namespace

// Made when it is first asked for, and kept.
Status Session::way_of(Loaded& p, const std::string& overwrite, Way** out) const {
  if (const auto known = p.ways.find(overwrite); known != p.ways.end()) return *out = &known->second, Status::good();
  const auto& code = p.program.code;
  Way way;
  way.left_out.assign(code.size(), 0);
  if (!overwrite.empty()) {
    const size_t at = p.index_of(overwrite);
    if (at == p.spaces.size() || p.program.buffers[at].own || p.spaces[at]->whole != nullptr)
      return Status::bad(Fault::state, "overwrite " + overwrite + ": must be a shared buffer of this program, and no part of another");
    BufferState& buffer = *p.spaces[at];
    std::vector<Range> begun;
    const auto range_of = [&](const Slot& s) {
      if (s.space < Slot::kBuffers || &p.spaces[s.space - Slot::kBuffers]->root() != &buffer) return Range{0, 0};
      const int64_t from = p.spaces[s.space - Slot::kBuffers]->memory.data() - buffer.memory.data() + s.offset;
      return Range{from, from + s.type.bytes()};
    };
    const auto within = [&](Range r) {
      return std::any_of(begun.begin(), begun.end(), [&](Range b) { return b.begin <= r.begin && r.end <= b.end; });
    };
    const auto apart = [&](Range r) {
      return std::none_of(begun.begin(), begun.end(), [&](Range b) { return b.begin < r.end && r.begin < b.end; });
    };
    for (size_t i = 0; i < code.size(); ++i) {
      const OpInfo& op = kOps[code[i].opcode];
      const size_t inputs = static_cast<size_t>(op.inputs + op.optionals);
      for (size_t k = 0; k < code[i].slots.size(); ++k) {
        const Range r = range_of(code[i].slots[k]);
        if (r.begin == r.end || within(r)) continue;
        if (k >= inputs) {
          begun.push_back(r);
        } else if (op.onto >> k & 1 && apart(r)) {
          way.left_out[i] |= 1u << k;
        } else {
          return Status::bad(Fault::state, "overwrite " + overwrite + ": the program must write all of it before it reads it, but " +
                                               (code[i].name.empty() ? op.name : code[i].name + " (" + op.name + ")") + " reads bytes " +
                                               std::to_string(r.begin) + " to " + std::to_string(r.end) + " first");
        }
      }
    }
    std::sort(begun.begin(), begun.end(), [](Range a, Range b) { return a.begin < b.begin; });
    begun.push_back({buffer.type.bytes(), buffer.type.bytes()});
    int64_t end = 0;
    for (const Range& r : begun) {
      if (r.begin - end >= kPartAlign)
        return Status::bad(Fault::state, "overwrite " + overwrite + ": the program must write all of it, but leaves bytes " + std::to_string(end) +
                                             " to " + std::to_string(r.begin));
      end = std::max(end, r.end);
    }
  }
  *out = &p.ways.emplace(overwrite, std::move(way)).first->second;
  return Status::good();
}

}  // namespace attune
