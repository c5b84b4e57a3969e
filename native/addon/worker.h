// One thread and one queue of commands for a session. Commands run in order on the thread; each settles its promise on the
// JavaScript thread through one thread-safe function, which keeps the process alive only while commands are pending.
#pragma once
#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "../runtime/session.h"

namespace attune::addon {

class Worker;

struct Command {
  explicit Command(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}
  uint32_t token = 0;  // what JavaScript cancels by; 0: it cannot be cancelled alone
  Cancel cancel{false};
  Status status;
  std::function<Status(Session&, const Cancel&)> work;  // on the session's thread
  std::function<Status(Session&)> end;  // of a run, which has only begun when `work` is done, where the device queues
  std::function<Napi::Value(Napi::Env)> result;         // on the JavaScript thread, after work succeeded
  Napi::Promise::Deferred deferred;
  Worker* worker = nullptr;
};

class Worker {
 public:
  // Starts the thread. `handle` is the JavaScript object that stands for the session; it outlives all pending commands.
  static std::shared_ptr<Worker> start(Napi::Env env, Napi::Object handle, std::unique_ptr<Session> session);
  ~Worker();

  // All of these on the JavaScript thread.
  Napi::Promise push(std::unique_ptr<Command> command);
  void cancel(uint32_t token);         // a command that waits or runs; unknown tokens are done already
  Napi::Promise close(Napi::Env env);  // cancels what waits or runs, frees the session's memory, ends the thread
  bool closed() const { return closed_; }
  // Ends the thread without settling anything, waiting for the one instruction that runs: teardown and garbage collection.
  void stop();

  struct Sizes {
    std::atomic<int64_t> arena{0}, derived{0}, buffers{0}, device{0}, device_total{0}, threads{0};
    std::atomic<bool> fuses_head{false};
  };
  const Sizes& sizes() const { return sizes_; }
  const std::string& device() const { return device_; }
  int threads() const { return threads_; }

 private:
  Worker() = default;
  void loop();
  void measure();
  void conclude(std::unique_ptr<Command> begun);
  void report(std::unique_ptr<Command> command);
  void finish(Napi::Env env, Command& command);
  static void settle(napi_env env, napi_value, void*, void* command);

  std::unique_ptr<Session> session_;  // the session thread's alone, once it runs
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Command>> queue_;  // these four under mutex_
  Command* running_ = nullptr;
  bool stopping_ = false;
  std::unique_ptr<Command> farewell_;  // the close command
  Sizes sizes_;
  std::string device_;
  int threads_ = 0;

  // The JavaScript thread's alone.
  napi_env env_ = nullptr;
  napi_threadsafe_function reports_ = nullptr;
  Napi::ObjectReference handle_;  // strong while commands are pending
  size_t pending_ = 0;
  bool closed_ = false;
};

// An Error whose `kind` names the class of lib/errors.ts.
Napi::Error error_of(Napi::Env env, const Status& status);

}  // namespace attune::addon
