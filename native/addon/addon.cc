// What JavaScript sees: plain functions over a session handle. lib/runtime is the only importer and gives them their types.
#include <napi.h>

#include "../cpu/common/dispatch.h"
#include "../runtime/gpus.h"
#include "../runtime/host.h"
#include "../runtime/op_info.h"
#include "args.h"
#include "worker.h"

namespace attune::addon {

namespace {

constexpr napi_type_tag kSessionTag = {0x6174747565736573u, 0x73696f6e00000001u};
constexpr uint32_t kMostProgram = 0xffffffffu;
using Info = Napi::CallbackInfo;

Worker& worker_of(const Info& info) {
  const Napi::Env env = info.Env();
  bool ours = false;
  if (info[0].IsObject()) napi_check_object_type_tag(env, info[0], &kSessionTag, &ours);
  void* data = nullptr;
  if (!ours || napi_unwrap(env, info[0], &data) != napi_ok || data == nullptr)
    throw_bad(env, Fault::config, "session: this is not a session handle");
  return **static_cast<std::shared_ptr<Worker>*>(data);
}

Worker& open_worker_of(const Info& info) {
  Worker& w = worker_of(info);
  if (w.closed()) throw_bad(info.Env(), Fault::state, "session: must be open, got a closed one");
  return w;
}

std::unique_ptr<Command> command(const Info& info) { return std::make_unique<Command>(info.Env()); }

// A command that only has an effect.
Napi::Value act(const Info& info, Worker& w, uint32_t token, std::function<Status(Session&, const Cancel&)> work) {
  auto c = command(info);
  c->token = token;
  c->work = std::move(work);
  c->result = [](Napi::Env env) -> Napi::Value { return env.Undefined(); };
  return w.push(std::move(c));
}

uint32_t u32_arg(const Info& info, size_t at, const char* name) {
  return static_cast<uint32_t>(integer_arg(info.Env(), info[at], name, 0, kMostProgram));
}

// open({device, threads, hugePages, dry, named}) -> handle
Napi::Value open(const Info& info) {
  const Napi::Env env = info.Env();
  const Napi::Object given = object_arg(env, info[0], "options");
  Session::Options options;
  options.device = text_arg(env, given.Get("device"), "device");
  options.threads = static_cast<int>(integer_arg(env, given.Get("threads"), "threads", 0, 1024));
  options.huge_pages = given.Get("hugePages").ToBoolean();
  options.dry = given.Get("dry").ToBoolean();
  options.named = given.Get("named").ToBoolean();
  if (cpu::cpu_level_unknown())
    throw_bad(env, Fault::device, "ATTUNE_CPU: must be baseline, avx2, avx512 or avx512_bf16, got \"" +
                                      std::string(std::getenv("ATTUNE_CPU")) + "\"");
  std::unique_ptr<Session> session;
  if (Status s = Session::create(options, &session); !s.ok()) throw error_of(env, s);
  Napi::Object handle = Napi::Object::New(env);
  auto worker = std::make_unique<std::shared_ptr<Worker>>(Worker::start(env, handle, std::move(session)));
  napi_type_tag_object(env, handle, &kSessionTag);
  const napi_finalize done = [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<Worker>*>(data); };
  if (napi_wrap(env, handle, worker.get(), done, nullptr, nullptr) != napi_ok)
    throw_bad(env, Fault::state, "session: could not be wrapped");
  worker.release();
  return handle;
}

// sizes(handle) -> {device, threads, threadBytes, arenaBytes, derivedBytes, bufferBytes, deviceBytes, deviceMemory, fusesHead}
Napi::Value sizes(const Info& info) {
  const Napi::Env env = info.Env();
  const Worker& w = worker_of(info);
  Napi::Object o = Napi::Object::New(env);
  o.Set("device", w.device());
  o.Set("threads", w.threads());
  o.Set("threadBytes", static_cast<double>(w.sizes().threads));
  o.Set("arenaBytes", static_cast<double>(w.sizes().arena));
  o.Set("derivedBytes", static_cast<double>(w.sizes().derived));
  o.Set("bufferBytes", static_cast<double>(w.sizes().buffers));
  o.Set("deviceBytes", static_cast<double>(w.sizes().device));
  o.Set("deviceMemory", static_cast<double>(w.sizes().device_total));
  o.Set("fusesHead", static_cast<bool>(w.sizes().fuses_head));
  return o;
}

Napi::Value program_value(Napi::Env env, uint32_t id, const Program& p) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("id", id);
  o.Set("arenaBytes", static_cast<double>(p.arena));
  Napi::Array dims = Napi::Array::New(env, p.dims.size());
  for (uint32_t i = 0; i < p.dims.size(); ++i) {
    Napi::Object d = Napi::Object::New(env);
    d.Set("name", p.dims[i].name);
    d.Set("capacity", static_cast<double>(p.dims[i].capacity));
    dims.Set(i, d);
  }
  o.Set("dims", dims);
  Napi::Array buffers = Napi::Array::New(env, p.buffers.size());
  for (uint32_t i = 0; i < p.buffers.size(); ++i) {
    const Napi::HandleScope scope(env);
    const Buffer& b = p.buffers[i];
    Napi::Object out = Napi::Object::New(env);
    out.Set("name", b.name);
    out.Set("private", b.own);
    out.Set("weight", b.weight);
    out.Set("part", b.whole >= 0);
    out.Set("dtype", dtype_name(b.type.dtype));
    Napi::Array shape = Napi::Array::New(env, static_cast<size_t>(b.type.rank));
    for (int32_t k = 0; k < b.type.rank; ++k) shape.Set(static_cast<uint32_t>(k), static_cast<double>(b.type.size[k]));
    out.Set("shape", shape);
    out.Set("bytes", static_cast<double>(b.type.bytes()));
    buffers.Set(i, out);
  }
  o.Set("buffers", buffers);
  Napi::Array code = Napi::Array::New(env, p.code.size());
  for (uint32_t i = 0; i < p.code.size(); ++i) {
    const Napi::HandleScope scope(env);
    Napi::Object out = Napi::Object::New(env);
    out.Set("op", kOps[p.code[i].opcode].name);
    out.Set("name", p.code[i].name);
    code.Set(i, out);
  }
  o.Set("instructions", code);
  return o;
}

// load(handle, bytes) -> Promise<program>
Napi::Value load(const Info& info) {
  Worker& w = open_worker_of(info);
  auto bytes = std::make_shared<std::vector<uint8_t>>(bytes_arg(info.Env(), info[1], "program"));
  struct Loaded {
    uint32_t id = 0;
    Program copy;  // for the reply: the session's own may be gone by then
  };
  auto loaded = std::make_shared<Loaded>();
  auto c = command(info);
  c->work = [bytes, loaded](Session& session, const Cancel&) {
    Program program;
    if (Status s = decode(bytes->data(), bytes->size(), &program); !s.ok()) return s;
    loaded->copy = program;
    return session.load(std::move(program), &loaded->id);
  };
  c->result = [loaded](Napi::Env env) { return program_value(env, loaded->id, loaded->copy); };
  return w.push(std::move(c));
}

// unload(handle, id)
Napi::Value unload(const Info& info) {
  Worker& w = open_worker_of(info);
  const uint32_t id = u32_arg(info, 1, "program");
  return act(info, w, 0, [id](Session& session, const Cancel&) { return session.unload(id); });
}

// run(handle, token, id, counts, inputNames, inputArrays, outputNames, into, overwrite, timing) -> Promise<typed arrays, in that order>
Napi::Value run(const Info& info) {
  const Napi::Env env = info.Env();
  Worker& w = open_worker_of(info);
  auto request = std::make_shared<RunRequest>();
  auto outputs = std::make_shared<std::vector<HostArray>>();
  auto c = command(info);
  c->token = u32_arg(info, 1, "token");
  request->program = u32_arg(info, 2, "program");
  const Napi::Array counts = array_arg(env, info[3], "counts");
  for (uint32_t i = 0; i < counts.Length(); ++i)
    request->counts.push_back(integer_arg(env, counts.Get(i), "counts", 0, kMostProgram));
  const Napi::Array names = array_arg(env, info[4], "inputs"), arrays = array_arg(env, info[5], "inputs");
  if (names.Length() != arrays.Length()) throw_bad(env, Fault::config, "inputs: as many names as arrays");
  for (uint32_t i = 0; i < names.Length(); ++i)
    request->inputs.push_back(host_arg(env, arrays.Get(i), text_arg(env, names.Get(i), "inputs")));
  const Napi::Array wanted = array_arg(env, info[6], "outputs"), into = array_arg(env, info[7], "into");
  if (wanted.Length() != into.Length()) throw_bad(env, Fault::config, "into: as many arrays, or none, as outputs");
  for (uint32_t i = 0; i < wanted.Length(); ++i) {
    request->outputs.push_back(text_arg(env, wanted.Get(i), "outputs"));
    request->into.push_back(lent_arg(env, into.Get(i), request->outputs.back()));
  }
  request->overwrite = text_arg(env, info[8], "overwrite");
  request->timing = static_cast<Timing>(integer_arg(env, info[9], "timing", 0, 2));
  c->work = [request, outputs](Session& session, const Cancel& cancel) { return session.run(*request, cancel, outputs.get()); };
  c->end = [request, outputs](Session& session) { return session.end(*request, outputs.get()); };
  c->result = [outputs](Napi::Env e) -> Napi::Value {
    Napi::Array list = Napi::Array::New(e, outputs->size());
    for (uint32_t i = 0; i < outputs->size(); ++i) list.Set(i, to_js(e, (*outputs)[i]));
    return list;
  };
  return w.push(std::move(c));
}

// profile(handle, id, reset) -> Promise<Float64Array of nanoseconds, one per instruction>
Napi::Value profile(const Info& info) {
  Worker& w = open_worker_of(info);
  const uint32_t id = u32_arg(info, 1, "program");
  const bool reset = info[2].ToBoolean();
  auto times = std::make_shared<std::vector<double>>();
  auto c = command(info);
  c->work = [id, reset, times](Session& session, const Cancel&) { return session.profile(id, reset, times.get()); };
  c->result = [times](Napi::Env env) -> Napi::Value {
    Napi::Float64Array out = Napi::Float64Array::New(env, times->size());
    std::copy(times->begin(), times->end(), out.Data());
    return out;
  };
  return w.push(std::move(c));
}

// choices(handle) -> Promise<string>: what libraries chose for this session's products
Napi::Value choices(const Info& info) {
  Worker& w = open_worker_of(info);
  auto found = std::make_shared<std::string>();
  auto c = command(info);
  c->work = [found](Session& session, const Cancel&) { return *found = session.choices(), Status::good(); };
  c->result = [found](Napi::Env env) -> Napi::Value { return Napi::String::New(env, *found); };
  return w.push(std::move(c));
}

// adopt(handle, choices) -> Promise<boolean>
Napi::Value adopt(const Info& info) {
  Worker& w = open_worker_of(info);
  auto taken = std::make_shared<bool>(false);
  auto c = command(info);
  c->work = [taken, text = text_arg(info.Env(), info[1], "choices")](Session& session, const Cancel&) {
    return *taken = session.adopt(text), Status::good();
  };
  c->result = [taken](Napi::Env env) -> Napi::Value { return Napi::Boolean::New(env, *taken); };
  return w.push(std::move(c));
}

// peak(handle) -> Promise<{float32, bfloat16, copy}>
Napi::Value peak(const Info& info) {
  Worker& w = open_worker_of(info);
  auto found = std::make_shared<Peak>();
  auto c = command(info);
  c->work = [found](Session& session, const Cancel&) { return *found = session.peak(), Status::good(); };
  c->result = [found](Napi::Env env) -> Napi::Value {
    Napi::Object o = Napi::Object::New(env);
    o.Set("float32", found->float32);
    o.Set("bfloat16", found->bfloat16);
    o.Set("copy", found->copy);
    return o;
  };
  return w.push(std::move(c));
}

// write(handle, name, array, row)
Napi::Value write(const Info& info) {
  Worker& w = open_worker_of(info);
  const std::string name = text_arg(info.Env(), info[1], "buffer");
  auto from = std::make_shared<HostArray>(host_arg(info.Env(), info[2], name));
  const int64_t row = integer_arg(info.Env(), info[3], "rowStart", 0, kMostProgram);
  return act(info, w, 0, [from, row](Session& session, const Cancel&) { return session.write(*from, row); });
}

// read(handle, name, row, rows) -> Promise<typed array>
Napi::Value read(const Info& info) {
  Worker& w = open_worker_of(info);
  const std::string name = text_arg(info.Env(), info[1], "buffer");
  const int64_t row = integer_arg(info.Env(), info[2], "rowStart", 0, kMostProgram);
  const int64_t rows = integer_arg(info.Env(), info[3], "rows", -1, kMostProgram);
  auto out = std::make_shared<HostArray>();
  auto c = command(info);
  c->work = [name, row, rows, out](Session& session, const Cancel&) { return session.read(name, row, rows, out.get()); };
  c->result = [out](Napi::Env env) { return to_js(env, *out); };
  return w.push(std::move(c));
}

// zero(handle, name)
Napi::Value zero(const Info& info) {
  Worker& w = open_worker_of(info);
  const std::string name = text_arg(info.Env(), info[1], "buffer");
  return act(info, w, 0, [name](Session& session, const Cancel&) { return session.zero(name); });
}

// hash(handle, name) -> Promise<16 hex digits>
Napi::Value hash(const Info& info) {
  Worker& w = open_worker_of(info);
  const std::string name = text_arg(info.Env(), info[1], "buffer");
  auto value = std::make_shared<uint64_t>(0);
  auto c = command(info);
  c->work = [name, value](Session& session, const Cancel&) { return session.hash(name, value.get()); };
  c->result = [value](Napi::Env env) -> Napi::Value {
    char text[17];
    std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(*value));
    return Napi::String::New(env, text);
  };
  return w.push(std::move(c));
}

// countNonfinite(handle, name) -> Promise<number>
Napi::Value count_nonfinite(const Info& info) {
  Worker& w = open_worker_of(info);
  const std::string name = text_arg(info.Env(), info[1], "buffer");
  auto value = std::make_shared<int64_t>(0);
  auto c = command(info);
  c->work = [name, value](Session& session, const Cancel&) { return session.count_nonfinite(name, value.get()); };
  c->result = [value](Napi::Env env) -> Napi::Value { return Napi::Number::New(env, static_cast<double>(*value)); };
  return w.push(std::move(c));
}

// readFiles(handle, token, slices), writeFiles(handle, token, slices)
template <bool kWrite> Napi::Value files(const Info& info) {
  Worker& w = open_worker_of(info);
  const uint32_t token = u32_arg(info, 1, "token");
  auto slices = std::make_shared<std::vector<FileSlice>>(slices_arg(info.Env(), info[2]));
  return act(info, w, token, [slices](Session& session, const Cancel& cancel) {
    return kWrite ? session.write_files(*slices, cancel) : session.read_files(*slices, cancel);
  });
}

// cancel(handle, token)
Napi::Value cancel(const Info& info) {
  Worker& w = worker_of(info);
  const uint32_t token = u32_arg(info, 1, "token");
  if (!w.closed() && token != 0) w.cancel(token);
  return info.Env().Undefined();
}

// close(handle) -> Promise
Napi::Value close(const Info& info) { return open_worker_of(info).close(info.Env()); }

// scratch(device, bytes of one instruction) -> bytes
Napi::Value scratch(const Info& info) {
  const Napi::Env env = info.Env();
  std::string why;
  const Device* device = find_device(text_arg(env, info[0], "device"), &why);
  if (device == nullptr) throw_bad(env, Fault::device, why);
  const std::vector<uint8_t> bytes = bytes_arg(env, info[1], "instruction");
  Instruction code;
  if (Status s = decode_instruction(bytes.data(), bytes.size(), &code); !s.ok()) throw error_of(env, s);
  return Napi::Number::New(env, static_cast<double>(scratch_bytes(*device, code)));
}

// device(name) -> the device that `auto` stands for; other names as they are, or why they cannot be used
Napi::Value device_name(const Info& info) {
  const Napi::Env env = info.Env();
  std::string why;
  const Device* device = find_device(text_arg(env, info[0], "device"), &why);
  if (device == nullptr) throw_bad(env, Fault::device, why);
  return Napi::String::New(env, device->name);
}

// cpuInfo() -> {level, levels, threads}
Napi::Value cpu_info(const Info& info) {
  Napi::Object o = Napi::Object::New(info.Env());
  Napi::Array levels = Napi::Array::New(info.Env());
  for (const char* name : cpu::cpu_levels()) levels.Set(levels.Length(), name);
  o.Set("levels", levels);
  o.Set("level", cpu::cpu_level());
  o.Set("threads", cpu_share());
  return o;
}

// gpus() -> {driver, runtime, why, products, found: [{name, capability, memory, free, why}]}, or undefined in a build for the CPU alone
Napi::Value gpus(const Info& info) {
  const Napi::Env env = info.Env();
#ifdef ATTUNE_DEVICE
  const Gpus all = find_gpus();
  Napi::Object o = Napi::Object::New(env);
  o.Set("driver", all.driver);
  o.Set("runtime", all.runtime);
  o.Set("why", all.why);
  o.Set("products", all.products);
  Napi::Array found = Napi::Array::New(env);
  for (const Gpu& g : all.found) {
    Napi::Object one = Napi::Object::New(env);
    one.Set("name", g.name);
    one.Set("capability", std::to_string(g.major) + "." + std::to_string(g.minor));
    one.Set("memory", static_cast<double>(g.memory));
    one.Set("free", static_cast<double>(g.free));
    one.Set("why", g.why);
    found.Set(found.Length(), one);
  }
  o.Set("found", found);
  return o;
#else
  return env.Undefined();
#endif
}

// compiler() -> what built this, such as "g++ 13.2.0"
Napi::Value compiler(const Info& info) {
#ifdef __clang__
  return Napi::String::New(info.Env(), "clang++ " __clang_version__);
#else
  return Napi::String::New(info.Env(), "g++ " __VERSION__);
#endif
}

Napi::Value most_memory(const Info& info) { return Napi::Number::New(info.Env(), static_cast<double>(peak_rss())); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  const struct {
    const char* name;
    Napi::Value (*call)(const Info&);
  } functions[] = {{"open", open},           {"sizes", sizes},
                   {"load", load},           {"unload", unload},
                   {"run", run},             {"profile", profile},
                   {"write", write},         {"read", read},
                   {"zero", zero},           {"hash", hash},
                   {"readFiles", files<false>}, {"writeFiles", files<true>},
                   {"cancel", cancel},       {"close", close},
                   {"scratch", scratch},     {"countNonfinite", count_nonfinite},
                   {"cpuInfo", cpu_info},    {"gpus", gpus}, {"compiler", compiler},    {"peakRss", most_memory}, {"device", device_name},
                   {"peak", peak},           {"choices", choices},
                   {"adopt", adopt}};
  for (const auto& f : functions) exports.Set(f.name, Napi::Function::New(env, f.call, f.name));
  Napi::Array ops = Napi::Array::New(env, kOpCount);
  for (uint32_t i = 0; i < kOpCount; ++i) ops.Set(i, kOps[i].name);
  Napi::Array devices = Napi::Array::New(env);
  for (const std::string& name : device_names()) devices.Set(devices.Length(), name);
  exports.Set("ops", ops);
  exports.Set("devices", devices);
  exports.Set("tableHash", static_cast<double>(kTableHash));
  exports.Set("version", 1);
  return exports;
}

NODE_API_MODULE(attune, init)

}  // namespace

}  // namespace attune::addon
