// See args.h.
#include "args.h"

#include <cmath>
#include <cstring>

#include "worker.h"

namespace attune::addon {

namespace {

constexpr int64_t kCopyBelow = 64 << 10;  // bytes: smaller results are cheaper to copy than to track
constexpr int64_t kMostSafe = (int64_t{1} << 53) - 1;

void check_attached(Napi::Env env, const Napi::TypedArray& array, const std::string& name) {
  bool detached = false;
  napi_is_detached_arraybuffer(env, array.ArrayBuffer(), &detached);
  if (detached) throw_bad(env, Fault::state, name + ": its array is detached (it was transferred to another thread)");
}

// What a typed array views; valid as long as its memory is.
Lent view_arg(Napi::Env env, const Napi::Value& v, const std::string& name) {
  const napi_typedarray_type kind = v.IsTypedArray() ? v.As<Napi::TypedArray>().TypedArrayType() : napi_bigint64_array;
  Lent view;
  if (kind == napi_float32_array) {
    view.dtype = DType::f32;
  } else if (kind == napi_int32_array) {
    view.dtype = DType::i32;
  } else if (kind == napi_uint16_array) {
    view.dtype = DType::bf16;
  } else {
    throw_bad(env, Fault::config, name + ": must be a Float32Array, an Int32Array or (bfloat16 bits) a Uint16Array");
  }
  size_t length = 0;
  void* data = nullptr;
  napi_get_typedarray_info(env, v, nullptr, &length, &data, nullptr, nullptr);
  view.data = static_cast<uint8_t*>(data);
  view.bytes = static_cast<int64_t>(length) * width(view.dtype);
  return view;
}

FileType file_type_arg(Napi::Env env, const Napi::Value& v) {
  const std::string s = text_arg(env, v, "fileDtype");
  if (s == "float32") return FileType::f32;
  if (s == "bfloat16") return FileType::bf16;
  if (s == "float16") return FileType::f16;
  if (s == "int32") return FileType::i32;
  throw_bad(env, Fault::config, "fileDtype: must be float32, bfloat16, float16 or int32, got \"" + s + "\"");
}

}  // namespace

void throw_bad(Napi::Env env, Fault fault, const std::string& message) { throw error_of(env, Status::bad(fault, message)); }

std::string text_arg(Napi::Env env, const Napi::Value& v, const char* name) {
  if (!v.IsString()) throw_bad(env, Fault::config, std::string(name) + ": must be a string");
  return v.As<Napi::String>().Utf8Value();
}

int64_t integer_arg(Napi::Env env, const Napi::Value& v, const char* name, int64_t least, int64_t most) {
  const double x = v.IsNumber() ? v.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(x >= static_cast<double>(least) && x <= static_cast<double>(most)) || x != std::floor(x))
    throw_bad(env, Fault::config, std::string(name) + ": must be a whole number from " + std::to_string(least) +
                                      (most < kMostSafe ? " to " + std::to_string(most) : " on") + ", got " +
                                      (v.IsSymbol() ? std::string("a symbol") : v.ToString().Utf8Value()));
  return static_cast<int64_t>(x);
}

Napi::Object object_arg(Napi::Env env, const Napi::Value& v, const char* name) {
  if (!v.IsObject()) throw_bad(env, Fault::config, std::string(name) + ": must be an object");
  return v.As<Napi::Object>();
}

Napi::Array array_arg(Napi::Env env, const Napi::Value& v, const char* name) {
  if (!v.IsArray()) throw_bad(env, Fault::config, std::string(name) + ": must be an array");
  return v.As<Napi::Array>();
}

std::vector<uint8_t> bytes_arg(Napi::Env env, const Napi::Value& v, const char* name) {
  if (!v.IsTypedArray() || v.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    throw_bad(env, Fault::config, std::string(name) + ": must be a Uint8Array");
  const Napi::Uint8Array a = v.As<Napi::Uint8Array>();
  check_attached(env, a, name);
  return std::vector<uint8_t>(a.Data(), a.Data() + a.ElementLength());
}

HostArray host_arg(Napi::Env env, const Napi::Value& v, const std::string& name) {
  const Lent from = view_arg(env, v, name);
  check_attached(env, v.As<Napi::TypedArray>(), name);
  HostArray out;
  if (Status s = out.take(name, from.dtype, {from.bytes / width(from.dtype)}, from.data); !s.ok()) throw error_of(env, s);
  return out;
}

Lent lent_arg(Napi::Env env, const Napi::Value& v, const std::string& name) {
  if (v.IsUndefined()) return {};
  const Lent to = view_arg(env, v, name);
  if (v.As<Napi::TypedArray>().Get("buffer").IsArrayBuffer())
    throw_bad(env, Fault::config, name + ": its array must view a SharedArrayBuffer, got an ArrayBuffer (which could go away during the run)");
  return to;
}

std::vector<FileSlice> slices_arg(Napi::Env env, const Napi::Value& v) {
  const Napi::Array list = array_arg(env, v, "slices");
  std::vector<FileSlice> slices(list.Length());
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::HandleScope scope(env);
    const Napi::Object o = object_arg(env, list.Get(i), "slice");
    FileSlice& s = slices[i];
    s.buffer = text_arg(env, o.Get("buffer"), "buffer");
    s.row = integer_arg(env, o.Get("rowStart"), "rowStart", 0, kMostSafe);
    s.rows = integer_arg(env, o.Get("rows"), "rows", -1, kMostSafe);
    s.offset = integer_arg(env, o.Get("fileOffset"), "fileOffset", 0, kMostSafe);
    s.type = file_type_arg(env, o.Get("fileDtype"));
    const Napi::Value file = o.Get("file");
    if (file.IsNumber()) {
      s.fd = static_cast<int>(integer_arg(env, file, "file", 0, 1 << 30));
    } else {
      s.path = text_arg(env, file, "file");
      if (s.path.empty() || s.path.find('\0') != std::string::npos)
        throw_bad(env, Fault::config, "file: must be a path or a file descriptor");
    }
  }
  return slices;
}

Napi::Value to_js(Napi::Env env, HostArray& array) {
  if (array.lent.data) return Napi::Number::New(env, static_cast<double>(array.elements));
  const size_t bytes = static_cast<size_t>(array.bytes()), n = static_cast<size_t>(array.elements);
  Napi::ArrayBuffer memory;
  if (array.bytes() < kCopyBelow) {
    memory = Napi::ArrayBuffer::New(env, bytes);
    if (bytes > 0) std::memcpy(memory.Data(), array.data.get(), bytes);
  } else {
    uint8_t* raw = array.data.release();
    memory = Napi::ArrayBuffer::New(env, raw, bytes, [](Napi::Env, void* p) { delete[] static_cast<uint8_t*>(p); });
  }
  switch (array.dtype) {
    case DType::f32: return Napi::Float32Array::New(env, n, memory, 0);
    case DType::bf16: return Napi::Uint16Array::New(env, n, memory, 0);
    case DType::i32: return Napi::Int32Array::New(env, n, memory, 0);
  }
  return env.Undefined();
}

}  // namespace attune::addon
