// Buffers to and from files, with conversion of the element type, in pieces: no second copy of a buffer is ever made.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "host.h"
#include "session_loaded.h"

namespace attune {

namespace {

constexpr int64_t kPiece = 1 << 16;  // elements: some 50 us, after which whoever waits for the CPU has it

std::string code_name(int e) {
  switch (e) {
    case ENOSPC: return "ENOSPC";
    case EDQUOT: return "EDQUOT";
    case EFBIG: return "EFBIG";
    case EIO: return "EIO";
    case EACCES: return "EACCES";
    case EPERM: return "EPERM";
    case ENOENT: return "ENOENT";
    case EISDIR: return "EISDIR";
    case ENOTDIR: return "ENOTDIR";
    case EROFS: return "EROFS";
    case EBADF: return "EBADF";
    case EMFILE: return "EMFILE";
    case EINVAL: return "EINVAL";
    case ESPIPE: return "ESPIPE";
    default: return "errno " + std::to_string(e);
  }
}

// The file of a slice: a descriptor that the caller keeps open, or a path that stays open from slice to slice.
class File {
 public:
  ~File() { close_own(); }
  Status open(const FileSlice& s, bool writing) {
    if (s.path.empty()) {
      close_own();
      fd_ = s.fd;
      name_ = "fd " + std::to_string(s.fd);
      return Status::good();
    }
    if (own_ && path_ == s.path) return Status::good();
    close_own();
    name_ = path_ = s.path;
    do {
      fd_ = ::open(s.path.c_str(), writing ? O_WRONLY | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0666);
    } while (fd_ < 0 && errno == EINTR);
    if (fd_ < 0) return failure(writing, "open");
    own_ = true;
    return Status::good();
  }
  Status failure(bool writing, const char* call) const {
    const int e = errno;
    return Status::bad(writing ? Fault::write : Fault::data,
                       name_ + (writing ? ": must be writable, got " : ": must be readable, got ") + code_name(e) + ": " +
                           std::strerror(e) + " (" + call + ")");
  }
  int fd() const { return fd_; }
  const std::string& name() const { return name_; }

 private:
  void close_own() {
    if (own_) ::close(fd_);
    own_ = false;
    fd_ = -1;
  }
  int fd_ = -1;
  bool own_ = false;
  std::string path_, name_;
};

Status read_all(const File& file, uint8_t* to, int64_t bytes, int64_t offset) {
  while (bytes > 0) {
    const ssize_t n = ::pread(file.fd(), to, static_cast<size_t>(bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return file.failure(false, "read");
    if (n == 0)
      return Status::bad(Fault::data, file.name() + ": the file is cut short: it must hold " + std::to_string(bytes) +
                                          " bytes more, got to its end at byte " + std::to_string(offset) +
                                          " (fetch it again)");
    to += n;
    bytes -= n;
    offset += n;
  }
  return Status::good();
}

Status write_all(const File& file, const uint8_t* from, int64_t bytes, int64_t offset) {
  [[maybe_unused]] const int64_t start = offset;
  while (bytes > 0) {
    const ssize_t n = ::pwrite(file.fd(), from, static_cast<size_t>(bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return file.failure(true, "write");
    from += n;
    bytes -= n;
    offset += n;
  }
#if defined(__linux__)
  // The disk begins here, on this thread, and piece by piece: left to the sync that follows, that is work of the kernel's in one of Node's threads.
  ::sync_file_range(file.fd(), start, offset - start, SYNC_FILE_RANGE_WRITE);
#endif
  return Status::good();
}

const char* file_type_name(FileType t) {
  switch (t) {
    case FileType::f32: return "float32";
    case FileType::bf16: return "bfloat16";
    case FileType::i32: return "int32";
    case FileType::f16: return "float16";
  }
  return "unknown";
}

Status check_types(const BufferState& b, const FileSlice& s) {
  if (s.offset < 0 || s.offset > int64_t{1} << 60)
    return Status::bad(Fault::state, "buffer " + b.name + ": fileOffset is out of range");
  if (convertible(s.type, b.type.dtype)) return Status::good();
  return Status::bad(Fault::shape, "buffer " + b.name + ": a file of " + file_type_name(s.type) +
                                       " does not convert to or from " + dtype_name(b.type.dtype));
}

bool same_bits(FileType file, DType dtype) { return static_cast<uint32_t>(file) == static_cast<uint32_t>(dtype); }

Status stopped() { return Status::bad(Fault::cancelled, "file: cancelled between pieces"); }

}  // namespace

Status Session::read_files(const std::vector<FileSlice>& slices, const Cancel& cancel) {
  File file;
  std::vector<uint8_t> piece, staged;  // as the file has it; on its way to a device
  for (const FileSlice& s : slices) {
    BufferState* b = nullptr;
    if (Status e = find(s.buffer, &b); !e.ok()) return e;
    int64_t rows = s.rows, row_elements = 1;
    if (Status e = rows_of(*b, s.row, &rows, &row_elements); !e.ok()) return e;
    if (Status e = check_types(*b, s); !e.ok()) return e;
    if (Status e = file.open(s, false); !e.ok()) return e;
    const int64_t first = s.row * row_elements * width(b->type.dtype), total = rows * row_elements;
    const bool converts = !same_bits(s.type, b->type.dtype);
    if (converts) piece.resize(static_cast<size_t>(kPiece * width(s.type)));
    if (machine_) staged.resize(static_cast<size_t>(kPiece * width(b->type.dtype)));
    b->version() += 1;
    for (int64_t done = 0; done < total; done += kPiece) {
      offer_cpu();
      if (cancel.load(std::memory_order_relaxed)) return stopped();
      const int64_t n = std::min(kPiece, total - done), at = first + done * width(b->type.dtype);
      uint8_t* to = machine_ ? staged.data() : b->memory.data() + at;
      if (Status e = read_all(file, converts ? piece.data() : to, n * width(s.type), s.offset + done * width(s.type)); !e.ok())
        return e;
      if (converts) from_file(s.type, piece.data(), b->type.dtype, to, n);
      if (!machine_) continue;
      if (Status e = put(*b, at, to, n * width(b->type.dtype)); !e.ok()) return e;
    }
  }
  return Status::good();
}

Status Session::write_files(const std::vector<FileSlice>& slices, const Cancel& cancel) const {
  File file;
  std::vector<uint8_t> piece, staged;
  for (const FileSlice& s : slices) {
    BufferState* b = nullptr;
    if (Status e = find(s.buffer, &b); !e.ok()) return e;
    int64_t rows = s.rows, row_elements = 1;
    if (Status e = rows_of(*b, s.row, &rows, &row_elements); !e.ok()) return e;
    if (Status e = check_types(*b, s); !e.ok()) return e;
    if (Status e = file.open(s, true); !e.ok()) return e;
    const int64_t first = s.row * row_elements * width(b->type.dtype), total = rows * row_elements;
    const bool converts = !same_bits(s.type, b->type.dtype);
    if (converts) piece.resize(static_cast<size_t>(kPiece * width(s.type)));
    if (machine_) staged.resize(static_cast<size_t>(kPiece * width(b->type.dtype)));
    for (int64_t done = 0; done < total; done += kPiece) {
      offer_cpu();
      if (cancel.load(std::memory_order_relaxed)) return stopped();
      const int64_t n = std::min(kPiece, total - done), at = first + done * width(b->type.dtype);
      if (machine_) {
        if (Status e = get(*b, at, staged.data(), n * width(b->type.dtype)); !e.ok()) return e;
      }
      const uint8_t* from = machine_ ? staged.data() : b->memory.data() + at;
      if (converts) to_file(b->type.dtype, from, s.type, piece.data(), n);
      if (Status e = write_all(file, converts ? piece.data() : from, n * width(s.type), s.offset + done * width(s.type)); !e.ok())
        return e;
    }
  }
  return Status::good();
}

}  // namespace attune
