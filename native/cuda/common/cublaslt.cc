// See cublaslt.h. Row-major y = op(a) op(b) is asked for as its transpose: column-major D (n, m) = op(b)' op(a)'.
#include "cublaslt.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <cstring>
#include <sstream>
#include <vector>

#include "cublaslt_library.h"

namespace attune::cuda {
namespace lt {
namespace {

// Files of Python's packages (nvidia/*/lib), of every Python that this environment would start; none is started.
void add_python_places(std::vector<std::string>* places) {
  std::vector<std::string> prefixes;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const char* value = std::getenv(name)) prefixes.emplace_back(value);
  if (const char* home = std::getenv("HOME")) prefixes.push_back(std::string(home) + "/.local");
  std::stringstream path(std::getenv("PATH") ? std::getenv("PATH") : "");
  for (std::string folder; std::getline(path, folder, ':');) prefixes.push_back(folder + "/..");
  for (const char* major : {"13", "12"})
    for (const std::string& prefix : prefixes)
      for (const char* packages : {"site-packages", "dist-packages"}) {
        glob_t found;
        if (glob((prefix + "/lib/python3*/" + packages + "/nvidia/*/lib/libcublasLt.so." + major).c_str(), 0, nullptr, &found) == 0)
          places->insert(places->end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
        globfree(&found);
      }
}

// Null, and `why`, where it can't be opened. The emulator's memory is no GPU's: there the real library is passed over, and only its stand-in
// (native/simt/stand_in) is taken, which works in the emulator's streams.
void* open_file(const std::string& file, std::string* why) {
  void* found = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (found == nullptr) return *why = dlerror(), nullptr;
#ifdef ATTUNE_SIMT
  void* attach = dlsym(found, "attuneStandInAttach");
  if (attach == nullptr) {
    dlclose(found);
    return *why = file + " is no stand-in, and this device is the emulator", nullptr;
  }
  reinterpret_cast<void (*)(cudaError_t (*)(cudaStream_t, cudaHostFn_t, void*))>(attach)(cudaLaunchHostFunc);
#endif
  return found;
}

// ATTUNE_CUBLASLT names the file ("off": none); else the loader's own search, the toolkit's folders, Python's packages.
void* open_library(std::string* file, std::string* why) {
  std::vector<std::string> places;
  const char* given = std::getenv("ATTUNE_CUBLASLT");
  if (given != nullptr && *given != 0) {
    if (std::strcmp(given, "off") == 0) return *why = "ATTUNE_CUBLASLT is off", nullptr;
    places = {given};
  } else {
    places = {"libcublasLt.so.13", "libcublasLt.so.12"};
    const char* home = std::getenv("CUDA_HOME");
    for (const char* toolkit : {home ? home : "", "/usr/local/cuda"})
      for (const char* major : {"13", "12"})
        if (*toolkit != 0) places.push_back(std::string(toolkit) + "/lib64/libcublasLt.so." + major);
    add_python_places(&places);
  }
  for (const std::string& place : places)
    if (void* found = open_file(place, why)) return *file = place, found;
  if (places.size() == 1)
    *why = "ATTUNE_CUBLASLT can't be opened: " + *why;
  else
    *why = "no libcublasLt.so.13 or .12 was found (ATTUNE_CUBLASLT=FILE names one; the CUDA toolkit and the pip package nvidia-cublas carry it)";
  return nullptr;
}

Library load() {
  Library l;
  std::string file, why;
  void* opened = open_library(&file, &why);
  if (opened == nullptr) {
    l.name = "none: " + why;
    return l;
  }
  bool all = true;
  const auto get = [&](const char* name, auto* into) {
    void* symbol = dlsym(opened, (std::string("cublasLt") + name).c_str());
    all = all && symbol != nullptr;
    std::memcpy(into, &symbol, sizeof symbol);
  };
  get("Create", &l.Create);
  get("GetVersion", &l.GetVersion);
  get("MatmulDescCreate", &l.MatmulDescCreate);
  get("MatmulDescDestroy", &l.MatmulDescDestroy);
  get("MatmulDescSetAttribute", &l.MatmulDescSetAttribute);
  get("MatrixLayoutCreate", &l.MatrixLayoutCreate);
  get("MatrixLayoutDestroy", &l.MatrixLayoutDestroy);
  get("MatmulPreferenceCreate", &l.MatmulPreferenceCreate);
  get("MatmulPreferenceDestroy", &l.MatmulPreferenceDestroy);
  get("MatmulPreferenceSetAttribute", &l.MatmulPreferenceSetAttribute);
  get("MatmulAlgoGetHeuristic", &l.MatmulAlgoGetHeuristic);
  get("Matmul", &l.Matmul);
  if (!all) {
    l.name = "none: " + file + " lacks a function that products need";
  } else if (const Status s = l.Create(&l.handle); s != 0) {
    l.handle = nullptr;
    l.name = "none: " + file + " does not start (status " + std::to_string(s) + ")";
  } else {
    const size_t v = l.GetVersion();
    l.name = "cuBLASLt " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100) + " (" + file + ")";
  }
  return l;
}

}  // namespace

const Library& library() {
  static const Library l = load();
  return l;
}

}  // namespace lt

int64_t cublaslt_workspace() { return lt::library() ? lt::kWorkspace : 0; }

const std::string& cublaslt_name() { return lt::library().name; }

bool cublaslt_gemm(const Gemm& g, Stream& stream) {
  const int64_t k = g.a.shape[g.ta != 0 ? 0 : 1];
  if (!lt::library() || k == 0) return false;
  const lt::Product product(lt::library(), g);
  lt::Algorithm algorithm;
  if (!lt::choose(product, g, stream, &algorithm)) return false;
  if (g.onto && g.onto.data != g.y.data)
    cudaMemcpyAsync(g.y.data, g.onto.data, static_cast<size_t>(g.y.bytes()), cudaMemcpyDeviceToDevice, stream.handle());
  if (const lt::Status s = product.run(g, g.y.data, algorithm, stream); s != 0)
    stream.fail("gemm: cuBLASLt says status " + std::to_string(s) + " for " + std::to_string(g.y.shape[0]) + " x " +
                std::to_string(g.y.shape[1]) + " x " + std::to_string(k));
  return true;
}

}  // namespace attune::cuda
