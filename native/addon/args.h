// Reading JavaScript arguments: every wrong one is an error that names it.
#pragma once
#include <napi.h>

#include "../runtime/session.h"

namespace attune::addon {

std::string text_arg(Napi::Env env, const Napi::Value& v, const char* name);
int64_t integer_arg(Napi::Env env, const Napi::Value& v, const char* name, int64_t least, int64_t most);
Napi::Object object_arg(Napi::Env env, const Napi::Value& v, const char* name);
Napi::Array array_arg(Napi::Env env, const Napi::Value& v, const char* name);
// A copy of a Uint8Array's bytes.
std::vector<uint8_t> bytes_arg(Napi::Env env, const Napi::Value& v, const char* name);
// A copy of a Float32Array, Int32Array or Uint16Array (bfloat16 bits).
HostArray host_arg(Napi::Env env, const Napi::Value& v, const std::string& name);
// The memory of such an array that views a SharedArrayBuffer, or none where v is undefined. JavaScript holds on to the array meanwhile.
Lent lent_arg(Napi::Env env, const Napi::Value& v, const std::string& name);
std::vector<FileSlice> slices_arg(Napi::Env env, const Napi::Value& v);

// The typed array that matches the dtype. Large ones hand over their memory instead of copying it. Of what went into lent memory, the number of elements.
Napi::Value to_js(Napi::Env env, HostArray& array);

[[noreturn]] void throw_bad(Napi::Env env, Fault fault, const std::string& message);

}  // namespace attune::addon
