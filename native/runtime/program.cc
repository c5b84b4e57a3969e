// Decoding of program bytes. Little-endian, every read bounds-checked, every count checked against what is left.
//   header  u32 magic, version, table hash, dims, buffers, instructions; u64 arena bytes
//   dim     u32 capacity, name
//   buffer  u32 flags (1 own, 2 weight, 4 part), name, type; of a part, u32 buffer before it and u64 offset in that
//   type    u32 dtype, u32 rank, rank x (u32 size, u32 dim: 0 static, k = dim k-1)
//   code    u32 opcode, u32 slots, slots; u64 scratch offset, u64 scratch bytes; u32 words, words x u64; name
//   slot    u32 space, u32 0, u64 offset; type when space is not 0
//   name    u32 length, UTF-8 padded with zeros to a multiple of 4
#include "program.h"

#include <cstring>

#include "op_info.h"

namespace attune {

namespace {

constexpr uint32_t kMagic = 0x314e5441, kVersion = 2;
constexpr int64_t kMostBytes = int64_t{1} << 46;
constexpr int64_t kAlign = 64;
constexpr uint32_t kMostDims = 4096;

class Reader {
 public:
  Reader(const uint8_t* at, size_t size) : at_(at), left_(size) {}
  bool ok() const { return ok_; }
  size_t left() const { return left_; }

  uint32_t u32() { return read<uint32_t>(); }
  uint64_t u64() { return read<uint64_t>(); }
  std::string name() {
    const size_t n = u32();
    if (n > left_ || (n + 3) / 4 * 4 > left_) return fail(), std::string();
    std::string s(reinterpret_cast<const char*>(at_), n);
    skip((n + 3) / 4 * 4);
    return s;
  }
  // A count of things that take at least `least` bytes each.
  size_t count(uint32_t n, size_t least) {
    if (n > left_ / least) return fail(), 0;
    return n;
  }

 private:
  template <class T> T read() {
    T v = 0;
    if (left_ < sizeof(T)) return fail(), v;
    std::memcpy(&v, at_, sizeof(T));
    skip(sizeof(T));
    return v;
  }
  void skip(size_t n) {
    at_ += n;
    left_ -= n;
  }
  void fail() {
    ok_ = false;
    left_ = 0;
  }
  const uint8_t* at_;
  size_t left_;
  bool ok_ = true;
};

Status wrong(const std::string& what) { return Status::bad(Fault::data, "program: " + what); }

std::string type_problem(Reader& r, const Program& p, Type* t) {
  const uint32_t dtype = r.u32(), rank = r.u32();
  if (!r.ok()) return "ends inside a type";
  if (dtype > static_cast<uint32_t>(DType::i32)) return "unknown dtype " + std::to_string(dtype);
  if (rank > 4) return "rank must be at most 4, got " + std::to_string(rank);
  t->dtype = static_cast<DType>(dtype);
  t->rank = static_cast<int32_t>(rank);
  int64_t elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    const uint32_t size = r.u32(), dim = r.u32();
    if (!r.ok()) return "ends inside a type";
    if (dim > p.dims.size()) return "no dim " + std::to_string(dim);
    if (dim > 0 && p.dims[dim - 1].capacity != size)
      return "an axis of dim " + p.dims[dim - 1].name + " must have its capacity " +
             std::to_string(p.dims[dim - 1].capacity) + ", got " + std::to_string(size);
    if (size != 0 && elements > kMostBytes / size) return "a type is too large";
    t->size[i] = size;
    t->dim[i] = static_cast<int32_t>(dim) - 1;
    elements *= size;
  }
  if (elements > kMostBytes / width(t->dtype)) return "a type is too large";
  return "";
}

std::string part_problem(Reader& r, const Program& p, size_t index, Buffer* b) {
  const uint32_t whole = r.u32();
  const uint64_t offset = r.u64();
  if (!r.ok()) return "ends inside a part";
  if (whole >= index) return "a part must follow what it lies in";
  const Buffer& in = p.buffers[whole];
  if (b->own || in.own || in.whole >= 0) return "must be shared, and part of a shared buffer that is no part itself";
  const int64_t room = in.type.bytes();
  if (offset % kAlign != 0 || offset > static_cast<uint64_t>(room) || b->type.bytes() > room - static_cast<int64_t>(offset))
    return b->type.text() + " must lie within " + in.name + ", at a multiple of 64, got " + std::to_string(offset);
  b->whole = static_cast<int32_t>(whole);
  b->offset = static_cast<int64_t>(offset);
  return "";
}

std::string params_problem(const Instruction& code, const char* kinds) {
  size_t at = 0;
  const size_t n = code.params.size();
  for (const char* k = kinds; *k; ++k) {
    if (at >= n) return "too few parameters";
    if (*k == 'l') {
      const uint64_t items = code.params[at++];
      if (items > n - at) return "a list parameter is cut short";
      at += items;
    } else {
      ++at;
    }
  }
  return at == n ? "" : "too many parameters";
}

std::string slot_problem(Reader& r, const Program& p, bool placed, bool required, Slot* s) {
  s->space = r.u32();
  r.u32();
  const uint64_t offset = r.u64();
  if (!r.ok()) return "ends inside a slot";
  if (s->space == Slot::kAbsent) return required ? "a required tensor is absent" : "";
  if (std::string e = type_problem(r, p, &s->type); !e.empty()) return e;
  if (s->space != Slot::kArena && s->space - Slot::kBuffers >= p.buffers.size())
    return "no buffer " + std::to_string(s->space - Slot::kBuffers);
  if (!placed) return "";
  const int64_t room = s->space == Slot::kArena ? p.arena : p.buffers[s->space - Slot::kBuffers].type.bytes();
  if (offset % kAlign != 0) return "offset " + std::to_string(offset) + " must be a multiple of 64";
  if (offset > static_cast<uint64_t>(room) || s->type.bytes() > room - static_cast<int64_t>(offset))
    return s->type.text() + " at " + std::to_string(offset) + " must lie within " + std::to_string(room) + " bytes";
  s->offset = static_cast<int64_t>(offset);
  return "";
}

std::string code_problem(Reader& r, const Program& p, bool placed, Instruction* code) {
  code->opcode = r.u32();
  const uint32_t slots = r.u32();
  if (!r.ok()) return "ends inside an instruction";
  if (code->opcode >= kOpCount) return "unknown opcode " + std::to_string(code->opcode);
  const OpInfo& op = kOps[code->opcode];
  const uint32_t want = static_cast<uint32_t>(op.inputs + op.optionals + op.outputs);
  if (slots != want)
    return std::string(op.name) + " takes " + std::to_string(want) + " tensors, got " + std::to_string(slots);
  code->slots.resize(want);
  for (uint32_t i = 0; i < want; ++i) {
    const bool required = static_cast<int>(i) < op.inputs;
    if (std::string e = slot_problem(r, p, placed, required, &code->slots[i]); !e.empty())
      return std::string(op.name) + ", tensor " + std::to_string(i) + ": " + e;
  }
  const uint64_t offset = r.u64(), bytes = r.u64();
  const size_t words = r.count(r.u32(), 8);
  code->params.resize(words);
  for (uint64_t& w : code->params) w = r.u64();
  code->name = r.name();
  if (!r.ok()) return "ends inside an instruction";
  const uint64_t arena = static_cast<uint64_t>(p.arena);
  if (placed && bytes > 0 && (offset % kAlign != 0 || offset > arena || bytes > arena - offset))
    return std::string(op.name) + ": scratch must lie within the arena, 64-byte aligned";
  if (placed) {
    code->scratch_offset = bytes > 0 ? static_cast<int64_t>(offset) : 0;
    code->scratch_bytes = static_cast<int64_t>(bytes);
  }
  if (std::string e = params_problem(*code, op.params); !e.empty()) return std::string(op.name) + ": " + e;
  return "";
}

}  // namespace

const char* dtype_name(DType t) {
  switch (t) {
    case DType::f32: return "float32";
    case DType::bf16: return "bfloat16";
    case DType::i32: return "int32";
  }
  return "unknown";
}

int64_t Type::elements() const {
  int64_t n = 1;
  for (int32_t i = 0; i < rank; ++i) n *= size[i];
  return n;
}

bool Type::same(const Type& other) const {
  if (dtype != other.dtype || rank != other.rank) return false;
  for (int32_t i = 0; i < rank; ++i) {
    if (size[i] != other.size[i]) return false;
  }
  return true;
}

std::string Type::text() const {
  std::string s = dtype_name(dtype);
  s += '[';
  for (int32_t i = 0; i < rank; ++i) s += (i > 0 ? ", " : "") + std::to_string(size[i]);
  return s + ']';
}

Status decode_instruction(const uint8_t* bytes, size_t size, Instruction* out) {
  Reader r(bytes, size);
  Instruction code;
  if (std::string e = code_problem(r, Program(), false, &code); !e.empty()) return wrong("instruction: " + e);
  if (r.left() != 0) return wrong("instruction: " + std::to_string(r.left()) + " bytes too many at its end");
  *out = std::move(code);
  return Status::good();
}

Status decode(const uint8_t* bytes, size_t size, Program* out) {
  Program p;
  Reader r(bytes, size);
  const uint32_t magic = r.u32(), version = r.u32(), hash = r.u32();
  const uint32_t dims = r.u32(), buffers = r.u32(), code = r.u32();
  const uint64_t arena = r.u64();
  if (!r.ok()) return wrong("shorter than its header");
  if (magic != kMagic) return wrong("these bytes are not a program");
  if (version != kVersion) return wrong("version must be 2, got " + std::to_string(version));
  if (hash != kTableHash)
    return wrong("made for another op table (" + std::to_string(hash) + ", this build has " +
                 std::to_string(kTableHash) + "; `npm run build` brings both together)");
  if (arena > static_cast<uint64_t>(kMostBytes)) return wrong("the arena is too large");
  p.arena = static_cast<int64_t>(arena);

  if (dims > kMostDims) return wrong("at most 4096 dims, got " + std::to_string(dims));
  p.dims.resize(dims);
  for (Dim& d : p.dims) {
    d.capacity = r.u32();
    d.name = r.name();
    if (r.ok() && d.name.empty()) return wrong("a dim has no name");
    for (const Dim& e : p.dims) {
      if (&e == &d) break;
      if (r.ok() && e.name == d.name) return wrong("two dims are called " + d.name);
    }
  }
  p.buffers.resize(r.count(buffers, 16));
  for (size_t i = 0; i < p.buffers.size(); ++i) {
    Buffer& b = p.buffers[i];
    const uint32_t flags = r.u32();
    b.name = r.name();
    b.own = (flags & 1) != 0;
    b.weight = (flags & 2) != 0;
    if (r.ok() && b.name.empty()) return wrong("buffer " + std::to_string(i) + " has no name");
    if (std::string e = type_problem(r, p, &b.type); !e.empty()) return wrong("buffer " + b.name + ": " + e);
    if ((flags & 4) == 0) continue;
    if (std::string e = part_problem(r, p, i, &b); !e.empty()) return wrong("buffer " + b.name + ": " + e);
  }
  p.code.resize(r.count(code, 28));
  for (size_t i = 0; i < p.code.size(); ++i) {
    if (std::string e = code_problem(r, p, true, &p.code[i]); !e.empty())
      return wrong("instruction " + std::to_string(i) + ": " + e);
  }
  if (!r.ok()) return wrong("cut short");
  if (r.left() != 0) return wrong(std::to_string(r.left()) + " bytes too many at its end");
  *out = std::move(p);
  return Status::good();
}

size_t args_bytes(uint32_t opcode) {
  const OpInfo& op = kOps[opcode];
  return struct_bytes(op.inputs + op.optionals + op.outputs, op.params);
}

void fill_args(const Instruction& code, const Tensor* tensors, void* args) {
  uint8_t* to = static_cast<uint8_t*>(args);
  std::memcpy(to, tensors, code.slots.size() * sizeof(Tensor));
  to += code.slots.size() * sizeof(Tensor);
  const uint64_t* word = code.params.data();
  for (const char* k = kOps[code.opcode].params; *k; ++k) {
    if (*k == 'l') {
      Doubles list;
      list.size = static_cast<int64_t>(*word++);
      list.data = reinterpret_cast<const double*>(word);
      word += list.size;
      std::memcpy(to, &list, sizeof(list));
      to += sizeof(list);
    } else {
      std::memcpy(to, word++, sizeof(double));
      to += sizeof(double);
    }
  }
}

namespace {
constexpr bool fits() {
  for (const OpInfo& op : kOps) {
    const int tensors = op.inputs + op.optionals + op.outputs;
    if (tensors > kMaxSlots || struct_bytes(tensors, op.params) > kMaxArgs) return false;
  }
  return true;
}
static_assert(fits(), "raise kMaxSlots");
}  // namespace

}  // namespace attune
