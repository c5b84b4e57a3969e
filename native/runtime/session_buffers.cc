// Host access to a session's shared buffers: copies in and out, zeroing, fingerprints.
#include <cstring>
#include <new>

#include "hash.h"
#include "session_loaded.h"

namespace attune {

Status HostArray::make(const std::string& new_name, DType new_dtype, std::vector<int64_t> new_shape) {
  name = new_name;
  dtype = new_dtype;
  shape = std::move(new_shape);
  elements = 1;
  for (int64_t n : shape) elements *= n;
  if (lent.data) {
    if (lent.dtype == dtype && lent.bytes >= bytes()) return Status::good();
    return Status::bad(Fault::shape, "output " + name + ": the array for it must have room for " + std::to_string(bytes()) + " bytes of " +
                                         dtype_name(dtype) + ", got " + std::to_string(lent.bytes) + " of " + dtype_name(lent.dtype));
  }
  data.reset(new (std::nothrow) uint8_t[static_cast<size_t>(bytes()) + 1]);
  if (!data)
    return Status::bad(Fault::memory, "buffer " + name + ": the system has no room for a copy of " +
                                          std::to_string(bytes()) + " bytes (read it in rows)");
  return Status::good();
}

Status HostArray::take(const std::string& new_name, DType new_dtype, std::vector<int64_t> new_shape, const void* from) {
  if (Status s = make(new_name, new_dtype, std::move(new_shape)); !s.ok()) return s;
  if (elements > 0) std::memcpy(data.get(), from, static_cast<size_t>(bytes()));
  return Status::good();
}

Status Session::put(BufferState& to, int64_t offset, const void* from, int64_t bytes) const {
  if (machine_) return machine_->put(to.memory.data() + offset, from, bytes);
  if (bytes > 0) std::memcpy(to.memory.data() + offset, from, static_cast<size_t>(bytes));
  return Status::good();
}

Status Session::get(const BufferState& from, int64_t offset, void* to, int64_t bytes) const {
  if (machine_) return machine_->get(to, from.memory.data() + offset, bytes);
  if (bytes > 0) std::memcpy(to, from.memory.data() + offset, static_cast<size_t>(bytes));
  return Status::good();
}

Status Session::find(const std::string& name, BufferState** out) const {
  if (dry_) return Status::bad(Fault::state, "buffer " + name + ": must be in a session that has memory, got a dry one");
  const auto it = buffers_.find(name);
  if (it == buffers_.end())
    return Status::bad(Fault::state, "buffer " + name + ": no loaded program has a shared buffer of this name");
  *out = it->second.get();
  return Status::good();
}

Status Session::rows_of(const BufferState& b, int64_t row, int64_t* rows, int64_t* row_elements) const {
  const int64_t all = b.type.rank > 0 ? b.type.size[0] : 1;
  *row_elements = 1;
  for (int32_t i = 1; i < b.type.rank; ++i) *row_elements *= b.type.size[i];
  if (*rows < 0) *rows = row > all ? 0 : all - row;
  if (row < 0 || row > all || *rows > all - row)
    return Status::bad(Fault::shape, "buffer " + b.name + ": rows must lie within its " + std::to_string(all) + ", got " +
                                         std::to_string(*rows) + " from row " + std::to_string(row));
  return Status::good();
}

Status Session::write(const HostArray& from, int64_t row) {
  BufferState* b = nullptr;
  if (Status s = find(from.name, &b); !s.ok()) return s;
  int64_t rows = -1, row_elements = 1;
  if (Status s = rows_of(*b, row, &rows, &row_elements); !s.ok()) return s;
  const bool whole_rows = row_elements == 0 ? from.elements == 0 : from.elements % row_elements == 0;
  if (from.dtype != b->type.dtype || !whole_rows || from.elements > rows * row_elements)
    return Status::bad(Fault::shape, "buffer " + b->name + ": must be written with whole rows of " + b->type.text() +
                                         ", at most " + std::to_string(rows) + " from row " + std::to_string(row) +
                                         ", got " + dtype_name(from.dtype) + " with " + std::to_string(from.elements) +
                                         " elements");
  b->version() += 1;
  return put(*b, row * row_elements * width(b->type.dtype), from.data.get(), from.bytes());
}

Status Session::read(const std::string& name, int64_t row, int64_t rows, HostArray* out) const {
  BufferState* b = nullptr;
  if (Status s = find(name, &b); !s.ok()) return s;
  int64_t row_elements = 1;
  if (Status s = rows_of(*b, row, &rows, &row_elements); !s.ok()) return s;
  std::vector<int64_t> shape(b->type.size, b->type.size + b->type.rank);
  if (!shape.empty()) shape[0] = rows;
  if (Status s = out->make(name, b->type.dtype, std::move(shape)); !s.ok()) return s;
  return get(*b, row * row_elements * width(b->type.dtype), out->data.get(), out->bytes());
}

Status Session::zero(const std::string& name) {
  BufferState* b = nullptr;
  if (Status s = find(name, &b); !s.ok()) return s;
  b->version() += 1;
  if (machine_) return machine_->zero(b->memory.data(), b->type.bytes());
  std::memset(b->memory.data(), 0, static_cast<size_t>(b->type.bytes()));
  return Status::good();
}

Status Session::hash(const std::string& name, uint64_t* out) const {
  BufferState* b = nullptr;
  if (Status s = find(name, &b); !s.ok()) return s;
  if (!machine_) {
    *out = hash64(b->memory.data(), static_cast<size_t>(b->type.bytes()));
    return Status::good();
  }
  HostArray copy;
  if (Status s = read(name, 0, -1, &copy); !s.ok()) return s;
  *out = hash64(copy.data.get(), static_cast<size_t>(copy.bytes()));
  return Status::good();
}

Status Session::count_nonfinite(const std::string& name, int64_t* out) const {
  BufferState* b = nullptr;
  if (Status s = find(name, &b); !s.ok()) return s;
  HostArray copy;
  if (machine_) {
    if (Status s = read(name, 0, -1, &copy); !s.ok()) return s;
  }
  const uint8_t* data = machine_ ? copy.data.get() : b->memory.data();
  const int64_t n = b->type.elements();
  int64_t bad = 0;
  if (b->type.dtype == DType::f32) {
    const uint32_t* x = reinterpret_cast<const uint32_t*>(data);
    for (int64_t i = 0; i < n; ++i) bad += (x[i] & 0x7f800000u) == 0x7f800000u;
  } else if (b->type.dtype == DType::bf16) {
    const uint16_t* x = reinterpret_cast<const uint16_t*>(data);
    for (int64_t i = 0; i < n; ++i) bad += (x[i] & 0x7f80u) == 0x7f80u;
  }
  *out = bad;
  return Status::good();
}

}  // namespace attune
