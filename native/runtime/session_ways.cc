// Runs that write over a buffer what they would add onto it, as if it held zeros: the first instruction of a program that adds onto a range
// gets nothing to add onto, so that its kernel writes alone. Found out once for a program, before anything of it runs.
#include <algorithm>

#include "op_info.h"
#include "session_loaded.h"

namespace attune {

namespace {

// A bit for each slot, in OpInfo::onto and Way::left_out.
static_assert(kMaxSlots <= 32);

// Bytes of a buffer.
struct Range {
  int64_t begin = 0, end = 0;
  bool meets(Range other) const { return begin < other.end && other.begin < end; }
};

// What a program has written so far.
class Written {
 public:
  void add(Range r) {
    // What r meets or touches becomes one with it.
    const auto apart = std::partition(ranges_.begin(), ranges_.end(), [&](Range w) { return w.end < r.begin || r.end < w.begin; });
    for (auto w = apart; w != ranges_.end(); ++w) r = {std::min(r.begin, w->begin), std::max(r.end, w->end)};
    ranges_.erase(apart, ranges_.end());
    ranges_.push_back(r);
  }
  bool holds(Range r) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [&](Range w) { return w.begin <= r.begin && r.end <= w.end; });
  }
  bool meets(Range r) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [&](Range w) { return w.meets(r); });
  }
  // In order, what is not written of a buffer of so many bytes.
  std::vector<Range> left(int64_t bytes) {
    std::sort(ranges_.begin(), ranges_.end(), [](Range a, Range b) { return a.begin < b.begin; });
    std::vector<Range> gaps;
    int64_t end = 0;
    for (const Range& w : ranges_) {
      if (w.begin > end) gaps.push_back({end, w.begin});
      end = w.end;
    }
    if (end < bytes) gaps.push_back({end, bytes});
    return gaps;
  }

 private:
  std::vector<Range> ranges_;
};

// Parts begin at multiples of this at most (lib/ir/flat.ts); what lies between two of them is zeros, and nobody's.
constexpr int64_t kPartAlign = 512;

// How many bytes are written is then not known before a run.
bool counted(const Type& t) {
  return std::any_of(t.dim, t.dim + t.rank, [](int32_t d) { return d >= 0; });
}

Status no_way(const std::string& name, const std::string& why) { return Status::bad(Fault::state, "overwrite " + name + ": " + why); }
std::string text(Range r) { return std::to_string(r.begin) + " to " + std::to_string(r.end); }

}  // namespace

// Adds to `way` the slots that begin the buffer `name`.
Status Session::leave_out(const Loaded& p, const std::string& name, Way* way) const {
  const size_t at = p.index_of(name);
  if (at == p.spaces.size() || p.program.buffers[at].own || p.spaces[at]->whole != nullptr)
    return no_way(name, "must be a shared buffer of this program, and no part of another");
  const BufferState& whole = *p.spaces[at];
  const auto range_of = [&](BufferState& b, int64_t offset, int64_t bytes) {
    if (&b.root() != &whole) return Range{};
    const int64_t begin = b.memory.data() - whole.memory.data() + offset;
    return Range{begin, begin + bytes};
  };
  Written written;
  const auto& code = p.program.code;
  for (size_t i = 0; i < code.size(); ++i) {
    const OpInfo& op = kOps[code[i].opcode];
    for (size_t k = 0; k < code[i].slots.size(); ++k) {
      const Slot& s = code[i].slots[k];
      if (s.space < Slot::kBuffers) continue;
      const Range r = range_of(*p.spaces[s.space - Slot::kBuffers], s.offset, s.type.bytes());
      if (r.begin == r.end || written.holds(r)) continue;
      if (k >= static_cast<size_t>(op.inputs + op.optionals)) {
        if (!counted(s.type)) written.add(r);
      } else if ((op.onto >> k & 1) != 0 && !written.meets(r)) {
        way->left_out[i] |= 1u << k;
      } else {
        return no_way(name, "the program must write all of it before it reads it, but " + std::string(op.name) + " (" + code[i].name +
                                ") reads bytes " + text(r) + " first");
      }
    }
  }
  std::vector<Range> parts;  // of the whole; it is its own where it has no others
  for (BufferState* b : p.spaces)
    if (b->whole == &whole) parts.push_back(range_of(*b, 0, b->type.bytes()));
  if (parts.empty()) parts.push_back({0, whole.type.bytes()});
  for (const Range& gap : written.left(whole.type.bytes())) {
    const bool of_a_part = std::any_of(parts.begin(), parts.end(), [&](Range part) { return part.meets(gap); });
    if (of_a_part || gap.end - gap.begin >= kPartAlign)
      return no_way(name, "the program must write all of it, but leaves bytes " + text(gap));
  }
  return Status::good();
}

// Made when it is first asked for, and kept.
Status Session::way_of(Loaded& p, const std::string& overwrite, Way** out) const {
  if (const auto known = p.ways.find(overwrite); known != p.ways.end()) return *out = &known->second, Status::good();
  Way way;
  way.left_out.assign(p.program.code.size(), 0);
  if (!overwrite.empty()) {
    if (Status s = leave_out(p, overwrite, &way); !s.ok()) return s;
  }
  *out = &p.ways.emplace(overwrite, std::move(way)).first->second;
  return Status::good();
}

}  // namespace attune
